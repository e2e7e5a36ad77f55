/*
 * SFTP version 3 (draft-ietf-secsh-filexfer-02) and OpenSSH's extensions (its
 * PROTOCOL file): bytes to structs and back. No I/O, no state, and no trust:
 * every length of a reply is checked against the bytes that are there.
 */
#ifndef SBXFS_SSH_SFTP_CODEC_H
#define SBXFS_SSH_SFTP_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"

enum sftp_type {
	SFTP_INIT = 1, SFTP_VERSION, SFTP_OPEN, SFTP_CLOSE, SFTP_READ, SFTP_WRITE, SFTP_LSTAT,
	SFTP_FSTAT, SFTP_SETSTAT, SFTP_FSETSTAT, SFTP_OPENDIR, SFTP_READDIR, SFTP_REMOVE,
	SFTP_MKDIR, SFTP_RMDIR, SFTP_REALPATH, SFTP_STAT, SFTP_RENAME, SFTP_READLINK, SFTP_SYMLINK,
	SFTP_STATUS = 101, SFTP_HANDLE, SFTP_DATA, SFTP_NAME, SFTP_ATTRS,
	SFTP_EXTENDED = 200, SFTP_EXTENDED_REPLY,
};

enum sftp_status_code {
	SFTP_FX_OK, SFTP_FX_EOF, SFTP_FX_NO_SUCH_FILE, SFTP_FX_PERMISSION_DENIED, SFTP_FX_FAILURE,
	SFTP_FX_BAD_MESSAGE, SFTP_FX_NO_CONNECTION, SFTP_FX_CONNECTION_LOST, SFTP_FX_OP_UNSUPPORTED,
};

/* Flags of an OPEN. */
enum {
	SFTP_READABLE = 0x01, SFTP_WRITABLE = 0x02, SFTP_APPEND = 0x04,
	SFTP_CREAT = 0x08, SFTP_TRUNC = 0x10, SFTP_EXCL = 0x20,
};

/* Which attributes are there. */
enum {
	SFTP_ATTR_SIZE = 0x01, SFTP_ATTR_OWNER = 0x02, SFTP_ATTR_PERMISSIONS = 0x04,
	SFTP_ATTR_TIMES = 0x08,
};
#define SFTP_ATTR_EXTENDED 0x80000000u

/* What the server can do beyond version 3, as a mask. */
enum sftp_ext {
	SFTP_EXT_POSIX_RENAME = 1 << 0,
	SFTP_EXT_STATVFS = 1 << 1,
	SFTP_EXT_HARDLINK = 1 << 2,
	SFTP_EXT_FSYNC = 1 << 3,
	SFTP_EXT_LSETSTAT = 1 << 4,
	SFTP_EXT_LIMITS = 1 << 5,
	SFTP_EXT_COPY_DATA = 1 << 6,
	SFTP_EXT_USERS_GROUPS = 1 << 7,
};

/*
 * The longest packet taken from a server. We never ask for more than 255 KiB,
 * and OpenSSH neither sends nor takes more than 256 KiB.
 */
#define SFTP_PACKET_MAX (512 * 1024)
#define SFTP_HANDLE_MAX 256
/* Bytes of a WRITE packet that are not data, with the longest handle. */
#define SFTP_WRITE_OVERHEAD (4 + 1 + 4 + 4 + SFTP_HANDLE_MAX + 8 + 4)

struct sftp_attrs {
	uint32_t flags;			/* SFTP_ATTR_*: which of the rest hold */
	uint64_t size;
	uint32_t uid, gid, perm, atime, mtime;
};

struct sftp_handle {
	size_t len;
	uint8_t bytes[SFTP_HANDLE_MAX];
};

struct sftp_statvfs {
	uint64_t bsize, frsize, blocks, bfree, bavail, files, ffree, favail, fsid, flag, namemax;
};
#define SFTP_STATVFS_RDONLY 0x1

struct sftp_limits {
	uint64_t packet, read, write, handles;	/* 0: not told */
};

/* A reply; everything it points to is borrowed from the packet. */
struct sftp_reply {
	uint8_t type;
	uint32_t id;			/* not of a VERSION */
	union {
		struct { uint32_t number, extensions; } version;
		struct { uint32_t code; const char *text; size_t len; } status;
		struct { const uint8_t *bytes; size_t len; } data;	/* and HANDLE */
		struct { uint32_t count; struct rbuf rest; } names;
		struct sftp_attrs attrs;
		struct rbuf extended;
	};
};

