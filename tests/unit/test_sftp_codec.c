/* SFTP packets: exact bytes out, and no trust in what comes in. */
#include "test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "sftp_codec.h"

static struct buf out;

static int setup(void **state)
{
	out = BUF_INIT;
	return 0;
}

static int teardown(void **state)
{
	buf_finish(&out);
	return 0;
}

#define SENT(bytes) sent(bytes, sizeof(bytes) - 1)
static void sent(const char *bytes, size_t len)
{
	assert_int_equal(buf_size(&out), len);
	assert_memory_equal(buf_peek(&out), bytes, len);
	buf_clear(&out);
}

static const struct sftp_handle handle = { .len = 2, .bytes = "hh" };

static void requests_are_the_bytes_of_the_draft(void **state)
{
	struct sftp_attrs a = { .flags = SFTP_ATTR_PERMISSIONS, .perm = 0644 };

	sftp_put_init(&out);
	SENT("\0\0\0\5\1\0\0\0\3");
	sftp_put_open(&out, 7, "/a", SFTP_READABLE | SFTP_WRITABLE | SFTP_CREAT, &a);
	SENT("\0\0\0\27\3\0\0\0\7\0\0\0\2/a\0\0\0\13\0\0\0\4\0\0\1\244");
	sftp_put_open(&out, 7, "/a", SFTP_READABLE, NULL);
	SENT("\0\0\0\23\3\0\0\0\7\0\0\0\2/a\0\0\0\1\0\0\0\0");
	sftp_put_path(&out, SFTP_LSTAT, 0x01020304, "/");
	SENT("\0\0\0\12\7\1\2\3\4\0\0\0\1/");
	sftp_put_handle(&out, SFTP_CLOSE, 1, &handle);
	SENT("\0\0\0\13\4\0\0\0\1\0\0\0\2hh");
	sftp_put_read(&out, 1, &handle, 0x100000002, 0x8000);
	SENT("\0\0\0\27\5\0\0\0\1\0\0\0\2hh\0\0\0\1\0\0\0\2\0\0\200\0");
	sftp_put_write(&out, 1, &handle, 5, "xyz", 3);
	SENT("\0\0\0\32\6\0\0\0\1\0\0\0\2hh\0\0\0\0\0\0\0\5\0\0\0\3xyz");
}

static void a_link_is_sent_in_the_order_of_openssh(void **state)
{
	sftp_put_paths(&out, SFTP_SYMLINK, 1, "text", "/l");
	SENT("\0\0\0\23\24\0\0\0\1\0\0\0\4text\0\0\0\2/l");
}

static void extensions_are_named(void **state)
{
	sftp_put_ext(&out, SFTP_EXT_LIMITS, 9);
	SENT("\0\0\0\33\310\0\0\0\11\0\0\0\22limits@openssh.com");
	sftp_put_ext_handle(&out, SFTP_EXT_FSYNC, 9, &handle);
	SENT("\0\0\0\40\310\0\0\0\11\0\0\0\21fsync@openssh.com\0\0\0\2hh");
	sftp_put_ext_paths(&out, SFTP_EXT_POSIX_RENAME, 9, "/a", "/b");
	SENT("\0\0\0\55\310\0\0\0\11\0\0\0\30posix-rename@openssh.com\0\0\0\2/a\0\0\0\2/b");
}

static void all_attributes_are_sent(void **state)
{
	struct sftp_attrs a = {
		.flags = SFTP_ATTR_SIZE | SFTP_ATTR_OWNER | SFTP_ATTR_PERMISSIONS | SFTP_ATTR_TIMES,
		.size = 1, .uid = 2, .gid = 3, .perm = 4, .atime = 5, .mtime = 6,
	};

	sftp_put_fsetstat(&out, 1, &handle, &a);
	SENT("\0\0\0\53\12\0\0\0\1\0\0\0\2hh\0\0\0\17\0\0\0\0\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0\4"
	     "\0\0\0\5\0\0\0\6");
}

static void requests_stand_one_behind_the_other(void **state)
{
	sftp_put_path(&out, SFTP_STAT, 1, "/");
	buf_consume(&out, 3);
	sftp_put_path(&out, SFTP_STAT, 2, "/");
	buf_consume(&out, 11);
	SENT("\0\0\0\12\21\0\0\0\2\0\0\0\1/");
}

/* --- replies ---------------------------------------------------------------- */

