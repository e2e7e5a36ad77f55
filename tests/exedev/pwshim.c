/*
 * For the stand-in's sshd: a user name that nobody has is whoever runs it, since "any
 * user name works" at the service. Loaded with LD_PRELOAD.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct passwd *getpwnam(const char *name)
{
	struct passwd *(*real)(const char *) =
		(struct passwd * (*)(const char *)) dlsym(RTLD_NEXT, "getpwnam");
	static char copy[64];
	struct passwd *pw = real(name);

	if (pw || !strcmp(name, "sshd"))
		return pw;
	pw = getpwuid(getuid());
	if (!pw)
		return NULL;
	snprintf(copy, sizeof(copy), "%s", name);
	pw->pw_name = copy;
	return pw;
}
