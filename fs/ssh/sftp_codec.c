/*
 * The SFTP wire format. Requests are built in place behind what the buffer
 * holds, their length filled in at the end; replies are read through rbuf,
 * whose getters cannot overrun. Used by sftp.c and by the fuzzer.
 */
#include "sftp_codec.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

/* --- requests ------------------------------------------------------------ */

static size_t begin(struct buf *b, uint8_t type, uint32_t id)
{
	size_t start = buf_size(b);

	buf_put_u32(b, 0);
	buf_put_u8(b, type);
	buf_put_u32(b, id);
	return start;
}

/* start counts from the unconsumed front: the buffer may have moved its bytes down. */
static void end(struct buf *b, size_t start)
{
	buf_poke_u32(b, b->off + start, (uint32_t)(buf_size(b) - start - 4));
}

static void put_attrs(struct buf *b, const struct sftp_attrs *a)
{
	static const struct sftp_attrs none;

	if (!a)
		a = &none;
	assert(!(a->flags & SFTP_ATTR_EXTENDED));
	buf_put_u32(b, a->flags);
	if (a->flags & SFTP_ATTR_SIZE)
		buf_put_u64(b, a->size);
	if (a->flags & SFTP_ATTR_OWNER) {
		buf_put_u32(b, a->uid);
		buf_put_u32(b, a->gid);
	}
	if (a->flags & SFTP_ATTR_PERMISSIONS)
		buf_put_u32(b, a->perm);
	if (a->flags & SFTP_ATTR_TIMES) {
		buf_put_u32(b, a->atime);
		buf_put_u32(b, a->mtime);
	}
}

static void put_handle(struct buf *b, const struct sftp_handle *h)
{
	buf_put_string(b, h->bytes, h->len);
}

void sftp_put_init(struct buf *b)
{
	buf_put_u32(b, 5);
	buf_put_u8(b, SFTP_INIT);
	buf_put_u32(b, 3);
}

void sftp_put_open(struct buf *b, uint32_t id, const char *path, uint32_t flags,
		   const struct sftp_attrs *attrs)
{
	size_t start = begin(b, SFTP_OPEN, id);

	buf_put_cstring(b, path);
	buf_put_u32(b, flags);
	put_attrs(b, attrs);
	end(b, start);
}

void sftp_put_path(struct buf *b, enum sftp_type type, uint32_t id, const char *path)
{
	size_t start = begin(b, type, id);

	buf_put_cstring(b, path);
	end(b, start);
}

void sftp_put_paths(struct buf *b, enum sftp_type type, uint32_t id, const char *one,
		    const char *two)
{
	size_t start = begin(b, type, id);

	buf_put_cstring(b, one);
	buf_put_cstring(b, two);
	end(b, start);
}

void sftp_put_path_attrs(struct buf *b, enum sftp_type type, uint32_t id, const char *path,
			 const struct sftp_attrs *attrs)
{
	size_t start = begin(b, type, id);

	buf_put_cstring(b, path);
	put_attrs(b, attrs);
	end(b, start);
}

void sftp_put_handle(struct buf *b, enum sftp_type type, uint32_t id, const struct sftp_handle *h)
{
	size_t start = begin(b, type, id);

	put_handle(b, h);
	end(b, start);
}

void sftp_put_fsetstat(struct buf *b, uint32_t id, const struct sftp_handle *h,
		       const struct sftp_attrs *attrs)
{
	size_t start = begin(b, SFTP_FSETSTAT, id);

	put_handle(b, h);
	put_attrs(b, attrs);
	end(b, start);
}

void sftp_put_read(struct buf *b, uint32_t id, const struct sftp_handle *h, uint64_t off,
		   uint32_t len)
{
	size_t start = begin(b, SFTP_READ, id);

	put_handle(b, h);
	buf_put_u64(b, off);
	buf_put_u32(b, len);
	end(b, start);
}

void sftp_put_write(struct buf *b, uint32_t id, const struct sftp_handle *h, uint64_t off,
		    const void *data, uint32_t len)
{
	size_t start = begin(b, SFTP_WRITE, id);

	put_handle(b, h);
	buf_put_u64(b, off);
	buf_put_string(b, data, len);
	end(b, start);
}

/* --- extensions ---------------------------------------------------------- */