static const char version[] =
	"\2\0\0\0\3"
	"\0\0\0\30posix-rename@openssh.com\0\0\0\0011"
	"\0\0\0\23statvfs@openssh.com\0\0\0\0012"
	"\0\0\0\22limits@openssh.com\0\0\0\0019"
	"\0\0\0\11something\0\0\0\3odd";
static const char status[] = "e\0\0\0\7\0\0\0\4\0\0\0\7Failure\0\0\0\2en";
static const char handle_reply[] = "f\0\0\0\7\0\0\0\3abc";
static const char data[] = "g\0\0\0\7\0\0\0\5hello";
static const char names[] =
	"h\0\0\0\7\0\0\0\2"
	"\0\0\0\1a\0\0\0\012drwxr-xr-x\0\0\0\0"
	"\0\0\0\2bb\0\0\0\0\0\0\0\5\0\0\0\1\0\0\0\2\0\0\201\244";
static const char attrs[] =
	"i\0\0\0\7\200\0\0\17\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0\4\0\0A\355\0\0\0\5\0\0\0\6"
	"\0\0\0\2\0\0\0\1x\0\0\0\0\0\0\0\1y\0\0\0\2zz";

#define REPLY(bytes, r) sftp_get_reply((const uint8_t *)bytes, sizeof(bytes) - 1, r)

static void replies_are_read(void **state)
{
	struct sftp_reply r;
	struct sftp_handle h;

	assert_int_equal(REPLY(version, &r), 0);
	assert_int_equal(r.version.number, 3);
	/* an unknown version of an extension is an unknown extension */
	assert_int_equal(r.version.extensions, SFTP_EXT_POSIX_RENAME | SFTP_EXT_STATVFS);
	assert_int_equal(REPLY(status, &r), 0);
	assert_int_equal(r.id, 7);
	assert_int_equal(r.status.code, SFTP_FX_FAILURE);
	assert_int_equal(r.status.len, 7);
	assert_int_equal(REPLY("e\0\0\0\7\0\0\0\1", &r), 0);
	assert_int_equal(r.status.len, 0);
	assert_int_equal(REPLY(handle_reply, &r), 0);
	assert_int_equal(sftp_get_handle(&r, &h), 0);
	assert_int_equal(h.len, 3);
	assert_int_equal(REPLY(data, &r), 0);
	assert_int_equal(sftp_get_handle(&r, &h), -EBADMSG);
	assert_memory_equal(r.data.bytes, "hello", 5);
	assert_int_equal(REPLY(attrs, &r), 0);
	assert_int_equal(r.attrs.size, 0x100000002);
	assert_int_equal(r.attrs.gid, 4);
	assert_int_equal(r.attrs.perm, S_IFDIR | 0755);
	assert_int_equal(r.attrs.mtime, 6);
}

static void names_are_read_one_by_one(void **state)
{
	struct sftp_reply r;
	struct sftp_name n;

	assert_int_equal(REPLY(names, &r), 0);
	assert_int_equal(r.names.count, 2);
	assert_int_equal(sftp_next_name(&r, &n), 1);
	assert_int_equal(n.len, 1);
	assert_int_equal(sftp_name_type(&n), S_IFDIR);
	assert_int_equal(sftp_next_name(&r, &n), 1);
	assert_memory_equal(n.name, "bb", 2);
	assert_int_equal(n.attrs.size, 0x100000002);
	assert_int_equal(sftp_name_type(&n), S_IFREG);
	assert_int_equal(sftp_next_name(&r, &n), 0);
}

static void a_count_that_is_not_there_ends_in_an_error(void **state)
{
	struct sftp_reply r;
	struct sftp_name n;

	assert_int_equal(REPLY("h\0\0\0\7\377\377\377\377\0\0\0\1a\0\0\0\0\0\0\0\0", &r), 0);
	assert_int_equal(sftp_next_name(&r, &n), 1);
	assert_int_equal(sftp_next_name(&r, &n), -EBADMSG);
	/* four thousand million pairs of attributes */
	assert_int_equal(REPLY("i\0\0\0\7\200\0\0\0\377\377\377\377\0\0\0\0\0\0\0\0", &r), -EBADMSG);
}

/* Each packet cut at each length, in memory of just that length: asan sees an overrun. */
static void cut(const char *bytes, size_t len, bool cut_is_error)
{
	for (size_t n = 0; n <= len; n++) {
		uint8_t *copy = malloc(n ? n : 1);
		struct sftp_reply r;
		struct sftp_name name;
		int e;

		memcpy(copy, bytes, n);
		e = sftp_get_reply(copy, n, &r);
		if (n < 5 || (n < len && cut_is_error))
			assert_int_equal(e, -EBADMSG);
		while (e == 0 && r.type == SFTP_NAME && (e = sftp_next_name(&r, &name)) == 1)
			e = 0;
		free(copy);
	}
}

