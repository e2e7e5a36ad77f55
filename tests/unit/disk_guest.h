/*
 * For tests of fs/disk: the system's sftp-server as the guest. In place of the SSH layer stand
 * the functions of it that fs/disk uses.
 */
#ifndef SBXFS_TEST_DISK_GUEST_H
#define SBXFS_TEST_DISK_GUEST_H

#include "sftp_peer.h"
#include "ssh.h"

static struct loop *loop;
static unsigned channels;		/* opened so far */
static unsigned sudos;			/* of them by sudo */
static const char *server_umask;

struct ssh_channel {
	struct peer peer;
	const struct ssh_channel_ops *ops;
	void *user;
	struct ssh_channel *before;
	size_t written;			/* to it, in all */
	uint8_t head[4];		/* of the packet that comes: where it ends */
	size_t head_len, left;
};
static struct ssh_channel *channel;	/* the latest */
static long packets_left = -1;		/* then something happens to the guest; < 0: never */
static void (*at_the_end)(struct ssh_channel *);

/* How many of the bytes there are until that many packets are complete. */
static size_t packets_end(struct ssh_channel *c, const uint8_t *data, size_t len)
{
	size_t at = 0;

	while (at < len && packets_left != 0) {
		if (c->left == 0) {
			c->head[c->head_len++] = data[at++];
			if (c->head_len < 4)
				continue;
			c->left = (size_t)c->head[0] << 24 | (size_t)c->head[1] << 16 |
				  (size_t)c->head[2] << 8 | c->head[3];
			c->head_len = 0;
			continue;
		}
		if (c->left > len - at) {
			c->left -= len - at;
			return len;
		}
		at += c->left;
		c->left = 0;
		packets_left--;
	}
	return at;
}

static void channel_data(void *user, const uint8_t *data, size_t len)
{
	struct ssh_channel *c = user;

	if (packets_left >= 0)
		len = packets_end(c, data, len);
	if (c->ops && len > 0)
		c->ops->data(c->user, 0, data, len);
	if (packets_left == 0) {
		packets_left = -1;
		at_the_end(c);
	}
}

static void channel_drained(void *user)
{
	struct ssh_channel *c = user;

	if (c->ops)
		c->ops->drained(c->user);
}

static void channel_closed(void *user)
{
	struct ssh_channel *c = user;
	const struct ssh_channel_ops *ops = c->ops;

	c->ops = NULL;
	if (ops)
		ops->closed(c->user, &(struct ssh_exit){ .status = 0 });
}

int ssh_subsystem(struct ssh *s, const char *name, uint32_t window,
		  const struct ssh_channel_ops *ops, void *user, struct ssh_channel **ch)
{
	struct ssh_channel *next = calloc(1, sizeof(*next));

	assert_string_equal(name, "sftp");
	next->before = channel;
	channel = next;
	channel->ops = ops;
	channel->user = user;
	channel->peer = (struct peer){ .data = channel_data, .drained = channel_drained,
				       .closed = channel_closed, .user = channel,
				       .drain_below = SSH_WRITE_LOW };
	peer_start(&channel->peer, loop, false, server_umask ? "-u" : NULL, server_umask);
	channels++;
	*ch = channel;
	return 0;
}

int ssh_exec(struct ssh *s, const void *command, size_t len, const struct ssh_channel_ops *ops,
	     void *user, struct ssh_channel **ch)
{
	assert_non_null(memmem(command, len, "sudo -n", 7));
	sudos++;
	return ssh_subsystem(s, "sftp", 0, ops, user, ch);
}

void ssh_channel_write(struct ssh_channel *c, const void *data, size_t len)
{
	c->written += len;
	peer_send(&c->peer, data, len);
}

size_t ssh_channel_queued(const struct ssh_channel *c)
{
	return buf_size(&c->peer.out);
}

void ssh_channel_destroy(struct ssh_channel *c)
{
	if (c) {
		c->ops = NULL;
		peer_hang_up(&c->peer);
	}
}

/* All channels there were. */
static void channels_end(void)
{
	while (channel) {
		struct ssh_channel *before = channel->before;

		peer_stop(&channel->peer);
		free(channel);
		channel = before;
	}
}

#endif
