/* The words that exe.dev is asked in, and what its answers mean. */
#include "test.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "buf.h"
#include "err.h"

/* --- quoting ------------------------------------------------------------------- */

/*
 * The service's lexer as its clients describe it: blanks split; '…' is literal; inside
 * "…" a backslash escapes " \ $ `; elsewhere the next character.
 */
static bool next_word(const char **line, char *out)
{
	const char *p = *line + strspn(*line, " \t\n");
	bool any = false;

	for (; *p && !strchr(" \t\n", *p); any = true) {
		if (*p == '\'') {
			for (p++; *p != '\''; p++) {
				assert_true(*p);
				*out++ = *p;
			}
			p++;
		} else if (*p == '"') {
			for (p++; *p != '"'; p++) {
				assert_true(*p);
				if (*p == '\\' && strchr("\"\\$`", p[1]))
					p++;
				*out++ = *p;
			}
			p++;
		} else {
			if (*p == '\\')
				p++;
			*out++ = *p++;
		}
	}
	*out = 0;
	*line = p;
	return any;
}

static void words_come_back_from_the_lexer(void **state)
{
	static const char *const words[] = {
		"new", "--name=web", "", "it's", "'", "''", "a b", "\"", "\\", "a\\", "$HOME", "`id`",
		"x;y|z>&", "\t", "two\nlines", "\xc3\xa4\xff", "--comment=don't \"$x\" \\", "*?[]",
		"#", "~", "(", "a'b'c", NULL,
	};
	char *line = api_line(words), word[256];
	const char *rest = line;

	for (size_t i = 0; words[i]; i++) {
		assert_true(next_word(&rest, word));
		assert_string_equal(word, words[i]);
	}
	assert_false(next_word(&rest, word));
	free(line);
}

static void any_bytes_come_back(void **state)
{
	unsigned seed = 1;

	for (int n = 0; n < 2000; n++) {
		char text[40], word[200];
		const char *words[] = { "x", text, "y", NULL }, *rest;
		size_t len = (size_t)(rand_r(&seed) % 38);
		char *line;

		for (size_t i = 0; i < len; i++)
			text[i] = (char)(rand_r(&seed) % 4 ? "'\"\\ $`ab\n"[rand_r(&seed) % 9] :
							     1 + rand_r(&seed) % 255);
		text[len] = 0;
		rest = line = api_line(words);
		assert_true(next_word(&rest, word));
		assert_true(next_word(&rest, word));
		assert_string_equal(word, text);
		assert_true(next_word(&rest, word));
		assert_string_equal(word, "y");
		assert_false(next_word(&rest, word));
		free(line);
	}
}

static void plain_words_stay_plain(void **state)
{
	const char *const words[] = { "new", "--name=web-1", "ghcr.io/a/b:latest@x", NULL };
	struct buf sizes = BUF_INIT;
	char *line = api_line(words);

	assert_string_equal(line, "new --name=web-1 ghcr.io/a/b:latest@x");
	free(line);
	api_size(&sizes, "memory", 4ull << 30);
	api_size(&sizes, "disk", 1536ull << 20);
	api_size(&sizes, "cpu", 0);
	line = buf_take_string(&sizes);
	assert_string_equal(line, "--memory=4GB --disk=1536MB");
	free(line);
}

/* --- was it done? ------------------------------------------------------------------ */

static struct api_answer judged;

static enum api_verdict judge(long status, const char *body)
{
	api_finish(&judged);
	api_judge(&judged, status, body, strlen(body), "the line was cut");
	return judged.verdict;
}

static void an_error_key_is_a_failure_at_any_status(void **state)
{
	assert_int_equal(judge(404, "{\"error\":\"not found\"}"), API_REFUSED);
	assert_int_equal(judged.code, -ENODEV);
	assert_string_equal(judged.text, "the service answered HTTP status 404, not found: is the "
			    "address right (api in [exe.dev])?");
	assert_int_equal(judge(404, "{\"error\":\"unknown command\"}"), API_REFUSED);
	assert_int_equal(judged.code, -ENOSYS);
	assert_string_equal(judged.text, "unknown command");
	assert_int_equal(judge(422, "{\"error\":\"VM 'web' not found\"}"), API_REFUSED);
	assert_int_equal(judged.code, -ENOENT);
	assert_int_equal(judge(200, "{\"error\":\"unknown command\"}"), API_REFUSED);
	assert_string_equal(judged.text, "unknown command");
	assert_int_equal(judge(422, "{\"error\":\"this VM name is not available\"}"), API_REFUSED);
	assert_int_equal(judged.code, -EEXIST);
	assert_int_equal(judge(422, "{\"error\":\"VM \\\"x\\\" not found\"}"), API_REFUSED);
	assert_true(api_not_found(&judged));
	assert_int_equal(judge(403, "{\"error\":\"command not allowed by token permissions\"}"),
			 API_REFUSED);
	assert_int_equal(judged.code, -EACCES);
	assert_int_equal(judge(200, "{\"error\":{\"message\":\"deep\"}}"), API_REFUSED);
	assert_string_equal(judged.text, "deep");
	assert_int_equal(judge(200, "{\"error\":null,\"vm_name\":\"a\"}"), API_OK);
	assert_int_equal(judge(422, "failed"), API_REFUSED);
	assert_int_equal(judge(422, "{\"error\":\"failed to connect\"}"), API_REFUSED);
	assert_true(api_not_ready(&judged));
	assert_int_equal(judge(302, ""), API_REFUSED);
	api_finish(&judged);
}

