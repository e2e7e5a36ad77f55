/*
 * A single packet of a hostile SFTP server, decoded to its last byte: the reply itself, the
 * names and attributes of a listing, limits, figures of a file system, handles, statuses.
 * The packet lies in memory of just its length, so that one byte too many is seen.
 */
#include <stdlib.h>
#include <string.h>

#include "sftp_codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void names(struct sftp_reply *r)
{
	uint32_t told = r->names.count, count = 0;
	int whole = sftp_check_names(r), more;
	bool odd = false;
	struct sftp_name n;

	if (r->names.count != told)
		abort();		/* looking at it uses nothing up */
	while ((more = sftp_next_name(r, &n)) == 1) {
		bool dots = n.len > 0 && n.len < 3 && !memcmp(n.name, "..", n.len);

		count++;
		sftp_name_type(&n);
		odd |= !dots && !sftp_name_ok(n.name, n.len);
		if (sftp_name_ok(n.name, n.len) &&
		    (dots || !n.len || memchr(n.name, '/', n.len) || memchr(n.name, 0, n.len)))
			abort();
	}
	/* What was found good is read to its end, and has no name that leads astray. */
	if (whole == 0 && (more != 0 || odd || count != told))
		abort();
}

static void decode(struct sftp_reply *r)
{
	struct sftp_handle h;
	struct sftp_statvfs v;
	struct sftp_limits l;
	struct rbuf again;
	int error;

	switch (r->type) {
	case SFTP_STATUS:
		error = sftp_status_errno(r->status.code, r->status.text, r->status.len, NULL);
		if (error > 0 || (error == 0) != (r->status.code == SFTP_FX_OK))
			abort();
		break;
	case SFTP_HANDLE:
		if (sftp_get_handle(r, &h) == 0 && h.len > sizeof(h.bytes))
			abort();
		break;
	case SFTP_NAME:
		names(r);
		break;
	case SFTP_EXTENDED_REPLY:
		again = r->extended;
		sftp_get_limits(&again, &l);
		sftp_get_statvfs(&r->extended, &v);
		break;
	default:
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *packet = malloc(size);
	struct sftp_reply r;

	if (size > 0) {
		memcpy(packet, data, size);
		if (sftp_get_reply(packet, size, &r) == 0)
			decode(&r);
	}
	free(packet);
	return 0;
}
