/* What is sent for a job, tried with real shells. */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "command.h"
#include "store.h"

/* Of this process alone: other runs of this test on the machine must not be found. */
static char token[COMMAND_TOKEN + 1];

static char output[65536];
static int greeted_pid;
static enum command_limit limit = LIMIT_ASK;

/* As job_run.c does it: the greeting is not the command's. */
static size_t take_greeting(char *text, size_t len)
{
	struct buf out = BUF_INIT;
	struct greeting g;

	greeting_init(&g, token);
	greeting_feed(&g, text, len, &out);
	greeting_end(&g, &out);
	greeted_pid = g.pid;
	len = buf_size(&out);
	if (len > 0)
		memcpy(text, buf_peek(&out), len);
	buf_finish(&out);
	return len;
}

/* Run it as sshd does: the login shell with -c, input on a pipe. Returns the exit status. */
static int run_as_sshd(const char *shell, const char *script, size_t size, const char *cwd,
		       const char *env, const char *input)
{
	struct command c;
	int in[2], out[2], status;
	size_t len = 0;
	ssize_t n;
	char *text;
	pid_t pid;

	command_build(&c, script, size, cwd, env, token, limit, false);
	text = buf_take_string(&c.exec);
	assert_int_equal(pipe(in) | pipe(out), 0);
	pid = fork();
	if (pid == 0) {
		dup2(in[0], 0);
		dup2(out[1], 1);
		dup2(out[1], 2);
		close(in[1]);
		close(out[0]);
		setenv("SHELL", shell, 1);
		execl(shell, shell, "-c", text, (char *)NULL);
		_exit(99);
	}
	close(in[0]);
	close(out[1]);
	if (c.script_on_stdin)
		assert_int_equal(write(in[1], script, size), size);
	assert_int_equal(write(in[1], input, strlen(input)), strlen(input));
	close(in[1]);
	while ((n = read(out[0], output + len, sizeof(output) - 1 - len)) > 0)
		len += (size_t)n;
	output[take_greeting(output, len)] = 0;
	close(out[0]);
	waitpid(pid, &status, 0);
	free(text);
	command_finish(&c);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static int run(const char *script, const char *cwd, const char *env, const char *input)
{
	return run_as_sshd("/bin/bash", script, strlen(script), cwd, env, input);
}

static void quotes_and_heredocs_arrive_as_they_are(void **state)
{
	assert_int_equal(run("echo \"it's\" 'a \"b\"' $((1+1)); cat <<E\nx $HOME\nE\nexit 7", "", "", ""), 7);
	assert_non_null(strstr(output, "it's a \"b\" 2\nx /"));
}

static void a_command_reads_its_own_input(void **state)
{
	assert_int_equal(run("read a; echo got $a; cat", NULL, NULL, "first\nrest\n"), 0);
	assert_string_equal(output, "got first\nrest\n");
}

static void folder_and_environment_are_set(void **state)
{
	assert_int_equal(run("pwd; echo \"$A\"; echo \"$B\"", "/usr", "A=it's $HOME; x\nB=\n", ""), 0);
	assert_string_equal(output, "/usr\nit's $HOME; x\n\n");
}

static void a_missing_folder_ends_the_job_with_127(void **state)
{
	assert_int_equal(run("echo never", "/no/such", "", ""), 127);
	assert_null(strstr(output, "never"));
	assert_non_null(strstr(output, "/no/such"));
}

static void an_interpreter_line_is_obeyed_and_input_follows(void **state)
{
	assert_int_equal(run("#!/usr/bin/env perl\nprint \"perl \", scalar(<STDIN>); exit 4;\n", "/usr",
			     "X=1", "line\n"), 4);
	assert_string_equal(output, "perl line\n");
}

static void a_long_script_travels_on_standard_input(void **state)
{
	size_t size = COMMAND_INLINE_MAX * 2;
	char *script = malloc(size + 64);

	memset(script, '#', size);
	for (size_t i = 99; i < size; i += 100)
		script[i] = '\n';
	strcpy(script + size, "\ncat; echo end\n");
	assert_int_equal(run(script, "", "", "input\n"), 0);
	assert_string_equal(output, "input\nend\n");
	free(script);
}

static void dash_does_as_bash_does(void **state)
{
	assert_int_equal(run_as_sshd("/bin/dash", "echo $A; exit 5", 15, "/", "A=b", ""), 5);
	assert_string_equal(output, "b\n");
}

static void a_temporary_script_is_removed(void **state)
{
	assert_int_equal(run("#!/bin/sh\necho \"$0\"\n", "", "", ""), 0);
	output[strcspn(output, "\n")] = 0;
	assert_int_equal(access(output, F_OK), -1);
}

static void environment_lines_are_checked(void **state)
{
	unsigned line;

	assert_int_equal(env_check("A=1\n\nB_2=x=y\n", &line), 0);
	assert_int_equal(env_check("A=1\nnope\n", &line), -EINVAL);
	assert_int_equal(line, 2);
	assert_int_equal(env_check("1A=2", &line), -EINVAL);
	assert_int_equal(env_check("=x", &line), -EINVAL);
	assert_int_equal(env_check("A B=x", &line), -EINVAL);
}

/*
 * Start a job, and run what ends it once it has said "ready": with so many seconds of grace, or
 * by that signal. Its output must end then.
 */
static int end_job(const char *script, unsigned grace, const char *signal)
{
	static const struct kill_target jobs[] = {
		{ "0ddba110ddba110ddba110ddba110ddb", 0 }, { token, 0 },
	};
	struct buf kill_text = BUF_INIT;
	struct command c;
	char *text, byte[64];
	int out[2], in[2], status;
	ssize_t n, len = 0;
	pid_t pid, killer;

	command_build(&c, script, strlen(script), "", "", token, LIMIT_FREE, false);
	text = buf_take_string(&c.exec);
	command_finish(&c);
	assert_int_equal(pipe(out) | pipe(in), 0);
	pid = fork();
	if (pid == 0) {
		setsid();
		dup2(in[0], 0);
		dup2(out[1], 1);
		close(in[1]);
		execl("/bin/bash", "bash", "-c", text, (char *)NULL);
		_exit(99);
	}
	close(out[1]);
	free(text);
	do {
		n = read(out[0], byte + len, sizeof(byte) - 1 - (size_t)len);
		assert_true(n > 0);
		byte[len += n] = 0;
	} while (!strstr(byte, "ready\n"));
	command_build_kill(&kill_text, jobs, 2, grace, signal);
	text = buf_take_string(&kill_text);
	killer = fork();
	if (killer == 0) {
		setsid();
		execl("/bin/bash", "bash", "-c", text, (char *)NULL);
		_exit(99);
	}
	assert_int_equal(waitpid(killer, &status, 0), killer);
	assert_int_equal(status, 0);
	/* End of file: nobody of the job holds the pipe any more. */
	assert_int_equal(read(out[0], byte, sizeof(byte)), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	close(in[0]);
	close(in[1]);
	close(out[0]);
	free(text);
	return status;
}

static void the_killer_ends_whoever_carries_the_mark(void **state)
{
	assert_true(WIFSIGNALED(end_job("setsid sleep 1000 & sleep 1000 & echo ready; "
					"while :; do read x; done", 1, NULL)));
}

static void the_killer_asks_who_comes_later(void **state)
{
	/* A session that was not there at the first look, as that of a job which is being started. */
	int status = end_job("trap 'setsid bash -c \"while :; do sleep 0.01; done\"; exit 5' TERM; "
			     "echo ready; while :; do sleep 0.01; done", 60, NULL);

	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 5);
}

static void who_was_asked_may_clean_up(void **state)
{
	/* More than one look long. */
	int status = end_job("trap 'sleep 0.5 && exit 6' TERM; "
			     "echo ready; while :; do sleep 0.01; done", 60, NULL);

	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 6);
}