/* The version is the one whose format is used here. */
static const struct {
	enum sftp_ext ext;
	const char *name, *version;
} extensions[] = {
	{ SFTP_EXT_POSIX_RENAME, "posix-rename@openssh.com", "1" },
	{ SFTP_EXT_STATVFS, "statvfs@openssh.com", "2" },
	{ SFTP_EXT_HARDLINK, "hardlink@openssh.com", "1" },
	{ SFTP_EXT_FSYNC, "fsync@openssh.com", "1" },
	{ SFTP_EXT_LSETSTAT, "lsetstat@openssh.com", "1" },
	{ SFTP_EXT_LIMITS, "limits@openssh.com", "1" },
	{ SFTP_EXT_COPY_DATA, "copy-data", "1" },
	{ SFTP_EXT_USERS_GROUPS, "users-groups-by-id@openssh.com", "1" },
};
#define EXTENSIONS (sizeof(extensions) / sizeof(extensions[0]))

static size_t begin_ext(struct buf *b, enum sftp_ext ext, uint32_t id)
{
	size_t start = begin(b, SFTP_EXTENDED, id), i;

	for (i = 0; i < EXTENSIONS && extensions[i].ext != ext; i++)
		;
	assert(i < EXTENSIONS);
	buf_put_cstring(b, extensions[i].name);
	return start;
}

void sftp_put_ext(struct buf *b, enum sftp_ext ext, uint32_t id)
{
	end(b, begin_ext(b, ext, id));
}

void sftp_put_ext_path(struct buf *b, enum sftp_ext ext, uint32_t id, const char *path)
{
	size_t start = begin_ext(b, ext, id);

	buf_put_cstring(b, path);
	end(b, start);
}

void sftp_put_ext_paths(struct buf *b, enum sftp_ext ext, uint32_t id, const char *one,
			const char *two)
{
	size_t start = begin_ext(b, ext, id);

	buf_put_cstring(b, one);
	buf_put_cstring(b, two);
	end(b, start);
}

void sftp_put_ext_handle(struct buf *b, enum sftp_ext ext, uint32_t id,
			 const struct sftp_handle *h)
{
	size_t start = begin_ext(b, ext, id);

	put_handle(b, h);
	end(b, start);
}

void sftp_put_ext_copy(struct buf *b, uint32_t id, const struct sftp_handle *from, uint64_t off,
		       uint64_t len, const struct sftp_handle *to, uint64_t to_off)
{
	size_t start = begin_ext(b, SFTP_EXT_COPY_DATA, id);

	put_handle(b, from);
	buf_put_u64(b, off);
	buf_put_u64(b, len);
	put_handle(b, to);
	buf_put_u64(b, to_off);
	end(b, start);
}

void sftp_put_ext_path_attrs(struct buf *b, enum sftp_ext ext, uint32_t id, const char *path,
			     const struct sftp_attrs *attrs)
{
	size_t start = begin_ext(b, ext, id);

	buf_put_cstring(b, path);
	put_attrs(b, attrs);
	end(b, start);
}

static bool is_text(const uint8_t *s, size_t len, const char *text)
{
	return len == strlen(text) && memcmp(s, text, len) == 0;
}

static uint32_t extension_of(const uint8_t *name, size_t len, const uint8_t *version, size_t vlen)
{
	for (size_t i = 0; i < EXTENSIONS; i++)
		if (is_text(name, len, extensions[i].name) &&
		    is_text(version, vlen, extensions[i].version))
			return extensions[i].ext;
	return 0;
}

/* --- replies ------------------------------------------------------------- */

int sftp_frame(const uint8_t *data, size_t len)
{
	struct rbuf r = { data, len };
	uint32_t size;

	if (rbuf_u32(&r, &size))
		return 0;
	if (size == 0 || size > SFTP_PACKET_MAX)
		return -EBADMSG;
	return len - 4 < size ? 0 : (int)(size + 4);
}

static int get_attrs(struct rbuf *r, struct sftp_attrs *a)
{
	const uint8_t *s;
	uint32_t count;
	size_t len;

	*a = (struct sftp_attrs){ 0 };
	if (rbuf_u32(r, &a->flags))
		return -EBADMSG;
	if ((a->flags & SFTP_ATTR_SIZE) && rbuf_u64(r, &a->size))
		return -EBADMSG;
	if ((a->flags & SFTP_ATTR_OWNER) && (rbuf_u32(r, &a->uid) || rbuf_u32(r, &a->gid)))
		return -EBADMSG;
	if ((a->flags & SFTP_ATTR_PERMISSIONS) && rbuf_u32(r, &a->perm))
		return -EBADMSG;
	if ((a->flags & SFTP_ATTR_TIMES) && (rbuf_u32(r, &a->atime) || rbuf_u32(r, &a->mtime)))
		return -EBADMSG;
	if (!(a->flags & SFTP_ATTR_EXTENDED))
		return 0;
	/* Pairs of strings. However many are claimed, each takes 8 bytes of the packet. */
	if (rbuf_u32(r, &count))
		return -EBADMSG;
	while (count-- > 0)
		if (rbuf_string(r, &s, &len) || rbuf_string(r, &s, &len))
			return -EBADMSG;
	return 0;
}

