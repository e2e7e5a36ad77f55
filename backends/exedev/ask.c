/*
 * Requests with a token: they wait until there is one, and until the records are on
 * disk; a 401 is asked again once with a fresh one, and what a 403 teaches about the
 * token is remembered. Here is also what the token allows, found out without doing
 * anything: a self-signed one says it itself, any other is tried with "COMMAND --help".
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "exe.h"
#include "flush.h"
#include "http.h"
#include "log.h"
#include "secret.h"
#include "token.h"

struct ask {
	struct list link;
	struct exe *exe;
	enum api_grant grant;
	char *line;
	struct http_call *call;		/* NULL: waits for a token, or for `later` */
	struct loop_later later;
	struct flush_wait flush;	/* the records, on their way to the disk */
	bool again;			/* it was answered 401 once */
	ask_cb *cb;
	void *user;
};

static void send(struct ask *);

static void ask_free(struct ask *a)
{
	list_del(&a->link);
	loop_later_cancel(&a->later);
	flush_cancel(&a->flush);
	http_cancel(a->call);
	free(a->line);
	free(a);
}

static void answer(struct ask *a, const struct api_answer *answer, bool not_sent)
{
	ask_cb *cb = a->cb;
	void *user = a->user;

	ask_free(a);
	cb(user, answer, not_sent);
}

/* --- the token -------------------------------------------------------------------- */

static const char *current_token(void *user)
{
	const struct ask *a = user;

	return a->exe->needs_token ? token_text(a->exe->token) : NULL;
}

/* There is no token, and none on its way. */
static void refuse(struct loop_later *l)
{
	struct ask *a = container_of(l, struct ask, later);
	struct api_answer no = { .verdict = API_REFUSED, .code = -EACCES };
	struct err err = ERR_NONE;

	if (token_came(a->exe->token))
		return;		/* asks_go_on has sent it */
	token_state(a->exe->token, &err);
	no.text = err.text;
	exe_tell_ready(a->exe, err.text);
	answer(a, &no, false);
}

/* --- 401 and 403 ---------------------------------------------------------------------- */

static void denied(struct ask *a, struct api_answer *r)
{
	const char *name = a->grant < GRANT_COUNT ? api_grant_names[a->grant] : a->line;
	char *text = xasprintf("the token does not allow \"%s\" (%s): add %s to its cmds", name,
			       r->text, name);

	free(r->text);
	r->text = text;
	r->code = -EACCES;
	if (a->grant < GRANT_COUNT && (a->exe->grants & 1u << a->grant ||
				       !(a->exe->grants_known & 1u << a->grant))) {
		a->exe->grants &= ~(1u << a->grant);
		a->exe->grants_known |= 1u << a->grant;
		exe_find_grants(a->exe);
	}
}

static void unauthorized(struct ask *a, struct api_answer *r)
{
	char *text = xasprintf("exe.dev refused the token (%s): %s",
			       token_source(a->exe->token), r->text);

	free(r->text);
	r->text = text;
	r->code = -EACCES;
	exe_tell_ready(a->exe, text);
}

static void came(void *user, const struct http_answer *h)
{
	struct ask *a = user;
	struct exe *e = a->exe;
	struct api_answer r;

	a->call = NULL;
	if (h->status == 401 && !a->again) {
		a->again = true;
		if (token_refused(e->token)) {
			if (!a->call)	/* else asks_go_on has sent it already */
				send(a);
			return;
		}
	}
	api_judge(&r, h->status, h->body, h->len, h->why);
	if (r.text[0])
		log_debug("exe.dev: %.*s: status %ld: %s", (int)strcspn(a->line, " "), a->line,
			  h->status, r.text);
	if (h->status == 401)
		unauthorized(a, &r);
	else if (h->status == 403)
		denied(a, &r);
	else if (h->status)
		token_accepted(e->token);
	answer(a, &r, h->status == 0 && h->not_sent);
	api_finish(&r);
}

/* The record says what is about to be asked for: before it is on disk nothing is. */
static void on_disk(struct flush_wait *w, int error)
{
	struct ask *a = container_of(w, struct ask, flush);
	struct api_answer no = { .verdict = API_REFUSED, .code = error };

	if (error == 0) {
		a->call = http_post(a->exe->http, a->line, current_token, came, a);
		return;
	}
	no.text = xasprintf("exe.dev was not asked, since the record cannot be written: %s",
			    strerror(-error));
	answer(a, &no, false);
	free(no.text);
}

static void refuse_unrecorded(struct loop_later *l)
{
	on_disk(&container_of(l, struct ask, later)->flush, flush_error());
}

static void send(struct ask *a)
{
	struct exe *e = a->exe;
	int r = e->needs_token ? token_state(e->token, NULL) : 0;
	bool changes = a->grant != GRANT_LS && a->grant != GRANT_STAT && a->grant < GRANT_COUNT;

	if (r == -EAGAIN || flush_is_waiting(&a->flush))
		return;		/* asks_go_on follows, or on_disk */
	loop_later_cancel(&a->later);
	if (r < 0)
		loop_later(e->loop, &a->later, refuse);
	else if (changes && !flush_idle())
		flush_wait(&a->flush, on_disk);
	else if (changes && flush_error())
		loop_later(e->loop, &a->later, refuse_unrecorded);
	else
		a->call = http_post(e->http, a->line, current_token, came, a);
}

