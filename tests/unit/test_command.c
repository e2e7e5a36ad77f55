/* What is sent for a job, tried with real shells. */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "command.h"

static char output[65536];

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

	command_build(&c, script, size, cwd, env, "0123456789abcdef");
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
	output[len] = 0;
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

/* Start a job with children that left the session, and one shell without any; end it. */
static void the_killer_ends_whoever_carries_the_mark(void **state)
{
	static const char script[] = "setsid sleep 1000 & sleep 1000 & echo ready; while :; do read x; done";
	struct buf kill_text = BUF_INIT;
	struct command c;
	char *text, byte[8];
	int out[2], in[2], status;
	pid_t pid, killer;

	command_build(&c, script, strlen(script), "", "", "feedc0de");
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
	assert_int_equal(read(out[0], byte, 6), 6);
	command_build_kill(&kill_text, "0ddba11|feedc0de", 1);
	free(text);
	text = buf_take_string(&kill_text);
	killer = fork();
	if (killer == 0) {
		setsid();
		execl("/bin/bash", "bash", "-c", text, (char *)NULL);
		_exit(99);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	/* End of file: nobody of the job holds the pipe any more. */
	assert_int_equal(read(out[0], byte, sizeof(byte)), 0);
	waitpid(killer, &status, 0);
	assert_int_equal(status, 0);
	close(in[0]);
	close(in[1]);
	close(out[0]);
	free(text);
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
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
