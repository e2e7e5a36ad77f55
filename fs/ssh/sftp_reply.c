/*
 * What an SFTP server says: packets out of the bytes, answers matched to their calls, the
 * greeting. Whatever breaks the protocol ends the connection with a sentence that tells what.
 */
#include <errno.h>
#include <stdlib.h>

#include "metrics.h"
#include "sftp_internal.h"

/* The least and the most that one READ or WRITE ever has, whatever the server tells. */
#define MIN_IO 4096u
#define MAX_IO (255u * 1024)
#define PACKET_OVERHEAD 1024u
#define ROUND_TRIP_MS 10000

/* 0: the answer is good; < 0: its error; -EPROTO: the server broke the protocol. */
static int judge(const struct sftp_call *c, struct sftp_reply *reply, struct sftp_answer *answer)
{
	int error;

	if (reply->type == c->expect && c->type == SFTP_READ) {
		metric_add(METRIC_DISK_READ_BYTES, reply->data.len);
		return reply->data.len > c->weight ? -EPROTO : 0;
	}
	if (reply->type == c->expect && reply->type != SFTP_STATUS)
		return 0;
	if (reply->type != SFTP_STATUS)
		return -EPROTO;
	if (reply->status.code == SFTP_FX_EOF && c->type == SFTP_READ) {
		reply->data.bytes = (const uint8_t *)"";
		reply->data.len = 0;
		return 0;
	}
	if (reply->status.code == SFTP_FX_EOF && c->type == SFTP_READDIR) {
		reply->names.count = 0;
		reply->names.rest = (struct rbuf){ 0 };
		return 0;
	}
	error = sftp_status_errno(reply->status.code, reply->status.text, reply->status.len,
				  &answer->vague);
	/* "OK" where something was asked for is no answer. */
	return error == 0 && c->expect != SFTP_STATUS ? -EPROTO : error;
}

static int take_handle(struct sftp *s, const struct sftp_reply *reply, bool wanted,
		       struct sftp_answer *answer)
{
	struct sftp_handle *h = xmalloc(sizeof(*h));

	if (sftp_get_handle(reply, h)) {
		free(h);
		return -EPROTO;
	}
	if (wanted)
		answer->handle = h;
	else
		sftp_close(s, h);
	return 0;
}

/* The least of the last ROUND_TRIP_MS: what waits behind data takes longer. */
static void measure(struct sftp *s, const struct sftp_call *c)
{
	int64_t now = clock_ms(), took = now - c->since;

	if (c->weight || c->slow)
		return;
	if (s->round_trip < 0 || took < s->round_trip ||
	    now - s->round_trip_since > ROUND_TRIP_MS) {
		s->round_trip = took;
		s->round_trip_since = now;
	}
}

static void answer_call(struct sftp *s, struct sftp_call *c, struct sftp_reply *reply)
{
	struct sftp_answer answer = { .reply = reply };
	int error = judge(c, reply, &answer);
	uint8_t type = c->type;
	sftp_cb *done = c->done;
	void *user = c->user;

	if (error == 0 && reply->type == SFTP_HANDLE)
		error = take_handle(s, reply, done != NULL, &answer);
	if (error == 0 && type == SFTP_READDIR && (error = sftp_check_names(reply))) {
		sftp_fail(s, -EPROTO, error == -EINVAL ? "listed a name that cannot be one" :
							 "sent a listing that cannot be read");
		return;
	}
	if (error == -EPROTO) {
		sftp_fail(s, -EPROTO, "gave an answer of type %u that does not fit a call of type %u",
			  reply->type, type);
		return;
	}
	measure(s, c);
	sftp_call_free(c);
	sftp_pump(s);
	sftp_tell_front(s);
	if (done)
		done(user, error, &answer);
}