struct ask *exe_ask(struct exe *e, enum api_grant grant, char *line, ask_cb *cb, void *user)
{
	struct ask *a = xcalloc(1, sizeof(*a));

	a->exe = e;
	a->grant = grant;
	a->line = line;
	a->cb = cb;
	a->user = user;
	list_add_tail(&e->asks, &a->link);
	send(a);
	return a;
}

void ask_cancel(struct ask *a)
{
	if (a)
		ask_free(a);
}

bool ask_is_waiting(const struct ask *a)
{
	return a && (!a->call || http_is_waiting(a->call));
}

void asks_cancel(struct exe *e)
{
	while (!list_empty(&e->asks))
		ask_free(list_entry(e->asks.next, struct ask, link));
}

void asks_go_on(struct exe *e)
{
	list_for_each(a, &e->asks, struct ask, link)
		if (!a->call)
			send(a);
}

/* --- what the token allows --------------------------------------------------------------- */

int exe_may(const struct exe *e, enum api_grant grant, struct err *err)
{
	if (!e->control)
		return err_set(err, -EACCES, "there is no token for exe.dev: \"%s\" cannot be "
			       "asked for", api_grant_names[grant]);
	if (e->missing & 1u << grant)
		return err_set(err, -EACCES, "exe.dev has no command \"%s\"",
			       api_grant_names[grant]);
	if ((e->grants_known & 1u << grant) && !(e->grants & 1u << grant))
		return err_set(err, -EACCES, "the token does not allow \"%s\": add %s to its cmds",
			       api_grant_names[grant], api_grant_names[grant]);
	return 0;
}

static bool may_all(const struct exe *e, unsigned grants)
{
	return ((e->grants | ~e->grants_known) & grants) == grants;
}

static void set_caps(struct exe *e)
{
	unsigned caps = 0;

	if (!e->control)
		return;
	if (may_all(e, 1u << GRANT_RESTART))
		caps |= BACKEND_CAP_RESTART;
	if (may_all(e, 1u << GRANT_PAUSE | 1u << GRANT_RESUME))
		caps |= BACKEND_CAP_PAUSE;
	if (may_all(e, 1u << GRANT_CP | 1u << GRANT_TAG))
		caps |= BACKEND_CAP_CLONE;
	if (may_all(e, 1u << GRANT_SHARE_PORT))
		caps |= BACKEND_CAP_PORTS;
	if (may_all(e, 1u << GRANT_RESIZE))
		caps |= BACKEND_CAP_RESIZE;
	e->base.caps = caps;
}

static void probe_next(struct exe *);

static void probed(void *user, const struct api_answer *a, bool not_sent)
{
	struct exe *e = user;
	unsigned bit = 1u << e->probe;

	e->probing = NULL;
	if (e->probe_anew || a->status == 401) {
		/* Not of this token, or nothing at all: a new one is asked about from the start. */
		e->probe = e->probe_anew ? 0 : GRANT_COUNT;
		e->probe_anew = false;
		probe_next(e);
		return;
	}
	/* Nor has it been asked where nothing is at the address. */
	if (a->verdict != API_UNCLEAR && a->code != -ENODEV) {
		e->grants_known |= bit;
		/* Even a complaint about arguments says yes. */
		if (a->code == -ENOSYS)
			e->missing |= bit;
		else if (a->status != 403)
			e->grants |= bit;
	}
	e->probe++;
	set_caps(e);
	probe_next(e);
}

static void probe_next(struct exe *e)
{
	while (e->probe < GRANT_COUNT && (e->grants_known & 1u << e->probe))
		e->probe++;
	if (e->probe < GRANT_COUNT && !e->probing)
		e->probing = exe_ask(e, GRANT_COUNT,
				     xasprintf("%s --help", api_grant_names[e->probe]), probed, e);
}

void exe_find_grants(struct exe *e)
{
	const char *token = e->needs_token ? token_text(e->token) : NULL;
	unsigned grants;

	if (token && !e->grants_known && api_token_grants(token, &grants)) {
		e->grants = grants;
		e->grants_known = (1u << GRANT_COUNT) - 1;
	}
	secret_forget();
	set_caps(e);
	if ((token || !e->needs_token) && e->control && !e->probing && e->probe == 0)
		probe_next(e);
}

void exe_new_token(struct exe *e)
{
	e->grants = e->grants_known = e->missing = 0;
	e->probe_anew = e->probing != NULL;
	e->probe = e->probing ? e->probe : 0;
	exe_find_grants(e);
}

/* --- ready? ---------------------------------------------------------------------------------- */

void exe_tell_ready(struct exe *e, const char *why)
{
	bool ready = !why;

	if (e->ready_told && e->is_ready == ready && (ready || !strcmp(e->unready, why)))
		return;
	e->ready_told = true;
	e->is_ready = ready;
	snprintf(e->unready, sizeof(e->unready), "%s", why ? why : "");
	e->events->ready(e->user, ready, e->unready);
}