static void cut_packets_are_refused(void **state)
{
	cut(handle_reply, sizeof(handle_reply) - 1, true);
	cut(data, sizeof(data) - 1, true);
	cut(attrs, sizeof(attrs) - 1, true);
	cut(status, sizeof(status) - 1, false);
	cut(version, sizeof(version) - 1, false);
	cut(names, sizeof(names) - 1, false);
}

static void unknown_types_are_refused(void **state)
{
	struct sftp_reply r;

	for (int type = 0; type < 256; type++) {
		uint8_t packet[5] = { (uint8_t)type, 0, 0, 0, 1 };
		int e = sftp_get_reply(packet, sizeof(packet), &r);

		if (type != SFTP_VERSION && type != SFTP_EXTENDED_REPLY)
			assert_int_equal(e, -EBADMSG);
	}
}

static void frames(void **state)
{
	static const uint8_t stream[] = { 0, 0, 0, 2, 9, 9, 0, 0, 0, 1 };
	static const uint8_t empty[] = { 0, 0, 0, 0, 1 }, endless[] = { 0xff, 0xff, 0xff, 0xff };
	static const uint8_t longest[] = { 0, 8, 0, 0 }, longer[] = { 0, 8, 0, 1 };

	assert_int_equal(sftp_frame(stream, 0), 0);
	assert_int_equal(sftp_frame(stream, 3), 0);
	assert_int_equal(sftp_frame(stream, 5), 0);
	assert_int_equal(sftp_frame(stream, 6), 6);
	assert_int_equal(sftp_frame(stream, sizeof(stream)), 6);
	assert_int_equal(sftp_frame(stream + 6, 4), 0);
	assert_int_equal(sftp_frame(empty, sizeof(empty)), -EBADMSG);
	assert_int_equal(sftp_frame(endless, sizeof(endless)), -EBADMSG);
	assert_int_equal(SFTP_PACKET_MAX, 0x80000);
	assert_int_equal(sftp_frame(longest, 4), 0);
	assert_int_equal(sftp_frame(longer, 4), -EBADMSG);
}

static void extended_replies(void **state)
{
	uint8_t bytes[88] = { 0 };
	struct rbuf r = { bytes, 88 };
	struct sftp_statvfs v;
	struct sftp_limits l;

	for (int i = 0; i < 11; i++)
		bytes[8 * i + 7] = (uint8_t)(i + 1);
	assert_int_equal(sftp_get_statvfs(&r, &v), 0);
	assert_int_equal(v.bsize, 1);
	assert_int_equal(v.fsid, 9);
	assert_int_equal(v.namemax, 11);
	r = (struct rbuf){ bytes, 87 };
	assert_int_equal(sftp_get_statvfs(&r, &v), -EBADMSG);
	r = (struct rbuf){ bytes, 32 };
	assert_int_equal(sftp_get_limits(&r, &l), 0);
	assert_int_equal(l.read, 2);
	assert_int_equal(l.handles, 4);
	r = (struct rbuf){ bytes, 31 };
	assert_int_equal(sftp_get_limits(&r, &l), -EBADMSG);
}

static void handles_have_at_most_256_bytes(void **state)
{
	struct sftp_reply r = { .type = SFTP_HANDLE };
	struct sftp_handle h;
	uint8_t bytes[257] = { 1 };

	r.data.bytes = bytes;
	r.data.len = 256;
	assert_int_equal(sftp_get_handle(&r, &h), 0);
	assert_int_equal(h.len, 256);
	r.data.len = 257;
	assert_int_equal(sftp_get_handle(&r, &h), -EBADMSG);
	r.data.len = 0;
	assert_int_equal(sftp_get_handle(&r, &h), 0);
}

static bool name_ok(const char *name, size_t len)
{
	return sftp_name_ok((const uint8_t *)name, len);
}

static void names_that_would_lead_astray_are_no_names(void **state)
{
	char long_name[256];

	assert_true(name_ok("a", 1));
	assert_true(name_ok("...", 3));
	assert_true(name_ok(".a", 2));
	assert_true(name_ok("\xff\n ", 3));
	assert_false(name_ok("", 0));
	assert_false(name_ok(".", 1));
	assert_false(name_ok("..", 2));
	assert_false(name_ok("a/b", 3));
	assert_false(name_ok("/", 1));
	assert_false(name_ok("a\0b", 3));
	memset(long_name, 'x', sizeof(long_name));
	assert_true(name_ok(long_name, 255));
	assert_false(name_ok(long_name, 256));
}

