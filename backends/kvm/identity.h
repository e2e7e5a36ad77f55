/*
 * The host's side of the identity port (guest/PROTOCOL): tells a guest that
 * boots who it is, and hears when it is ready. The guest is not trusted: its
 * lines are bounded in size, its words in rate.
 */
#ifndef SBXFS_KVM_IDENTITY_H
#define SBXFS_KVM_IDENTITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;
struct err;
struct identity_port;
struct loop;

/* What a guest is told. Borrowed for the call. */
struct identity_facts {
	const char *hostname, *machine_id;
	const char *authorized_key;	/* a line of authorized_keys */
	const char *host_key;		/* the private key file as it stands */
	const char *host_key_public;	/* "ssh-ed25519 AAAA..." */
	uint64_t disk_size;
};

/* What a guest can say. */
enum identity_word {
	IDENTITY_NOTHING,	/* not understood */
	IDENTITY_HELLO_NEW,	/* value: the nonce to answer with */
	IDENTITY_HELLO_READY,
	IDENTITY_READY,
	IDENTITY_FAILED,	/* value: the guest's sentence */
	IDENTITY_CAN_CLONE,	/* comes before a hello */
	IDENTITY_CLONED,
	IDENTITY_SYNCED,
	IDENTITY_FROZEN,
};

struct identity_events {	/* called from the loop; may call identity_close */
	/* value as above, else "". Of HELLO_NEW the port has told the answer before. */
	void (*word)(void *user, enum identity_word, const char *value);
	/* A guest has asked: fill in what it is, and put what must be freed or wiped into keep. */
	int (*facts)(void *user, struct identity_facts *, struct buf *keep);
};

/* Speak over fd, which is closed with it, also when this fails. 0 or a negative errno. */
int identity_open(struct identity_port **, struct loop *, int fd, const struct identity_events *,
		  void *user, struct err *);
/* No callback runs afterwards. Takes NULL. */
void identity_close(struct identity_port *);
/* "poweroff", "reboot", "sync" or "freeze". */
void identity_send(struct identity_port *, const char *word);
/* The guest goes on from a saved state: tell it who it is now. */
void identity_send_clone(struct identity_port *);
/* It has stood still: tell it the time. */
void identity_send_clock(struct identity_port *);

/* Pure: one line of the guest, without its newline; value points into it or is "". */
enum identity_word identity_understand(char *line, const char **value);
/* Pure but for the time and the random bytes: the lines of one identity. */
void identity_compose(struct buf *out, const char *nonce, const struct identity_facts *,
		      int64_t ms, const uint8_t *entropy, size_t entropy_len);

#endif
