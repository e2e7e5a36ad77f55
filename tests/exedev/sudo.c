/*
 * For the stand-in's VMs whose login user is not the one who runs the tests: `sudo -n
 * COMMAND`, set-user-id root, for the user LOGIN alone. It notes that it was used in LOG,
 * and refuses while the file REFUSE is there.
 */
#define _GNU_SOURCE
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char *argv[])
{
	FILE *log;

	if (argc < 3 || strcmp(argv[1], "-n") || getuid() != LOGIN || access(REFUSE, F_OK) == 0) {
		fputs("sudo: a password is required\n", stderr);
		return 1;
	}
	if (setgroups(0, NULL) < 0 || setgid(0) < 0 || setuid(0) < 0) {
		perror("sudo");
		return 1;
	}
	log = fopen(LOG, "a");
	if (log) {
		fprintf(log, "%s\n", argv[2]);
		fclose(log);
	}
	execvp(argv[2], argv + 2);
	perror(argv[2]);
	return 127;
}