static int get_version(struct rbuf *r, struct sftp_reply *reply)
{
	const uint8_t *name, *version;
	size_t len, vlen;

	reply->id = 0;
	reply->version.extensions = 0;
	if (rbuf_u32(r, &reply->version.number))
		return -EBADMSG;
	while (r->len > 0) {
		if (rbuf_string(r, &name, &len) || rbuf_string(r, &version, &vlen))
			return -EBADMSG;
		reply->version.extensions |= extension_of(name, len, version, vlen);
	}
	return 0;
}

static int get_status(struct rbuf *r, struct sftp_reply *reply)
{
	const uint8_t *text;

	reply->status.text = "";
	reply->status.len = 0;
	if (rbuf_u32(r, &reply->status.code))
		return -EBADMSG;
	/* Old servers send neither text nor language. */
	if (r->len == 0)
		return 0;
	if (rbuf_string(r, &text, &reply->status.len))
		return -EBADMSG;
	reply->status.text = (const char *)text;
	return 0;
}

int sftp_get_reply(const uint8_t *packet, size_t len, struct sftp_reply *reply)
{
	struct rbuf r = { packet, len };

	if (rbuf_u8(&r, &reply->type))
		return -EBADMSG;
	if (reply->type == SFTP_VERSION)
		return get_version(&r, reply);
	if (rbuf_u32(&r, &reply->id))
		return -EBADMSG;
	switch (reply->type) {
	case SFTP_STATUS:
		return get_status(&r, reply);
	case SFTP_HANDLE:
	case SFTP_DATA:
		return rbuf_string(&r, &reply->data.bytes, &reply->data.len);
	case SFTP_NAME:
		if (rbuf_u32(&r, &reply->names.count))
			return -EBADMSG;
		reply->names.rest = r;
		return 0;
	case SFTP_ATTRS:
		return get_attrs(&r, &reply->attrs);
	case SFTP_EXTENDED_REPLY:
		reply->extended = r;
		return 0;
	default:
		return -EBADMSG;
	}
}

int sftp_next_name(struct sftp_reply *reply, struct sftp_name *n)
{
	struct rbuf *r = &reply->names.rest;

	if (reply->names.count == 0)
		return 0;
	if (rbuf_string(r, &n->name, &n->len) || rbuf_string(r, &n->longname, &n->longname_len) ||
	    get_attrs(r, &n->attrs))
		return -EBADMSG;
	reply->names.count--;
	return 1;
}

int sftp_get_statvfs(struct rbuf *r, struct sftp_statvfs *v)
{
	uint64_t *const fields[] = {
		&v->bsize, &v->frsize, &v->blocks, &v->bfree, &v->bavail, &v->files, &v->ffree,
		&v->favail, &v->fsid, &v->flag, &v->namemax,
	};

	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		if (rbuf_u64(r, fields[i]))
			return -EBADMSG;
	return 0;
}

int sftp_get_limits(struct rbuf *r, struct sftp_limits *l)
{
	if (rbuf_u64(r, &l->packet) || rbuf_u64(r, &l->read) || rbuf_u64(r, &l->write) ||
	    rbuf_u64(r, &l->handles))
		return -EBADMSG;
	return 0;
}

int sftp_get_handle(const struct sftp_reply *reply, struct sftp_handle *h)
{
	if (reply->type != SFTP_HANDLE || reply->data.len > sizeof(h->bytes))
		return -EBADMSG;
	h->len = reply->data.len;
	memcpy(h->bytes, reply->data.bytes, h->len);
	return 0;
}

/* --- what a server's words mean ------------------------------------------ */

static bool is_dots(const uint8_t *name, size_t len)
{
	return is_text(name, len, ".") || is_text(name, len, "..");
}

bool sftp_name_ok(const uint8_t *name, size_t len)
{
	if (len == 0 || len > NAME_MAX || is_dots(name, len))
		return false;
	return !memchr(name, '/', len) && !memchr(name, '\0', len);
}