/* A call of our own while GREETING. */
static void limits_done(void *user, int error, const struct sftp_answer *answer)
{
	struct sftp *s = user;
	struct sftp_limits l = { 0 };

	if (s->state != SFTP_GREETING)
		return;
	if (error == 0 && sftp_get_limits(&answer->reply->extended, &l)) {
		sftp_fail(s, -EPROTO, "sent limits that are cut short");
		return;
	}
	/* 0 is "no limit told"; what is absurdly small would cost more calls than it is worth. */
#define CLAMP(n) ((n) < MIN_IO ? MIN_IO : (n) > MAX_IO ? MAX_IO : (uint32_t)(n))
	if (l.read)
		s->max_read = CLAMP(l.read);
	if (l.write)
		s->max_write = CLAMP(l.write);
	if (l.packet && l.packet < s->max_write + PACKET_OVERHEAD)
		s->max_write = l.packet < MIN_IO + PACKET_OVERHEAD ? MIN_IO :
			       (uint32_t)l.packet - PACKET_OVERHEAD;
#undef CLAMP
	s->state = SFTP_READY;
	s->events->ready(s->user);
}

static void greeted(struct sftp *s, const struct sftp_reply *reply)
{
	struct sftp_call *c;

	if (s->state != SFTP_GREETING || s->calls) {
		sftp_fail(s, -EPROTO, "greeted twice");
		return;
	}
	if (reply->version.number != 3) {
		sftp_fail(s, -EPROTO, "speaks version %u of the protocol, not 3", reply->version.number);
		return;
	}
	s->extensions = reply->version.extensions;
	loop_timer_cancel(&s->watchdog);
	if (!(s->extensions & SFTP_EXT_LIMITS)) {
		s->state = SFTP_READY;
		s->events->ready(s->user);
		return;
	}
	c = sftp_call_new(s, SFTP_EXTENDED, limits_done, s, NULL);
	c->expect = SFTP_EXTENDED_REPLY;
	sftp_put_ext(&s->out, SFTP_EXT_LIMITS, c->id);
	sftp_call_send(s, c);
}

static void take_packet(struct sftp *s, const uint8_t *packet, size_t len)
{
	struct sftp_reply reply;
	struct sftp_call *c;

	if (sftp_get_reply(packet, len, &reply)) {
		sftp_fail(s, -EPROTO, "sent a packet of type %u that cannot be read", packet[0]);
		return;
	}
	if (reply.type == SFTP_VERSION) {
		greeted(s, &reply);
		return;
	}
	HASH_FIND(hh, s->calls, &reply.id, sizeof(reply.id), c);
	if (!c || !c->sent)
		sftp_fail(s, -EPROTO, "answered a call that was not made");
	else
		answer_call(s, c, &reply);
}

/* No packet is that long, or it has nothing in it. */
static void bad_frame(struct sftp *s, const uint8_t *data, size_t len)
{
	char said[40];
	size_t n = 0;

	/* A start-up file of the login shell that prints something is the usual reason. */
	while (n < len && n < sizeof(said) - 1 && data[n] >= ' ' && data[n] <= '~') {
		said[n] = (char)data[n];
		n++;
	}
	said[n] = 0;
	if (s->state == SFTP_GREETING && n >= 4)
		sftp_fail(s, -EPROTO, "says something before the greeting (\"%s\"): a start-up file "
			  "of the guest's shell must print nothing", said);
	else
		sftp_fail(s, -EPROTO, "announced a packet that is empty or longer than %d bytes",
			  SFTP_PACKET_MAX);
}

size_t sftp_take_packets(struct sftp *s, const uint8_t *data, size_t len)
{
	size_t taken = 0;

	while (s->state != SFTP_DEAD) {
		int n = sftp_frame(data + taken, len - taken);

		if (n == 0)
			break;
		if (n < 0) {
			bad_frame(s, data + taken, len - taken);
			break;
		}
		take_packet(s, data + taken + 4, (size_t)n - 4);
		taken += (size_t)n;
	}
	return taken;
}