static void what_is_not_certain_is_unclear(void **state)
{
	assert_int_equal(judge(0, ""), API_UNCLEAR);
	assert_non_null(strstr(judged.text, "the line was cut"));
	assert_int_equal(judge(500, "{\"error\":\"internal\"}"), API_UNCLEAR);
	assert_string_equal(judged.text, "internal");
	assert_int_equal(judge(504, ""), API_UNCLEAR);
	assert_int_equal(judge(200, "{\"vm_name\":\"a\",\"ssh_"), API_UNCLEAR);
	assert_int_equal(judge(200, "<html>hello</html>"), API_UNCLEAR);
	assert_int_equal(judge(200, ""), API_OK);
	assert_null(judged.json);
	assert_int_equal(judge(200, "{\"a\":1}\n{\"vm_name\":\"b\"}\n"), API_OK);
	assert_int_equal(judge(200, "{\"a\":1}\n{\"error\":\"late\"}\n"), API_REFUSED);
	api_finish(&judged);
}

/* --- VMs ------------------------------------------------------------------------------- */

static struct api_vm vm_of(const char *text)
{
	cJSON *j = cJSON_Parse(text);
	struct api_vm vm;

	assert_non_null(j);
	assert_true(api_vm_of(j, &vm));
	cJSON_Delete(j);
	return vm;
}

static void addresses_in_all_their_forms(void **state)
{
	struct api_vm vm = vm_of("{\"vm_name\":\"a\",\"ssh_dest\":\"a.exe.xyz\",\"ssh_port\":22}");

	assert_string_equal(vm.host, "a.exe.xyz");
	assert_int_equal(vm.port, 22);
	assert_string_equal(vm.user, "");
	vm = vm_of("{\"vm_name\":\"a\",\"ssh_dest\":\"vm+a@exe.dev\",\"ssh_host\":\"exe.dev\","
		   "\"ssh_user\":\"vm+a\"}");
	assert_string_equal(vm.host, "exe.dev");
	assert_string_equal(vm.user, "vm+a");
	vm = vm_of("{\"name\":\"a\",\"ssh_dest\":\"bob@h.example:2222\"}");
	assert_string_equal(vm.host, "h.example");
	assert_string_equal(vm.user, "bob");
	assert_int_equal(vm.port, 2222);
	vm = vm_of("{\"vm\":{\"vm_name\":\"a\",\"ssh_dest\":\"ssh://h:1/\"}}");
	assert_string_equal(vm.host, "h");
	assert_int_equal(vm.port, 1);
	vm = vm_of("{\"vm\":\"a\",\"ssh_command\":\"ssh vm+a@exe.dev\"}");
	assert_string_equal(vm.host, "exe.dev");
	vm = vm_of("{\"vm_name\":\"a\",\"ssh_dest\":\"[::1]:22\"}");
	assert_string_equal(vm.host, "::1");
	vm = vm_of("{\"vm_name\":\"a\",\"ssh_dest\":\"-oProxyCommand=x\",\"ssh_user\":\"-l\"}");
	assert_string_equal(vm.host, "");
	assert_string_equal(vm.user, "");
}

static void names_that_are_none_are_left_out(void **state)
{
	static const char *const bad[] = {
		"{\"vm_name\":\"../x\"}", "{\"vm_name\":\"\"}", "{}", "[]", "{\"vm_name\":5}",
		"{\"vm_name\":\"a/b\"}", "{\"vm_name\":\"A\"}", "\"a\"",
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		cJSON *j = cJSON_Parse(bad[i]);
		struct api_vm vm;

		assert_false(api_vm_of(j, &vm));
		cJSON_Delete(j);
	}
}

static void count_vm(void *user, const struct api_vm *vm)
{
	strcat(user, vm->name);
}