static void the_killer_finds_daemons_without_environment(void **state)
{
	/* Their parents have gone, TERM does not bother them. */
	assert_true(WIFSIGNALED(end_job("trap '' TERM; "
					"env -i setsid sh -c 'trap \"\" TERM; sleep 1000 & sleep 1000 &'; "
					"sleep 0.1; echo ready; while :; do read x; done", 1, NULL)));
}

/* A grep that comes to this process's memory hangs, as behind one that holds its lock for ever. */
static void the_killer_is_held_up_by_nobody(void **state)
{
	char dir[] = "/tmp/sbxfs-grep-XXXXXX", path[64], *was = strdup(getenv("PATH")), *now;
	FILE *f;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/grep", dir);
	f = fopen(path, "w");
	assert_non_null(f);
	fprintf(f, "#!/bin/sh\ncase \" $* \" in *\" /proc/%d/environ \"*) exec sleep 1000;; esac\n"
		"PATH='%s'\nexec grep \"$@\"\n", (int)getpid(), was);
	assert_int_equal(fclose(f) | chmod(path, 0755), 0);
	assert_true(asprintf(&now, "%s:%s", dir, was) > 0);
	setenv("PATH", now, 1);
	/* One that only its environment tells of: session, parent and limit are not the job's. */
	assert_true(WIFSIGNALED(end_job("ulimit -S -f 1000000; (setsid sleep 1000 &); echo ready; "
					"while :; do read x; done", 60, NULL)));
	setenv("PATH", was, 1);
	assert_int_equal(unlink(path) | rmdir(dir), 0);
	free(now);
	free(was);
}

static void a_signal_is_sent_to_all(void **state)
{
	int status = end_job("(trap 'exit 3' USR1; while :; do sleep 0.01; done) & "
			     "trap 'wait; exit 5' USR1; echo ready; while :; do sleep 0.01; done",
			     0, "USR1");

	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 5);
}

