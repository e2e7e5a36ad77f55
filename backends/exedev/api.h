/*
 * The words that the service is asked in, and its answers: pure functions. What the
 * forms are was put together from the service's public documents and from what its
 * clients saw; so answers are read leniently, and nothing unknown is guessed at.
 */
#ifndef SBXFS_EXEDEV_API_H
#define SBXFS_EXEDEV_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;
struct cJSON;
struct err;

/* --- command lines ------------------------------------------------------------ */

/* Put a word behind the line, a blank before it unless it is the first, quoted as needed. */
void api_word(struct buf *line, const char *word);
/* --flag=value as one word. */
void api_flag(struct buf *line, const char *flag, const char *value);
/* --flag=4GB: whole GB where it is, else MB. Nothing for 0. */
void api_size(struct buf *line, const char *flag, uint64_t bytes);
/* The words, NULL terminated, as a line to be freed. */
char *api_line(const char *const words[]);

/* --- answers --------------------------------------------------------------------- */

enum api_verdict {
	API_OK,
	API_REFUSED,	/* it has not been done, and asking again will not help */
	API_UNCLEAR,	/* it may have been done */
};

struct api_answer {
	enum api_verdict verdict;
	long status;		/* HTTP's; 0: none came */
	int code;		/* of REFUSED: -EACCES, -EEXIST, -ENOENT, -EDQUOT, …; else -EIO */
	char *text;		/* what the service said, or what is wrong; "" when it is good */
	struct cJSON *json;	/* of OK; NULL: the body was empty */
};

/* status 0: there was no answer (why says it). api_finish the answer. */
void api_judge(struct api_answer *, long status, const char *body, size_t len, const char *why);
void api_finish(struct api_answer *);
/* The service does not know the VM (any more). */
bool api_not_found(const struct api_answer *);
/* `rm`: a list "failed" that is not empty. */
bool api_rm_failed(const struct api_answer *);
/* The VM's SSH is not up yet, although its status is running: to be asked again. */
bool api_not_ready(const struct api_answer *);

/* A VM as `ls` and `new` tell of it. Missing fields are "", 0. */
struct api_vm {
	char name[64];
	char host[256];
	int port;
	char user[64];		/* "": any will do */
	char status[32];
	char https_url[256];
	char region[64], region_display[64];
	char image[256];
	char created[40];
	char tags[512];		/* blank-separated */
	char comment[256];
	int64_t cpus, memory, disk;
	int proxy_port;		/* 0: not told */
	char proxy_share[16];	/* private, public; "": not told */
};

/* The VM of an answer of `new` or `cp`. false: there is none that can be used. */
bool api_vm_of(const struct cJSON *, struct api_vm *);
/*
 * Call each for every VM of an answer of `ls`. < 0: it is no such answer, and says
 * nothing about any VM. VMs without a usable name are left out.
 */
int api_vms_of(const struct cJSON *, void (*each)(void *user, const struct api_vm *), void *user);
/* "user@host:port" in all its forms into host, port, user: each left alone where it is silent. */
void api_parse_dest(const char *dest, char host[256], int *port, char user[64]);
/* Is it one of the blank-separated words? */
bool api_has_tag(const char *tags, const char *tag);
/* Figures of `stat`, flattened: "stat_cpu_percent 3.5" lines. */
void api_stat_lines(const struct cJSON *, struct buf *out);

/* --- tokens ------------------------------------------------------------------------ */

enum api_grant {
	GRANT_NEW, GRANT_LS, GRANT_RM, GRANT_RESTART, GRANT_PAUSE, GRANT_RESUME, GRANT_RENAME,
	GRANT_CP, GRANT_TAG, GRANT_COMMENT, GRANT_RESIZE, GRANT_STAT, GRANT_SHARE_PORT,
	GRANT_SHARE_PUBLIC, GRANT_SHARE_PRIVATE, GRANT_WHOAMI,
	GRANT_COUNT,
};
/* "new", "share port", … as they stand in a token's cmds. */
extern const char *const api_grant_names[GRANT_COUNT];
/* The grants of a self-signed token (exe0.…), as bits. false: it does not tell. */
bool api_token_grants(const char *token, unsigned *grants);
/* The permissions for a token of our own, as they are to be signed. */
void api_permissions(struct buf *out, int64_t expires_s);
/* permissions and ssh-keygen's signature text as a token, appended; < 0: that is no signature. */
int api_make_token(const char *permissions, const char *signature, char *out, size_t size);

#endif
