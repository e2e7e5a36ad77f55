/* The record of a VM as JSON: see cvm_record.h. */
#include "cvm_record.h"

#include <assert.h>
#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "flush.h"

#define RECORD_MAX (64 * 1024)

static const char *const phase_names[] = {
	[CVM_NEW] = "new", [CVM_MADE] = "made", [CVM_FAILED] = "failed",
	[CVM_DESTROYING] = "destroying",
};
static_assert(sizeof(phase_names) / sizeof(*phase_names) == CVM_DESTROYING + 1,
	      "a name a phase");

/* The fields that are text: where they lie in the struct, and their keys. */
#define FIELD(key, member) { key, offsetof(struct cvm_record, member), \
			     sizeof(((struct cvm_record *)0)->member) }
static const struct field {
	const char *key;
	size_t offset, size;
} fields[] = {
	FIELD("id", id), FIELD("tag", spec.tag), FIELD("image", spec.image),
	FIELD("made_as", spec.name), FIELD("from", spec.from), FIELD("extra", spec.extra),
	FIELD("source", source), FIELD("name", vm.name), FIELD("host", vm.host),
	FIELD("user", vm.user), FIELD("https_url", vm.https_url), FIELD("region", vm.region),
	FIELD("created", vm.created), FIELD("tags", vm.tags), FIELD("comment", vm.comment),
	FIELD("why", why.text),
};

/* --- JSON ------------------------------------------------------------------------ */

static void put_number(cJSON *j, const char *key, uint64_t n)
{
	if (n)
		cJSON_AddNumberToObject(j, key, (double)n);
}

static cJSON *to_json(const struct cvm_record *r)
{
	cJSON *j = cJSON_CreateObject(), *ports;

	cJSON_AddStringToObject(j, "phase", phase_names[r->phase]);
	for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++) {
		const char *text = (const char *)r + fields[i].offset;

		if (*text)
			cJSON_AddStringToObject(j, fields[i].key, text);
	}
	put_number(j, "foreign", r->foreign);
	put_number(j, "marked", r->marked);
	put_number(j, "cpus", r->spec.cpus);
	put_number(j, "memory", r->spec.memory);
	put_number(j, "disk", r->spec.disk);
	put_number(j, "port", (uint64_t)r->vm.port);
	put_number(j, "why_code", (uint64_t)-r->why.code);
	ports = cJSON_AddArrayToObject(j, "ports");
	for (unsigned i = 0; i < r->port_count; i++)
		cJSON_AddItemToArray(ports, cJSON_CreateNumber(r->ports[i]));
	return j;
}

static uint64_t get_number(const cJSON *j, const char *key)
{
	const cJSON *v = cJSON_GetObjectItemCaseSensitive(j, key);

	return cJSON_IsNumber(v) && v->valuedouble > 0 && v->valuedouble < 1e16 ?
		       (uint64_t)v->valuedouble : 0;
}

static int from_json(struct cvm_record *r, const cJSON *j)
{
	const char *phase = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, "phase"));
	const cJSON *one;
	int p = CVM_DESTROYING;

	memset(r, 0, sizeof(*r));
	while (p >= 0 && (!phase || strcmp(phase_names[p], phase)))
		p--;
	if (p < 0)
		return -EBADMSG;
	r->phase = (enum cvm_phase)p;
	for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++) {
		const char *text =
			cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, fields[i].key));

		if (text && strlen(text) >= fields[i].size)
			return -EBADMSG;
		if (text)
			strcpy((char *)r + fields[i].offset, text);
	}
	r->foreign = get_number(j, "foreign");
	r->marked = get_number(j, "marked");
	r->spec.cpus = (unsigned)get_number(j, "cpus");
	r->spec.memory = get_number(j, "memory");
	r->spec.disk = get_number(j, "disk");
	r->vm.port = (int)get_number(j, "port");
	r->why.code = -(int)get_number(j, "why_code");
	cJSON_ArrayForEach(one, cJSON_GetObjectItemCaseSensitive(j, "ports"))
		if (cJSON_IsNumber(one) && r->port_count < CVM_PORTS)
			r->ports[r->port_count++] = (unsigned)one->valuedouble;
	return r->id[0] && r->vm.name[0] ? 0 : -EBADMSG;
}

/* --- files --------------------------------------------------------------------------- */

int cvm_record_save(const struct cvm_record *rec, const char *state_dir, bool soon,
		    struct err *err)
{
	char *path = xasprintf("%s/%s.json", state_dir, rec->id);
	cJSON *j = to_json(rec);
	char *text = cJSON_Print(j);
	int r;

	if (!text)
		abort();	/* out of memory, as xmalloc does */
	r = soon ? write_file_soon(path, text, (unsigned)strlen(text), err) :
		write_file(path, text, (unsigned)strlen(text), true, err);
	cJSON_free(text);
	cJSON_Delete(j);
	free(path);
	return r;
}

static int load(struct cvm_record *rec, const char *path)
{
	FILE *f = fopen(path, "re");
	char *text;
	size_t n;
	cJSON *j;
	int r;

	if (!f)
		return -errno;
	text = xmalloc(RECORD_MAX + 1);
	n = fread(text, 1, RECORD_MAX, f);
	fclose(f);
	text[n] = 0;
	j = cJSON_Parse(text);
	r = j ? from_json(rec, j) : -EBADMSG;
	cJSON_Delete(j);
	free(text);
	return r;
}

int cvm_record_load(struct cvm_record *rec, const char *path, struct err *err)
{
	char *before = xasprintf("%s.new", path);
	int r = load(rec, path);

	/* The power went before it was on disk: what was there before it is true enough. */
	if (r == -EBADMSG && load(rec, before) == 0)
		r = 0;
	free(before);
	if (r == -EBADMSG)
		return err_set(err, r, "%s is damaged", path);
	return r < 0 ? err_sys(err, r, "cannot read %s", path) : 0;
}

int cvm_record_remove(const struct cvm_record *rec, const char *state_dir, struct err *err)
{
	char *path = xasprintf("%s/%s.json", state_dir, rec->id);
	int r = remove_file(path);

	if (r < 0)
		err_sys(err, r, "cannot remove %s", path);
	else
		r = flush_path(state_dir);
	free(path);
	return r;
}