static void names_of_signals(void **state)
{
	int number = 0;

	assert_string_equal(signal_name("sigterm", &number), "TERM");
	assert_int_equal(number, 15);
	assert_string_equal(signal_name("USR1", NULL), "USR1");
	assert_null(signal_name("NOPE", &number));
	assert_null(signal_name("", &number));
	assert_null(signal_name("SIG", &number));
	assert_null(signal_name("9", &number));
	assert_null(signal_name("TERM; rm -rf /", &number));
}

/* --- the greeting ----------------------------------------------------------- */

#define SAMPLE "0123456789abcdef0123456789abcdef"

/* Feed text in pieces of that size; what is the job's is in output. */
static void feed_in_pieces(const char *text, size_t piece, struct greeting *g)
{
	struct buf out = BUF_INIT;
	size_t len = strlen(text);

	greeting_init(g, SAMPLE);
	for (size_t i = 0; i < len; i += piece)
		greeting_feed(g, text + i, len - i < piece ? len - i : piece, &out);
	greeting_end(g, &out);
	assert_true(buf_size(&out) < sizeof(output));
	if (buf_size(&out) > 0)
		memcpy(output, buf_peek(&out), buf_size(&out));
	output[buf_size(&out)] = 0;
	buf_finish(&out);
}

static void the_greeting_is_taken_out_wherever_it_is_cut(void **state)
{
	struct greeting g;

	for (size_t piece = 1; piece < 120; piece++) {
		feed_in_pieces("welcome\n" SAMPLE " 4711\nout\n" SAMPLE " 1\n", piece, &g);
		assert_string_equal(output, "welcome\nout\n" SAMPLE " 1\n");
		assert_int_equal(g.pid, 4711);
		feed_in_pieces(SAMPLE " 12\r\n", piece, &g);	/* through a terminal */
		assert_string_equal(output, "");
		assert_int_equal(g.pid, 12);
	}
}

static void without_a_greeting_nothing_is_lost(void **state)
{
	static const char long_tail[] = SAMPLE "0123456789 0123456789 0123456789 0123456789 0123456789\n";
	struct greeting g;

	for (size_t piece = 1; piece < 120; piece++) {
		feed_in_pieces("0123456789abcdef0123456789abcde", piece, &g);
		assert_string_equal(output, "0123456789abcdef0123456789abcde");
		feed_in_pieces("01230123456789a0123456789abcdef" SAMPLE, piece, &g);
		assert_string_equal(output, "01230123456789a0123456789abcdef" SAMPLE);
		assert_int_equal(g.pid, 0);
		feed_in_pieces("xx", piece, &g);
		assert_string_equal(output, "xx");
	}
	feed_in_pieces(long_tail, 20, &g);
	assert_string_equal(output, long_tail);
}

static void the_shell_greets_and_marks_itself(void **state)
{
	static const char show[] = "echo $$ $SBXFS_JOB $(ulimit -S -f) $(ulimit -H -f)";
	char wanted[200];

	for (limit = LIMIT_ASK; limit <= LIMIT_FREE; limit++) {
		assert_int_equal(run(show, "/", "", ""), 0);
		snprintf(wanted, sizeof(wanted), "%d %s %llu unlimited\n", greeted_pid, token,
			 (unsigned long long)command_file_limit(token));
		assert_string_equal(output, wanted);
		assert_int_equal(run_as_sshd("/bin/dash", show, strlen(show), "", "", ""), 0);
		assert_string_equal(strchr(output, ' '), strchr(wanted, ' '));
	}
	limit = LIMIT_USED;
	assert_int_equal(run("ulimit -f", "/", "", ""), 0);
	assert_string_equal(output, "unlimited\n");
	limit = LIMIT_ASK;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(quotes_and_heredocs_arrive_as_they_are),
		cmocka_unit_test(a_command_reads_its_own_input),
		cmocka_unit_test(folder_and_environment_are_set),
		cmocka_unit_test(a_missing_folder_ends_the_job_with_127),
		cmocka_unit_test(an_interpreter_line_is_obeyed_and_input_follows),
		cmocka_unit_test(a_long_script_travels_on_standard_input),
		cmocka_unit_test(dash_does_as_bash_does),
		cmocka_unit_test(a_temporary_script_is_removed),
		cmocka_unit_test(environment_lines_are_checked),
		cmocka_unit_test(the_killer_ends_whoever_carries_the_mark),
		cmocka_unit_test(the_killer_asks_who_comes_later),
		cmocka_unit_test(who_was_asked_may_clean_up),
		cmocka_unit_test(the_killer_finds_daemons_without_environment),
		cmocka_unit_test(the_killer_is_held_up_by_nobody),
		cmocka_unit_test(a_signal_is_sent_to_all),
		cmocka_unit_test(names_of_signals),
		cmocka_unit_test(the_greeting_is_taken_out_wherever_it_is_cut),
		cmocka_unit_test(without_a_greeting_nothing_is_lost),
		cmocka_unit_test(the_shell_greets_and_marks_itself),
	};

	random_hex(token, COMMAND_TOKEN / 2);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