/* A NAME reply with these names, without attributes. */
static int check_names(const char *one, size_t one_len, const char *two, size_t two_len, unsigned cut)
{
	struct buf b = BUF_INIT;
	struct sftp_reply r;
	int result;

	buf_put_u8(&b, SFTP_NAME);
	buf_put_u32(&b, 7);
	buf_put_u32(&b, 2);
	buf_put_string(&b, one, one_len);
	buf_put_string(&b, "", 0);
	buf_put_u32(&b, 0);
	buf_put_string(&b, two, two_len);
	buf_put_string(&b, "", 0);
	buf_put_u32(&b, 0);
	assert_int_equal(sftp_get_reply(buf_peek(&b), buf_size(&b) - cut, &r), 0);
	result = sftp_check_names(&r);
	assert_int_equal(r.names.count, 2);
	buf_finish(&b);
	return result;
}

static void a_listing_is_checked_as_a_whole(void **state)
{
	assert_int_equal(check_names(".", 1, "..", 2, 0), 0);
	assert_int_equal(check_names("a", 1, "b", 1, 0), 0);
	assert_int_equal(check_names("a", 1, "b", 1, 1), -EBADMSG);
	assert_int_equal(check_names("a", 1, "", 0, 0), -EINVAL);
	assert_int_equal(check_names("a", 1, "b/c", 3, 0), -EINVAL);
	assert_int_equal(check_names("a\0", 2, "b", 1, 0), -EINVAL);
	assert_int_equal(check_names("../x", 4, "b", 1, 0), -EINVAL);
}

static int error_of(uint32_t code, const char *text)
{
	return sftp_status_errno(code, text, strlen(text), NULL);
}

static void statuses_become_errnos(void **state)
{
	bool vague;

	assert_int_equal(error_of(SFTP_FX_OK, "Success"), 0);
	assert_int_equal(error_of(SFTP_FX_NO_SUCH_FILE, ""), -ENOENT);
	assert_int_equal(error_of(SFTP_FX_PERMISSION_DENIED, ""), -EACCES);
	assert_int_equal(error_of(SFTP_FX_BAD_MESSAGE, ""), -EINVAL);
	assert_int_equal(error_of(SFTP_FX_OP_UNSUPPORTED, ""), -EOPNOTSUPP);
	assert_int_equal(error_of(18, ""), -ENOTEMPTY);
	assert_int_equal(error_of(11, ""), -EEXIST);
	assert_int_equal(error_of(25, ""), -EIO);
	assert_int_equal(error_of(0xffffffff, ""), -EIO);
	assert_int_equal(error_of(SFTP_FX_FAILURE, "write: no space left on device"), -ENOSPC);
	assert_int_equal(error_of(SFTP_FX_FAILURE, "mkdir: File exists"), -EEXIST);
	assert_int_equal(sftp_status_errno(SFTP_FX_FAILURE, "Failure", 7, &vague), -EIO);
	assert_true(vague);
	assert_int_equal(sftp_status_errno(SFTP_FX_FAILURE, "File existsX", 10, &vague), -EIO);
	assert_true(vague);
	assert_int_equal(sftp_status_errno(SFTP_FX_FAILURE, "File exists", 11, &vague), -EEXIST);
	assert_false(vague);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(requests_are_the_bytes_of_the_draft),
		cmocka_unit_test(a_link_is_sent_in_the_order_of_openssh),
		cmocka_unit_test(extensions_are_named),
		cmocka_unit_test(all_attributes_are_sent),
		cmocka_unit_test(requests_stand_one_behind_the_other),
		cmocka_unit_test(replies_are_read),
		cmocka_unit_test(names_are_read_one_by_one),
		cmocka_unit_test(a_count_that_is_not_there_ends_in_an_error),
		cmocka_unit_test(cut_packets_are_refused),
		cmocka_unit_test(unknown_types_are_refused),
		cmocka_unit_test(frames),
		cmocka_unit_test(extended_replies),
		cmocka_unit_test(handles_have_at_most_256_bytes),
		cmocka_unit_test(names_that_would_lead_astray_are_no_names),
		cmocka_unit_test(a_listing_is_checked_as_a_whole),
		cmocka_unit_test(statuses_become_errnos),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
