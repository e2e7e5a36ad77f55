/* What the host sends, line by line, into a struct: pure, tested on the host. */
#ifndef SBXFS_KVM_GUEST_PARSE_H
#define SBXFS_KVM_GUEST_PARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define IDENTITY_LINE_MAX 4096
#define IDENTITY_ENTROPY_MAX 64

struct identity {
	bool open;		/* between its "identity NONCE" and its "end" */
	char hostname[65];
	char machine_id[33];
	char address[16], gateway[16], dns[16];
	unsigned prefix;	/* bits of the network's mask */
	int64_t time;		/* 0: not given */
	int64_t milliseconds;	/* beyond that second */
	uint64_t disk_size;	/* bytes; 0: not given, the disk is as large as it is */
	bool clone;		/* it came unasked: this machine is a copy of another */
	uint8_t entropy[IDENTITY_ENTROPY_MAX];
	size_t entropy_len;
	char authorized_key[1024];
	char host_key[3072];	/* the private key file as it stands, NUL terminated */
	char host_key_public[1024];
};

enum parsed {
	PARSED_NOTHING,		/* nothing to do yet */
	PARSED_IDENTITY,		/* complete: apply it */
	PARSED_CLOCK,			/* set the clock to time and milliseconds */
	PARSED_SYNC,
	PARSED_FREEZE,
	PARSED_POWEROFF,
	PARSED_REBOOT,
};

/*
 * One line without its newline. nonce is that of the latest hello: an identity
 * that answers another one is skipped, but for the one of a clone. Returns an enum parsed; -EBADMSG
 * when a value makes no sense or the identity ends incomplete (it is skipped).
 */
int identity_parse(struct identity *, const char *nonce, const char *line);

#endif
