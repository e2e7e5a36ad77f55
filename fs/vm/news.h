/*
 * Every change of a sandbox or a job that users may want to hear of passes here:
 * it becomes an event (events.h) and is counted (metrics.h). The names of events
 * and their fields are those of sbxfs.5.
 */
#ifndef SBXFS_VM_NEWS_H
#define SBXFS_VM_NEWS_H

struct err;
struct fleet;
struct job;
struct vm;

/* At the start, before anything changes: what came and went while no daemon looked. */
void news_start(struct fleet *);
void news_stop(struct fleet *);

void news_created(struct vm *);
/* It is there and was not made by this mount: found at the backend. */
void news_adopted(struct vm *);
void news_renamed(struct vm *, const char *was);
/* It is called NAME@TIME from now on, and no longer. */
void news_trashed(struct vm *);
void news_restored(struct vm *, const char *was);
/* Its status is another one than before: the event is the status. */
void news_status(struct vm *, const char *was);
/* Verified gone. */
void news_destroyed(struct vm *);
/* Something was refused or ended by a limit ("sandboxes", "ttl", …); sandbox may be NULL. */
void news_limit(struct fleet *, const char *limit, const char *sandbox, const char *sentence);

void news_job_started(struct job *);
void news_job_ended(struct job *);

#endif