/* An entry of a NAME reply, borrowed; not NUL terminated. */
struct sftp_name {
	const uint8_t *name, *longname;
	size_t len, longname_len;
	struct sftp_attrs attrs;
};

/* --- requests: each appends one whole packet ---------------------------- */

void sftp_put_init(struct buf *);
void sftp_put_open(struct buf *, uint32_t id, const char *path, uint32_t flags,
		   const struct sftp_attrs *);
/* LSTAT, STAT, OPENDIR, REMOVE, RMDIR, REALPATH, READLINK */
void sftp_put_path(struct buf *, enum sftp_type, uint32_t id, const char *path);
/* RENAME (from, to), SYMLINK (text, path of the link: OpenSSH's order) */
void sftp_put_paths(struct buf *, enum sftp_type, uint32_t id, const char *, const char *);
/* SETSTAT, MKDIR */
void sftp_put_path_attrs(struct buf *, enum sftp_type, uint32_t id, const char *path,
			 const struct sftp_attrs *);
/* CLOSE, FSTAT, READDIR */
void sftp_put_handle(struct buf *, enum sftp_type, uint32_t id, const struct sftp_handle *);
void sftp_put_fsetstat(struct buf *, uint32_t id, const struct sftp_handle *,
		       const struct sftp_attrs *);
void sftp_put_read(struct buf *, uint32_t id, const struct sftp_handle *, uint64_t off,
		   uint32_t len);
void sftp_put_write(struct buf *, uint32_t id, const struct sftp_handle *, uint64_t off,
		    const void *data, uint32_t len);
/* limits */
void sftp_put_ext(struct buf *, enum sftp_ext, uint32_t id);
/* statvfs */
void sftp_put_ext_path(struct buf *, enum sftp_ext, uint32_t id, const char *path);
/* posix-rename, hardlink: (from, to) */
void sftp_put_ext_paths(struct buf *, enum sftp_ext, uint32_t id, const char *, const char *);
/* fsync */
void sftp_put_ext_handle(struct buf *, enum sftp_ext, uint32_t id, const struct sftp_handle *);
/* copy-data */
void sftp_put_ext_copy(struct buf *, uint32_t id, const struct sftp_handle *from, uint64_t off,
		       uint64_t len, const struct sftp_handle *to, uint64_t to_off);
/* lsetstat */
void sftp_put_ext_path_attrs(struct buf *, enum sftp_ext, uint32_t id, const char *path,
			     const struct sftp_attrs *);

/* --- replies ------------------------------------------------------------ */

/*
 * Is there a whole packet at the front of the stream? > 0: the bytes of it, its 4 of
 * length included. 0: not yet. -EBADMSG: its length is 0 or over SFTP_PACKET_MAX.
 */
int sftp_frame(const uint8_t *data, size_t len);
/* Decode a packet (without its length). 0, or -EBADMSG. */
int sftp_get_reply(const uint8_t *packet, size_t len, struct sftp_reply *);
/* The next entry of a NAME reply: 1, 0 at the end, or -EBADMSG. */
int sftp_next_name(struct sftp_reply *, struct sftp_name *);
/* Decode the body of an EXTENDED_REPLY. 0, or -EBADMSG. */
int sftp_get_statvfs(struct rbuf *, struct sftp_statvfs *);
int sftp_get_limits(struct rbuf *, struct sftp_limits *);
/* Take the handle of a HANDLE reply. 0, or -EBADMSG: none, or over 256 bytes. */
int sftp_get_handle(const struct sftp_reply *, struct sftp_handle *);

/* May it be a name in a folder: 1 to 255 bytes, not "." or "..", without '/' and NUL? */
bool sftp_name_ok(const uint8_t *name, size_t len);
/*
 * Is a NAME reply a listing that is whole and has nothing but such names, "." and ".."? 0;
 * -EBADMSG: it cannot be decoded; -EINVAL: it has another name. The reply is not used up.
 */
int sftp_check_names(const struct sftp_reply *);
/*
 * The type bits of a file (S_IFMT) as its attributes tell, else as the first
 * letter of its longname does; 0 when neither does.
 */
uint32_t sftp_name_type(const struct sftp_name *);

/*
 * The errno (negative) of a status, 0 for OK. OpenSSH says FAILURE for all that the
 * draft has no code for (EEXIST, ENOTEMPTY, ENOSPC, EXDEV, …): that is -EIO unless the
 * text tells more, and the caller has to find out. *vague (may be NULL): so it was.
 */
int sftp_status_errno(uint32_t code, const char *text, size_t len, bool *vague);

#endif