static int list(const char *text, char *names)
{
	cJSON *j = cJSON_Parse(text);
	int r = api_vms_of(j, count_vm, strcpy(names, ""));

	cJSON_Delete(j);
	return r;
}

static void lists_in_all_their_forms(void **state)
{
	char names[64];

	assert_int_equal(list("{\"vms\":[{\"vm_name\":\"a\"},{\"vm_name\":\"b\",\"x\":{}}]}", names), 0);
	assert_string_equal(names, "ab");
	assert_int_equal(list("{\"vms\":[],\"shared_vms\":[{\"vm_name\":\"c\"}]}", names), 0);
	assert_string_equal(names, "");
	assert_int_equal(list("{\"vms\":null}", names), 0);
	assert_int_equal(list("[{\"vm_name\":\"a\"}]", names), 0);
	assert_string_equal(names, "a");
	assert_int_equal(list("{\"data\":[{\"vm_name\":\"a\"}]}", names), 0);
	/* No list says nothing: nobody is gone because of it. */
	assert_true(list("{}", names) < 0);
	assert_true(list("{\"vms\":{}}", names) < 0);
	assert_true(list("5", names) < 0);
	/* Nor does one of things that cannot be read; beside others they are left out. */
	assert_true(list("{\"vms\":[5,null,{},{\"vm_name\":7}]}", names) < 0);
	assert_int_equal(list("{\"vms\":[5,{\"vm_name\":\"a\"},{}]}", names), 0);
	assert_string_equal(names, "a");
}

static void tags_are_whole_words(void **state)
{
	struct api_vm vm = vm_of("{\"vm_name\":\"a\",\"tags\":[\"sbxfs\",\"sbxfs-1\",\"x y\",5,\"\"]}");

	assert_string_equal(vm.tags, "sbxfs sbxfs-1");
	assert_true(api_has_tag(vm.tags, "sbxfs"));
	assert_true(api_has_tag(vm.tags, "sbxfs-1"));
	assert_false(api_has_tag(vm.tags, "sbxfs-"));
	assert_false(api_has_tag(vm.tags, "bxfs"));
	assert_false(api_has_tag(vm.tags, ""));
	assert_string_equal(vm_of("{\"vm_name\":\"a\"}").tags, "");
}

/* --- tokens ---------------------------------------------------------------------------------- */

static void a_self_signed_token_says_what_it_grants(void **state)
{
	unsigned grants;

	/* {"cmds":["ls","share port"]} and {} and "x" */
	assert_true(api_token_grants("exe0.eyJjbWRzIjpbImxzIiwic2hhcmUgcG9ydCJdfQ.AAAA", &grants));
	assert_int_equal(grants, 1u << GRANT_LS | 1u << GRANT_SHARE_PORT);
	assert_true(api_token_grants("exe0.e30.AAAA", &grants));
	assert_int_equal(grants, 1u << GRANT_LS | 1u << GRANT_NEW | 1u << GRANT_WHOAMI);
	assert_false(api_token_grants("exe0.IngiCg.AAAA", &grants));
	assert_false(api_token_grants("exe0.*.AAAA", &grants));
	assert_false(api_token_grants("exe0.", &grants));
	assert_false(api_token_grants("exe1.secret", &grants));
}

static void a_token_is_made_of_permissions_and_signature(void **state)
{
	char token[200];

	assert_int_equal(api_make_token("{}", "-----BEGIN SSH SIGNATURE-----\nab+/\ncd==\n"
					"-----END SSH SIGNATURE-----\n", token, sizeof(token)), 0);
	assert_string_equal(token, "exe0.e30.ab-_cd");
	assert_true(api_make_token("{}", "nonsense", token, sizeof(token)) < 0);
	assert_true(api_make_token("{}", "-----BEGIN SSH SIGNATURE-----\nabcdefghijklmnopqrstuvw\n"
				   "-----END SSH SIGNATURE-----\n", token, 20) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(words_come_back_from_the_lexer),
		cmocka_unit_test(any_bytes_come_back),
		cmocka_unit_test(plain_words_stay_plain),
		cmocka_unit_test(an_error_key_is_a_failure_at_any_status),
		cmocka_unit_test(what_is_not_certain_is_unclear),
		cmocka_unit_test(addresses_in_all_their_forms),
		cmocka_unit_test(names_that_are_none_are_left_out),
		cmocka_unit_test(lists_in_all_their_forms),
		cmocka_unit_test(tags_are_whole_words),
		cmocka_unit_test(a_self_signed_token_says_what_it_grants),
		cmocka_unit_test(a_token_is_made_of_permissions_and_signature),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
