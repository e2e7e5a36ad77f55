#!/usr/bin/python3
"""bench_many.py: four sandboxes at once; folders of 50,000 entries; 1,000 to 100,000 files.

Four sandboxes that are read at once should give 1.5 times the bytes of one, or the bench says
what is full. A listing with attributes may take twice what `sftp ls -l` needs. Time a
file may not grow with the number of files. Run it by contrib/bench many.
"""

import argparse
import contextlib
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))

import lab                  # noqa: E402
import tree                 # noqa: E402
from bench_root import need_file, run       # noqa: E402
from sheet import Lines     # noqa: E402
from support import find_sbxfs, process_state      # noqa: E402

MiB = 1 << 20
lines = Lines("many", 72)


# --- four at once -----------------------------------------------------------------

def busy():
    """Jiffies that all processors have worked, and have been there."""
    fields = [int(f) for f in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    return sum(fields) - fields[3] - fields[4], sum(fields)


# Whose work it is, by the name of the program. What is left is the kernel's own and others'.
PARTIES = {"sshd": "sshd", "sftp-server": "sftp-server", "relay": "the relay"}


def spent():
    """Seconds of processor time so far of each process of PARTIES: {(name, pid): seconds}."""
    seconds = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        _, name = process_state(pid)
        if name in PARTIES:
            with contextlib.suppress(OSError):
                seconds[name, pid] = lab.cpu_seconds(pid)
    return seconds


def spent_since(before):
    """The same since then by party, without those that have ended (of an earlier mount)."""
    seconds = dict.fromkeys(PARTIES, 0.0)
    for (name, pid), now in spent().items():
        seconds[name] += now - before.get((name, pid), 0)
    return seconds


def children_spent():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def read_together(place, sites, size):
    """
    Bytes a second of them all; of all the processor time there was, how much was spent, and who
    spent it: the daemon's one thread (here 1 is one processor), the readers, PARTIES.
    """
    with lab.SYSTEMS["sbxfs"].open(sites[0]):
        for site in sites:
            site.box.wait_status("running")
        paths = [f"{site.box.path}/root{site.home}/{lab.WORK}/big" for site in sites]
        pid = place.mount.process.pid
        worked, there, cpu = *busy(), lab.cpu_seconds(pid)
        parties, readers_cpu = spent(), children_spent()
        begun = time.perf_counter()
        readers = [subprocess.Popen(["dd", f"if={path}", "of=/dev/null", "bs=1M", "status=none"])
                   for path in paths]
        assert [reader.wait() for reader in readers] == [0] * len(readers)
        seconds = time.perf_counter() - begun
        worked_after, there_after = busy()
        after = spent_since(parties)
        return (len(sites) * size / seconds / 1e6, (worked_after - worked) / (there_after - there),
                (lab.cpu_seconds(pid) - cpu) / seconds, (children_spent() - readers_cpu) / seconds,
                *(after[name] / seconds for name in PARTIES))


def bench_four(size, rtts):
    for rtt in rtts:
        place = lab.Lab([rtt], need=8 * size.stream, copies=4)
        try:
            for site in place.sites:
                need_file(site, "big", size.stream)
            one, four = [], []
            for _ in range(size.rounds):
                one.append(read_together(place, place.sites[:1], size.stream))
                four.append(read_together(place, place.sites, size.stream))
        finally:
            place.close()
        alone, together = ([statistics.median(column) for column in zip(*runs)]
                           for runs in (one, four))
        # What one takes of a resource cannot be had more often than it is there.
        rooms = {"the processors": 1 / alone[1], "the daemon's thread": 1 / alone[2]}
        full = min(rooms, key=rooms.get)
        lines.show(f"one sandbox read, {rtt} ms", alone[0], "MB/s")
        lines.show(f"four sandboxes read at once, {rtt} ms", together[0], "MB/s")
        for n, what in enumerate(rooms, 1):
            lines.show(f"  {what}, busy with one, of 1", alone[n], "")
            lines.show(f"  {what}, busy with four, of 1", together[n], "")
        for name, share in zip(["the readers", *PARTIES.values()], together[3:]):
            lines.show(f"  {name}, of {os.cpu_count()} processors", share, "")
        gain = together[0] / alone[0]
        lines.show("  times one sandbox", gain, "", 1.5 if rooms[full] >= 1.5 else None, least=True)
        if gain < 1.5 and rooms[full] < 1.5:
            print(f"  full: {full}, of which one sandbox takes so much that "
                  f"{rooms[full]:.2f} times is all there is", flush=True)


# --- a large folder ------------------------------------------------------------------

def bench_listing(size, rtts):
    place = lab.Lab(rtts, need=512 * MiB)
    try:
        for site in place.sites:
            folder = site.disk / "many"
            folder.mkdir()
            for n in range(size.entries):
                (folder / f"entry-{n:06}").touch()
            mine, plain = [], []
            for _ in range(size.rounds):
                with lab.SYSTEMS["sbxfs"].open(site) as path:
                    mine.append(lab.timed(run, "ls", "-l", path / "many"))
                with lab.SYSTEMS["sftp"].open(site) as sftp:
                    idle = lab.timed(sftp, "pwd")
                    plain.append(max(lab.timed(sftp, "ls -l many") - idle, 1e-3))
            mine, plain = statistics.median(mine), statistics.median(plain)
            lines.show(f"sftp ls -l of {size.entries} entries, {site.rtt} ms", plain, "s")
            lines.show(f"ls -l of {size.entries} entries, cold, {site.rtt} ms", mine, "s")
            lines.show("  times sftp", mine / plain, "", 2)
        lines.show("memory of the daemon, peak", place.peak, "MiB", 128)
    finally:
        place.close()


# --- from few files to many ------------------------------------------------------------

def on_files(place, site, count, steps):
    """Milliseconds a file for each step on a tree of so many."""
    stock = tree.need_stock(place.stock, count)
    shutil.rmtree(site.disk / "tree", ignore_errors=True)
    works = {
        "untar": lambda path: run("tar", "-xf", stock / "tree.tar", "-C", path),
        "find -ls": lambda path: run("find", path / "tree", "-ls"),
        "grep -r": lambda path: subprocess.run(
            ["grep", "-rlF", tree.NEEDLE, path / "tree"], check=True, **lab.HIDDEN),
        "rm -r": lambda path: run("rm", "-r", path / "tree"),
    }
    for step, work in works.items():
        with lab.SYSTEMS["sbxfs"].open(site) as path:
            steps.setdefault(step, {}).setdefault(count, []).append(
                lab.timed(work, path) * 1000 / count)


def bench_scale(size, rtts):
    place = lab.Lab([0], need=1536 * MiB + 15000 * max(size.counts))
    steps = {}
    try:
        for number in range(size.rounds):
            for count in size.counts:
                if number == 0 or count < 50000:
                    on_files(place, place.sites[0], count, steps)
    finally:
        place.close()
    least, most = min(size.counts), max(size.counts)
    for step, by_count in steps.items():
        medians = {count: statistics.median(times) for count, times in by_count.items()}
        for count, median in medians.items():
            lines.show(f"{step} of {count} files, a file", median, "ms")
        lines.show(f"  {most} files, times {least}", medians[most] / medians[least], "", 1.5)
    lines.show("memory of the daemon, peak", place.peak, "MiB", 128)


class Size:
    rounds, stream, entries, counts = 5, 512 * MiB, 50000, (1000, 10000, 100000)


class Quick(Size):
    rounds, stream, entries, counts = 3, 128 * MiB, 20000, (1000, 10000)


class Tiny(Size):
    rounds, stream, entries, counts = 1, 4 * MiB, 100, (20, 40)


PARTS = {"four": bench_four, "listing": bench_listing, "scale": bench_scale}


def main():
    parser = argparse.ArgumentParser(prog="contrib/bench many", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="less of each")
    parser.add_argument("--selftest", action="store_true", help="seconds: does the bench work?")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, by comma")
    parser.add_argument("--rtt", default="0,20", help="round trips in ms, by comma")
    args = parser.parse_args()
    size = Tiny if args.selftest else Quick if args.quick else Size
    for part in args.only.split(","):
        PARTS[part](size, [int(rtt) for rtt in args.rtt.split(",")])
    return lines.end(Path(find_sbxfs()).parent, judge=not args.selftest)


if __name__ == "__main__":
    sys.exit(main())
