/*
 * bare PORT USER KEY COMMAND: the least that a command can cost over SSH, for
 * comparison. Connects and logs in; then, for each line on standard input, opens a
 * channel on that connection, runs COMMAND, takes its output, its exit status and the
 * channel's end, and prints how long that took, in microseconds.
 */
#include <arpa/inet.h>
#include <libssh2.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int64_t clock_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64_C(1000000) + t.tv_nsec / 1000;
}

static void die(LIBSSH2_SESSION *s, const char *what)
{
	char *text = NULL;

	if (s)
		libssh2_session_last_error(s, &text, NULL, 0);
	fprintf(stderr, "bare: %s: %s\n", what, text ? text : "failed");
	exit(1);
}

static int dial(int port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		die(NULL, "connect");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return fd;
}

static void run(LIBSSH2_SESSION *s, const char *command)
{
	LIBSSH2_CHANNEL *ch = libssh2_channel_open_session(s);
	char out[4096];
	ssize_t n;

	if (!ch || libssh2_channel_exec(ch, command) < 0)
		die(s, "exec");
	do
		n = libssh2_channel_read(ch, out, sizeof(out));
	while (n > 0);
	if (n < 0 || libssh2_channel_wait_closed(ch) < 0)
		die(s, "read");
	if (libssh2_channel_get_exit_status(ch) != 0)
		die(NULL, "the command");
	libssh2_channel_free(ch);
}

int main(int argc, char **argv)
{
	LIBSSH2_SESSION *s;
	char line[16];

	if (argc != 5) {
		fprintf(stderr, "usage: bare PORT USER KEY COMMAND\n");
		return 2;
	}
	if (libssh2_init(0) < 0 || !(s = libssh2_session_init()))
		die(NULL, "libssh2");
	if (libssh2_session_handshake(s, dial(atoi(argv[1]))) < 0)
		die(s, "handshake");
	if (libssh2_userauth_publickey_fromfile(s, argv[2], NULL, argv[3], NULL) < 0)
		die(s, "login");
	while (fgets(line, sizeof(line), stdin)) {
		int64_t begun = clock_us();

		run(s, argv[4]);
		printf("%lld\n", (long long)(clock_us() - begun));
		fflush(stdout);
	}
	return 0;
}
