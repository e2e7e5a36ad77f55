/*
 * What a hostile guest sends on its cable, and nonsense on the control socket. The first
 * byte chooses: with the network on or off, or a line of words. A frame that is let out
 * must not go to what a plain reading of its head says is closed to it, and a refusal goes
 * back whole.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "control.h"
#include "frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define OWN 0xc0a80105u

static bool local(void *user, uint32_t address)
{
	return address == OWN;
}

static void words(const char *text, size_t len)
{
	char line[CONTROL_LINE_MAX], wrong[FRAME_WRONG_MAX], *list = malloc(len + 1);
	struct frame_rules rules = { 0 };
	struct control c, again;
	size_t n;

	memcpy(list, text, len);
	list[len] = '\0';
	if (frame_allow(&rules, list, wrong) == 0 && strlen(wrong) >= sizeof(wrong))
		abort();
	free(list);
	if (control_parse(&c, text, len) < 0)
		return;
	n = control_print(&c, line);
	if (n >= sizeof(line) || control_parse(&again, line, n - 1) || again.verb != c.verb ||
	    again.a != c.a || again.b != c.b)
		abort();
}

static void look(const struct frame_rules *rules, const uint8_t *frame, size_t len)
{
	const uint8_t *ip = frame + 14;
	uint32_t to;

	if (frame[12] == 0x08 && frame[13] == 0x06)
		return;			/* ARP */
	if (frame[12] != 0x08 || frame[13] || len < 34 || ip[0] != 0x45)
		abort();
	to = (uint32_t)ip[16] << 24 | ip[17] << 16 | ip[18] << 8 | ip[19];
	if (ip[9] == 6 && (ip[33] & 0x12) != 0x02)
		return;			/* no new connection */
	if (ip[9] == 17 && len >= 38 && !ip[22] && ip[23] == 67 && (to == FRAME_GATEWAY || to == ~0u))
		return;			/* DHCP */
	if (rules->restricted || to == OWN || to >> 24 == 127 || to >> 16 == 0xa9fe ||
	    to >> 24 == 0 || to >= 0xe0000000u || (to == FRAME_GATEWAY && ip[9] != 1))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct frame_rules rules = { .local = local };
	uint8_t answer[FRAME_REFUSAL_MAX], *frame;

	if (size < 1)
		return 0;
	if (data[0] % 3 == 2) {
		words((const char *)data + 1, size - 1);
		return 0;
	}
	rules.restricted = data[0] % 3;
	frame = malloc(size);		/* of just its length, or nearly */
	memcpy(frame, data + 1, size - 1);
	frame = realloc(frame, size > 1 ? size - 1 : 1);
	switch (frame_check(&rules, frame, size - 1)) {
	case FRAME_PASS:
		look(&rules, frame, size - 1);
		break;
	case FRAME_REFUSE:
		if (frame_refusal(frame, size - 1, answer) != FRAME_REFUSAL_MAX)
			abort();
		break;
	case FRAME_DROP:
		break;
	}
	free(frame);
	return 0;
}