int sftp_check_names(const struct sftp_reply *reply)
{
	struct sftp_reply r = *reply;
	struct sftp_name n;
	int more;

	while ((more = sftp_next_name(&r, &n)) == 1)
		if (!is_dots(n.name, n.len) && !sftp_name_ok(n.name, n.len))
			return -EINVAL;
	return more;
}

uint32_t sftp_name_type(const struct sftp_name *n)
{
	static const struct { char letter; uint32_t type; } types[] = {
		{ '-', S_IFREG }, { 'd', S_IFDIR }, { 'l', S_IFLNK }, { 'c', S_IFCHR },
		{ 'b', S_IFBLK }, { 'p', S_IFIFO }, { 's', S_IFSOCK },
	};

	if ((n->attrs.flags & SFTP_ATTR_PERMISSIONS) && (n->attrs.perm & S_IFMT))
		return n->attrs.perm & S_IFMT;
	/* "drwxr-xr-x    5 root …" */
	for (size_t i = 0; n->longname_len >= 10 && i < sizeof(types) / sizeof(types[0]); i++)
		if (n->longname[0] == types[i].letter)
			return types[i].type;
	return 0;
}

/* Servers other than OpenSSH put the system's own words behind FAILURE. */
static const struct {
	const char *text;
	int error;
} failures[] = {
	{ "No space left", ENOSPC },
	{ "File exists", EEXIST },
	{ "already exists", EEXIST },
	{ "not empty", ENOTEMPTY },
	{ "Read-only file system", EROFS },
	{ "quota exceeded", EDQUOT },
	{ "cross-device", EXDEV },
	{ "Is a directory", EISDIR },
	{ "Not a directory", ENOTDIR },
	{ "Text file busy", ETXTBSY },
	{ "resource busy", EBUSY },
	{ "File too large", EFBIG },
	{ "Too many links", EMLINK },
	{ "Too many open files", EMFILE },
	{ "Too many levels of symbolic links", ELOOP },
	{ "File name too long", ENAMETOOLONG },
	{ "Operation not supported", EOPNOTSUPP },
	{ "Operation not permitted", EPERM },
	{ "Permission denied", EACCES },
	{ "No such file", ENOENT },
};

static int failure_errno(const char *text, size_t len)
{
	for (size_t i = 0; i < sizeof(failures) / sizeof(failures[0]); i++) {
		size_t n = strlen(failures[i].text);

		for (size_t at = 0; at + n <= len; at++)
			if (strncasecmp(text + at, failures[i].text, n) == 0)
				return failures[i].error;
	}
	return 0;
}

/* Codes beyond 8 are of later drafts; some servers send them all the same. */
static const int errnos[] = {
	[SFTP_FX_OK] = 0,
	[SFTP_FX_EOF] = EIO,
	[SFTP_FX_NO_SUCH_FILE] = ENOENT,
	[SFTP_FX_PERMISSION_DENIED] = EACCES,
	[SFTP_FX_FAILURE] = EIO,
	[SFTP_FX_BAD_MESSAGE] = EINVAL,
	[SFTP_FX_NO_CONNECTION] = EIO,
	[SFTP_FX_CONNECTION_LOST] = EIO,
	[SFTP_FX_OP_UNSUPPORTED] = EOPNOTSUPP,
	[9] = ESTALE,		/* invalid handle */
	[10] = ENOENT,		/* no such path */
	[11] = EEXIST,		/* file already exists */
	[12] = EROFS,		/* write protected */
	[13] = EIO,		/* no media */
	[14] = ENOSPC,
	[15] = EDQUOT,
	[16] = EINVAL,		/* unknown principal */
	[17] = EBUSY,		/* lock conflict */
	[18] = ENOTEMPTY,
	[19] = ENOTDIR,
	[20] = EINVAL,		/* invalid file name */
	[21] = ELOOP,
	[22] = EPERM,		/* cannot delete */
	[23] = EINVAL,		/* invalid parameter */
	[24] = EISDIR,
};

int sftp_status_errno(uint32_t code, const char *text, size_t len, bool *vague)
{
	int error;

	if (vague)
		*vague = false;
	if (code != SFTP_FX_FAILURE)
		return code < sizeof(errnos) / sizeof(errnos[0]) ? -errnos[code] : -EIO;
	error = failure_errno(text, len);
	if (error)
		return -error;
	if (vague)
		*vague = true;
	return -EIO;
}
