/*
 * sbx-attach: this terminal for a job of a sandbox; see sbx-attach(1).
 *
 * It works on nothing but the job's files: `tty` asks for the terminal and tells its size,
 * `stdin` takes what is typed, `stdout` gives what the screen gets, `exit` the end. So whoever
 * leaves has only closed files, and another can open them and go on.
 *
 *   find or make the job -> wait until it starts -> show what was on the screen -> pass on
 *   -> the job is over (its exit status) or the key to leave was pressed (0)
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "place.h"
#include "screen.h"

#define LEAVE_KEY 035			/* ^] */
#define SHOWN_AGAIN (16 * 1024)		/* of the output so far: a screenful, however coloured */
#define LOOKED_AT (1024 * 1024)		/* … before that, for the modes that are on */
#define START_POLL_MS 200

static struct {
	const char *name;		/* as the user gave it */
	char *box, *job, *dir;		/* the sandbox's folder, the job's name and folder */
	bool made;			/* by us */
	int in, out;			/* its stdin and stdout */
	int signals;
	int leave;			/* the key; -1: none */
	struct termios before;
	bool raw;
	struct screen screen;
	char typed[4096];		/* not yet taken by the job */
	size_t typed_len;
} me = { .leave = LEAVE_KEY };

/* --- the terminal ---------------------------------------------------------------- */

static void restore_terminal(void)
{
	if (me.raw)
		tcsetattr(0, TCSADRAIN, &me.before);
	me.raw = false;
}

static void make_raw(void)
{
	struct termios t = me.before;

	cfmakeraw(&t);
	me.raw = tcsetattr(0, TCSADRAIN, &t) == 0;
	atexit(restore_terminal);
}

static void show(const char *data, size_t n)
{
	while (n > 0) {
		ssize_t done = write(1, data, n);

		if (done < 0 && errno != EINTR && errno != EAGAIN)
			exit(255);		/* nobody looks any more */
		if (done < 0)
			continue;
		data += done;
		n -= (size_t)done;
	}
}

/* "80x24 xterm": what this terminal is, or so many rows more: a change makes programs redraw. */
static const char *size_text(unsigned more, bool with_type)
{
	struct winsize size = { .ws_col = 80, .ws_row = 24 };
	const char *term = getenv("TERM");

	ioctl(0, TIOCGWINSZ, &size);
	if (!size.ws_col || !size.ws_row)
		size = (struct winsize){ .ws_col = 80, .ws_row = 24 };
	if (!term || !*term || strlen(term) > 63)
		with_type = false;
	return text("%ux%u%s%s\n", size.ws_col, size.ws_row + more, with_type ? " " : "",
		    with_type ? term : "");
}

/* --- the job ------------------------------------------------------------------------ */

static bool is_over(const char *status)
{
	return strcmp(status, "collecting") && strcmp(status, "queued") &&
	       strcmp(status, "running");
}

static char *complaint(void)
{
	return file_line(me.box, "error");
}

/* The newest of shell, shell-2, … that goes on, or the next that can be made. */
static void choose_job(bool fresh)
{
	for (unsigned n = 1;; n++) {
		me.job = n == 1 ? text("shell") : text("shell-%u", n);
		me.dir = text("%s/jobs/%s", me.box, me.job);
		if (access(me.dir, F_OK) < 0)
			return;
		if (!fresh && !is_over(file_line(me.dir, "status")))
			return;
	}
}

static void make_job(const char *command)
{
	if (mkdir(me.dir, 0755) < 0)
		die("%s: %s", me.name, errno == EEXIST ? "somebody was quicker: try again" :
			*complaint() ? complaint() : strerror(errno));
	me.made = true;
	/* a type that the server does not take is left to its usual one */
	if (!file_put(me.dir, "tty", size_text(0, true)) &&
	    !file_put(me.dir, "tty", size_text(0, false)))
		die("%s: %s", me.name, complaint());
	if (!file_put(me.dir, "cmd", command))
		die("%s: %s", me.name, complaint());
}

