/*
 * The shell scripts that are sent to a guest beside its jobs: what finds and ends the
 * processes of jobs (see command.c for their marks), and what looks at the guest itself.
 */
#include "command.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * $1 and $2: patterns of tokens and of limits; $3: seconds from TERM to KILL; $4: a signal
 * to send instead, or nothing; $5: sessions, which are the process ids of the jobs' shells.
 * Builtins only, but for grep: a slow guest has hundreds of processes to look at.
 *
 * find_them leaves the process ids in r, those shells first (one whose child is ended before it
 * goes on, and may end well): carriers of the limit; members of a carrier's session; descendants
 * of all these. It reads only what the kernel tells without taking the process's memory lock.
 * look adds whoever carries the mark in its environment or command line. These are in that
 * memory: behind a process that hangs in the kernel with the lock held, reading them hangs too.
 * So it comes after the others have been told to end; only those are read that have not been
 * found yet; and timeout, where there is one, ends a reading that takes LOOK_SECONDS. Then
 * all are read again, 16 at once and each on its own. Whose reader does not run and does not
 * end, in 40 looks at it over LOOK_SECONDS (so that a slow guest is not taken for one that hangs),
 * is in h: known only by what find_them sees. part: there was no time for all of them; it
 * goes on with those that are left.
 *
 * ppids come in no order: again until no more is found. Zombies count for their
 * children, not for themselves. Session 0 is none: that of whoever was started from outside
 * a container. w is those of r whose session has not been told to end (a job that was just
 * being started, say): who has been told may start others to clean up, and is let do it until
 * KILL. Without /proc or grep r holds process groups: those of the jobs' shells,
 * which is all that can be known.
 */
#define LOOK_SECONDS "4"
static const char kill_script[] =
	"e=$1; l=$2; g=$3; i=$5; n=0; told=; h=' '; "
	"u=; [ -w / ] || u=$(command -v sudo); "
	"take() { "
	"  for f; do case $f in "
	"    held:*) h=\"$h${f#held:} \";; "
	"    part:) part=1;; "
	"    *) f=${f#/proc/}; m=\"$m${f%%/*} \";; "
	"  esac; done; "
	"}; "
	"spread() { "
	"  more=1; r=; w=; y=; "
	"  while [ $more ]; do "
	"    more=; "
	"    for x in $a; do "
	"      p=${x%%:*}; x=${x#*:}; x=${x#*:}; pp=${x%:*}; q=${x#*:}; "
	"      case $m in *\" $p \"*) "
	"        case $s in *\" ${q:-0} \"*) ;; *) [ $q ] && s=\"$s$q \" && more=1;; esac; "
	"        continue;; esac; "
	"      case $s in *\" ${q:-0} \"*) m=\"$m$p \"; more=1; continue;; esac; "
	"      case $m in *\" $pp \"*) m=\"$m$p \"; more=1;; esac; "
	"    done; "
	"  done; "
	"  for x in $a; do "
	"    p=${x%%:*}; "
	"    case $m in *\" $p \"*) ;; *) continue;; esac; "
	"    case $x in *:[ZX]:*) continue;; esac; "
	"    case \" $i \" in *\" $p \"*) r=\" $p$r\";; *) r=\"$r $p\";; esac; "
	"    q=${x##*:}; q=${q:-0}; "
	"    case \" $told \" in *\" $q \"*) continue;; esac; y=\"$y $q\"; "
	"    case \" $i \" in *\" $p \"*) w=\" $p$w\";; *) w=\"$w $p\";; esac; "
	"  done; "
	"}; "
	"find_them() { "
	"  m=' '; s=\"$i \"; a=; "
	"  take $(grep -Els \"^Max file size +($l) \" /proc/[0-9]*/limits); "
	"  for d in /proc/[0-9]*; do "
	"    { read -r t <$d/stat; } 2>/dev/null || continue; "
	"    p=${d#/proc/}; t=${t##*) }; set -- $t; a=\"$a $p:$1:$2:${4#0}\"; "
	"  done; "
	"  spread; "
	"}; "
	"one() { "
	"  grep -Eqs \"$k\" /proc/$1/environ /proc/$1/cmdline >/dev/null & q=$!; c=0; "
	"  while { read -r t </proc/$q/stat; } 2>/dev/null; do "
	"    case ${t##*) } in [ZX]*) break;; R*) c=0;; *) c=$((c+1));; esac; "
	"    [ $c -gt 40 ] && { kill -9 $q; echo held:$1; return; }; "
	"    sleep 0.1 2>/dev/null || { sleep 1; [ $c = 0 ] || c=$((c+9)); }; "
	"  done; "
	"  wait $q && echo /proc/$1/environ; "
	"}; "
	"each() { "
	"  c=0; "
	"  for p in $o; do "
	"    one $p & c=$((c+1)); [ $((c%16)) = 0 ] || continue; "
	"    wait; now; [ $t -lt $enough ] || { echo part:; return; }; "
	"  done; wait; "
	"}; "
	"look() { "
	"  k=\"SBXFS_JOB[=]($e)\"; o=; files=; part=; "
	"  for x in $a; do "
	"    p=${x%%:*}; case $m$h in *\" $p \"*) continue;; esac; "
	"    o=\"$o $p\"; files=\"$files /proc/$p/environ /proc/$p/cmdline\"; "
	"  done; "
	"  f=$(timeout -s KILL " LOOK_SECONDS " grep -Els \"$k\" $files /dev/null 2>/dev/null); "
	"  case $? in "
	"    125|126|127) f=$(grep -Els \"$k\" $files /dev/null);; "
	"    124|137) now; enough=$((t+10)); f=$(each 2>/dev/null);; "
	"  esac; "
	"  [ \"$f\" ] || return 0; take $f; spread; "
	"}; "
	"[ -r /proc/self/stat ] && command -v grep >/dev/null || { "
	"  find_them() { "
	"    r=; for p in $i; do kill -0 -$p 2>/dev/null && r=\"$r -$p\"; done; "
	"    w=; [ \"$told\" ] || w=$r; "
	"  }; "
	"  look() { :; }; "
	"}; "
	"send() { "
	"  kill -$1 $2 2>/dev/null || { [ \"$u\" ] && $u -n kill -$1 $2 2>/dev/null; }; "
	"}; "
	"tell() { "
	"  [ \"$w\" ] || return; "
	"  for x; do send $x \"$w\"; done; told=\"$told 0$y\"; w=; "
	"}; "
	"now() { "
	"  n=$((n+1)); { read -r t x </proc/uptime; } 2>/dev/null || t=$((n/10)).; t=${t%.*}; "
	"}; "
	"if [ \"$4\" ]; then find_them; tell $4; look; tell $4; exit 0; fi; "
	"hard=; "
	"act() { "
	"  [ \"$r$part\" ] || return; "
	"  now; hard=${hard:-$((t+g))}; "
	"  if [ $t -ge $hard ]; then [ \"$r\" ] && send KILL \"$r\"; else tell TERM CONT; fi; "
	"}; "
	"first=1; part=; "
	"while :; do "
	"  find_them; act; "
	"  if [ $first ] || [ ! \"$r\" ]; then look; act; fi; "
	"  [ \"$r$part\" ] || exit 0; "
	"  [ $t -ge $((hard+10)) ] && exit 1; "
	"  first=; sleep 0.1 2>/dev/null || sleep 1; "
	"done";