static void open_job(void)
{
	int dir;

	if (!*file_line(me.dir, "tty"))
		die("job %s has no terminal: read its stdout instead", me.job);
	me.in = open(text("%s/stdin", me.dir), O_WRONLY | O_NONBLOCK | O_CLOEXEC);
	me.out = open(text("%s/stdout", me.dir), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	dir = open(me.dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (me.in < 0 || me.out < 0 || dir < 0)
		die("job %s: %s", me.job, strerror(errno));
	me.dir = text("/proc/self/fd/%d", dir);		/* whatever the sandbox is called later */
}

/* Its exit status is ours. */
static void end(void)
{
	char *result = file_line(me.dir, "exit"), *rest;
	long number = strtol(result, &rest, 10);

	restore_terminal();
	if (rest != result && !*rest)
		exit((int)number);
	if (!strcmp(result, "cancelled"))
		die("job %s never ran: see jobs/%s/info", me.job, me.job);
	die("job %s is %s", me.job, *result ? file_line(me.dir, "status") : "gone");
}

static void leave(void)
{
	char modes[16 * SCREEN_MODES];

	show(modes, screen_modes(&me.screen, false, modes));
	restore_terminal();
	printf("\n[job %s goes on; sbx-attach %s %s comes back to it]\n", me.job, me.name, me.job);
	exit(0);
}

/* Until it has a terminal: ^C is still the user's way to give up. */
static void wait_for_start(void)
{
	struct pollfd p = { .fd = me.out, .events = POLLIN };
	struct pollfd s = { .fd = me.signals, .events = POLLIN };
	bool told = false;

	while (!strcmp(file_line(me.dir, "status"), "queued")) {
		const char *state = file_line(me.box, "status");

		if (!told && strcmp(state, "running")) {
			fprintf(stderr, "[%s is %s; ^C gives up]\n", me.name, state);
			told = true;
		}
		poll(&p, 1, START_POLL_MS);
		if (poll(&s, 1, 0) <= 0)
			continue;
		if (me.made)
			file_put(me.dir, "ctl", "kill\n");
		exit(130);
	}
}

/* --- the screen --------------------------------------------------------------------- */

/*
 * Pass the output from at to end by the screen; visible: show it, but for questions. The first
 * line, when it is a part of one, is only looked at. Returns how far it came.
 */
static off_t replay(off_t at, off_t end, bool visible, bool part)
{
	static char data[65536], clean[sizeof(data) + SCREEN_SEQUENCE];

	while (at < end) {
		size_t want = end - at < (off_t)sizeof(data) ? (size_t)(end - at) : sizeof(data);
		ssize_t n = pread(me.out, data, want, at);
		char *line = part && n > 0 ? memchr(data, '\n', (size_t)n) : NULL;
		size_t skipped = line ? (size_t)(line + 1 - data) : 0;

		if (n <= 0)
			break;
		at += n;
		part = false;
		screen_feed(&me.screen, data, skipped, NULL);
		n -= (ssize_t)skipped;
		if (visible)
			show(clean, screen_feed(&me.screen, data + skipped, (size_t)n, clean));
		else
			screen_feed(&me.screen, data + skipped, (size_t)n, NULL);
	}
	return at;
}

/* What is on the screen: its modes, and the end of the output so far. Returns where it goes on. */
static off_t show_again(void)
{
	char modes[16 * SCREEN_MODES], rest[SCREEN_SEQUENCE];
	off_t from, at;
	struct stat st;

	if (fstat(me.out, &st) < 0)
		return 0;
	from = st.st_size > SHOWN_AGAIN ? st.st_size - SHOWN_AGAIN : 0;
	at = from > LOOKED_AT ? from - LOOKED_AT : 0;
	if (replay(at, from, false, false) < from)
		return 0;
	show(modes, screen_modes(&me.screen, true, modes));
	at = replay(from, st.st_size, true, from > 0);
	show(rest, screen_rest(&me.screen, rest));
	return at;
}

static void tell_size(unsigned more)
{
	file_put(me.dir, "tty", size_text(more, false));
}

/* --- passing on ------------------------------------------------------------------------ */

static void pass_output(off_t *at)
{
	static char data[65536];
	ssize_t n = pread(me.out, data, sizeof(data), *at);

	if (n == 0)
		end();
	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		restore_terminal();
		die("the output of job %s: %s", me.job, strerror(errno));
	}
	if (n > 0) {
		*at += n;
		screen_feed(&me.screen, data, (size_t)n, NULL);
		show(data, (size_t)n);
	}
}

static void pass_typed(void)
{
	ssize_t n = write(me.in, me.typed, me.typed_len);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0)		/* EPIPE: it is over, as its output is about to tell */
		n = (ssize_t)me.typed_len;
	me.typed_len -= (size_t)n;
	memmove(me.typed, me.typed + n, me.typed_len);
}