void command_build_kill(struct buf *exec, const struct kill_target *targets, size_t count,
			unsigned grace_seconds, const char *signal)
{
	buf_printf(exec, "exec /bin/sh -c ");
	shell_quote(exec, kill_script);
	buf_printf(exec, " kill '");
	for (size_t i = 0; i < count; i++)
		buf_printf(exec, "%s%s", i ? "|" : "", targets[i].token);
	buf_printf(exec, "' '");
	/* In bytes: the shells count in blocks of 512 or of 1024. */
	for (size_t i = 0; i < count; i++)
		buf_printf(exec, "%s%" PRIu64 "|%" PRIu64, i ? "|" : "",
			   command_file_limit(targets[i].token) * 512,
			   command_file_limit(targets[i].token) * 1024);
	buf_printf(exec, "' %u '%s' '", grace_seconds, signal ? signal : "");
	for (size_t i = 0; i < count; i++)
		if (targets[i].pid > 1)
			buf_printf(exec, " %d", targets[i].pid);
	buf_printf(exec, "'");
}

void command_build_check(struct buf *exec)
{
	static const char script[] =
		"m=; for p in bash setsid timeout grep sleep mktemp dd wc; do "
		"  command -v $p >/dev/null 2>&1 || m=\"$m $p\"; done; "
		"[ -r /proc/self/stat ] || m=\"$m /proc\"; "
		"[ -e /sys/fs/cgroup/cgroup.controllers ] || m=\"$m cgroup2\"; "
		"[ \"$m\" ] && echo \"missing$m\"; "
		"echo \"files $(ulimit -f 2>/dev/null)\"";

	buf_printf(exec, "exec /bin/sh -c ");
	shell_quote(exec, script);
}

const char *signal_name(const char *text, int *number)
{
	static const struct { const char *name; int number; } known[] = {
		{ "HUP", 1 }, { "INT", 2 }, { "QUIT", 3 }, { "ILL", 4 }, { "TRAP", 5 },
		{ "ABRT", 6 }, { "BUS", 7 }, { "FPE", 8 }, { "KILL", 9 }, { "USR1", 10 },
		{ "SEGV", 11 }, { "USR2", 12 }, { "PIPE", 13 }, { "ALRM", 14 }, { "TERM", 15 },
		{ "STKFLT", 16 }, { "CHLD", 17 }, { "CONT", 18 }, { "STOP", 19 }, { "TSTP", 20 },
		{ "TTIN", 21 }, { "TTOU", 22 }, { "URG", 23 }, { "XCPU", 24 }, { "XFSZ", 25 },
		{ "VTALRM", 26 }, { "PROF", 27 }, { "WINCH", 28 }, { "IO", 29 }, { "PWR", 30 },
		{ "SYS", 31 },
	};

	if (!strncasecmp(text, "SIG", 3))
		text += 3;
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (!strcasecmp(known[i].name, text)) {
			if (number)
				*number = known[i].number;
			return known[i].name;
		}
	return NULL;
}