static void take_typed(void)
{
	ssize_t n = read(0, me.typed, sizeof(me.typed));
	char *key;

	if (n <= 0)
		leave();		/* the terminal has gone */
	me.typed_len = (size_t)n;
	key = me.leave < 0 ? NULL : memchr(me.typed, me.leave, (size_t)n);
	if (key)
		me.typed_len = (size_t)(key - me.typed);
	pass_typed();
	if (key)
		leave();
}

static void take_signal(void)
{
	struct signalfd_siginfo info;

	if (read(me.signals, &info, sizeof(info)) != sizeof(info))
		return;
	if (info.ssi_signo == SIGWINCH)
		tell_size(0);
	else
		leave();
}

static void pass_on(off_t at)
{
	struct pollfd p[] = {
		{ .fd = 0 }, { .fd = me.out, .events = POLLIN },
		{ .fd = me.signals, .events = POLLIN }, { .fd = me.in },
	};

	for (;;) {
		/* What is not taken yet holds up more: as a terminal does. */
		p[0].events = me.typed_len ? 0 : POLLIN;
		p[3].fd = me.typed_len ? me.in : -1;
		p[3].events = POLLOUT;
		if (poll(p, 4, -1) < 0 && errno != EINTR)
			die("poll: %s", strerror(errno));
		if (p[1].revents)
			pass_output(&at);
		if (p[3].fd >= 0 && p[3].revents)
			pass_typed();
		if (p[2].revents)
			take_signal();
		if (p[0].revents && !me.typed_len)
			take_typed();
	}
}

/* --- start ------------------------------------------------------------------------------- */

static int parse_key(const char *s)
{
	if (!strcmp(s, "none"))
		return -1;
	if (s[0] == '^' && s[1] >= '@' && s[1] <= '_' && !s[2])
		return s[1] & 037;
	if (s[0] == '^' && s[1] >= 'a' && s[1] <= 'z' && !s[2])
		return s[1] & 037;
	die("-e takes a control key such as ^], ^a, or none");
}

static void usage(void)
{
	die("usage: sbx-attach [-n] [-c command] [-e key] name [job]");
}

int main(int argc, char **argv)
{
	const char *command = "exec \"${SHELL:-/bin/sh}\" -l\n";
	bool fresh = false, exists;
	sigset_t set;
	int c;

	while ((c = getopt(argc, argv, "+nc:e:")) >= 0) {
		if (c == 'n')
			fresh = true;
		else if (c == 'c')
			command = optarg;
		else if (c == 'e')
			me.leave = parse_key(optarg);
		else
			usage();
	}
	if (argc - optind < 1 || argc - optind > 2 || (fresh && argc - optind == 2))
		usage();
	if (!isatty(0) || !isatty(1) || tcgetattr(0, &me.before) < 0)
		die("this is no terminal; sbx-run(1) runs a command without one");
	me.name = argv[optind];
	me.box = place_find(me.name);
	me.job = argv[optind + 1];
	if (me.job)
		me.dir = text("%s/jobs/%s", me.box, me.job);
	else
		choose_job(fresh);

	sigemptyset(&set);
	sigaddset(&set, SIGWINCH);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	me.signals = signalfd(-1, &set, SFD_CLOEXEC);

	exists = access(me.dir, F_OK) == 0;
	if (!exists)
		make_job(command);
	open_job();
	wait_for_start();
	make_raw();
	off_t at = exists ? show_again() : 0;
	if (exists && !is_over(file_line(me.dir, "status"))) {
		tell_size(1);		/* a change, so that programs draw anew */
		tell_size(0);
	}
	pass_on(at);
}
