#!/usr/bin/python3
"""bench_jobs.py: what a job costs against a bare SSH channel; its output's throughput; a hundred at once.

Latency: `true` through an open read-write handle of cmd, against a channel on an open
connection (bare.c) to the same sshd, in turns; in a new sandbox, and in one with thousands
of finished jobs. Throughput: 1 GiB of random bytes to stdout and another to stderr,
against `ssh HOST cat`. Run it by contrib/bench jobs.
"""

import argparse
import hashlib
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))

import lab                  # noqa: E402
from sheet import Lines     # noqa: E402
from support import find_sbxfs, read_all, write_all     # noqa: E402

MiB = 1 << 20
CONFIG = """\
[mount]
backends = fake
[limits]
jobs = 20000
[fake]
sharedkey = yes
"""
lines = Lines("jobs")
show = lines.show


# --- latency ----------------------------------------------------------------------

class Bare:
    """bare.c on an open connection to that site."""

    def __init__(self, site, command="true"):
        self.process = subprocess.Popen(
            [Path(find_sbxfs()).parent / "tests/bench/bare", str(site.via), site.login(),
             f"{site.lab.mount.fake}/client_key", command], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __call__(self):
        """Milliseconds."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline()) / 1000

    def stop(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(10)


def by_handle(cmd):
    """Milliseconds from the write of a command until its end, on one handle."""
    fd = os.open(cmd, os.O_RDWR)
    try:
        begun = time.perf_counter()
        os.write(fd, b"true\n")
        assert os.read(fd, 100) == b""
        return (time.perf_counter() - begun) * 1000
    finally:
        os.close(fd)


def by_files(box):
    """The same with cmd and exit, as `echo true > cmd; cat exit` does it."""
    begun = time.perf_counter()
    box.run("true")
    assert box.exit() == "0"
    return (time.perf_counter() - begun) * 1000


def latency(site, rounds, when):
    bare, cmd = Bare(site), site.box / "cmd"
    bares, handles, files = [], [], []
    for call in (bare, lambda: by_handle(cmd), lambda: by_files(site.box)):
        for _ in range(3):
            call()
    for _ in range(rounds):
        bares.append(bare())
        handles.append(by_handle(cmd))
        files.append(by_files(site.box))
    bare.stop()
    base, handle, file = (statistics.median(times) for times in (bares, handles, files))
    show(f"bare channel exec of true, {when}", base, "ms")
    show(f"true by an open handle of cmd, {when}", handle, "ms")
    show("  times the bare channel", handle / base, "", 1.5)
    show(f"true by cmd and exit, {when}", file, "ms")
    return handle


def make_history(box, count):
    """That many finished jobs, eight at a time."""
    def worker(share):
        for _ in range(share):
            by_handle(box / "cmd")

    threads = [threading.Thread(target=worker, args=(count // 8,)) for _ in range(8)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    show(f"jobs a second, {count} of them by 8 users", count / (time.perf_counter() - begun), "/s")


def bench_latency(place, size):
    site = place.sites[0]
    new = latency(site, size.rounds, "new sandbox")
    make_history(site.box, size.history)
    kept = len(os.listdir(site.box / "jobs")) - 1
    old = latency(site, size.rounds, f"{kept} finished jobs")
    show(f"  with {kept} finished jobs, times the new sandbox's", old / new, "", 1.25)


# --- throughput -------------------------------------------------------------------

def by_ssh(site, name):
    """Seconds that `ssh HOST cat` takes for it."""
    command = ["ssh", *site.ssh_options(), "-p", str(site.via), f"{site.login()}@127.0.0.1"]
    return (lab.timed(lambda: subprocess.run([*command, f"cat {lab.WORK}/{name}"], check=True,
                                             **lab.HIDDEN))
            - lab.timed(lambda: subprocess.run([*command, "true"], check=True, **lab.HIDDEN)))


def by_job(site, command, streams, want):
    """Seconds from the write to the end of all streams, each read as it comes."""
    box = site.box
    begun = time.perf_counter()
    box.run(command)
    job = box / "jobs" / box.latest()
    readers = [subprocess.Popen(["dd", f"if={job}/{stream}", "of=/dev/null", "bs=1M", "status=none"])
               for stream in streams]
    assert [reader.wait() for reader in readers] == [0] * len(readers)
    assert (job / "exit").read_text() == "0\n"
    seconds = time.perf_counter() - begun
    for stream in streams:
        with open(job / stream, "rb") as f:
            assert hashlib.file_digest(f, "md5").digest() == want, f"{stream} differs"
    os.rmdir(job)
    return seconds


def spool_only(site, command):
    """Seconds until the job has ended, with nobody reading what it prints."""
    box = site.box
    begun = time.perf_counter()
    box.run(command)
    job = box / "jobs" / box.latest()
    assert (job / "exit").read_text() == "0\n"
    seconds = time.perf_counter() - begun
    os.rmdir(job)
    return seconds


def bench_throughput(place, size):
    site, amount = place.sites[0], size.stream
    data = os.urandom(MiB)
    with open(site.disk / "big", "wb") as f:
        for n in range(amount // MiB):
            f.write(n.to_bytes(8, "big") + data[8:])
    with open(site.disk / "big", "rb") as f:
        want = hashlib.file_digest(f, "md5").digest()
    one, two = f"cat {lab.WORK}/big\n", f"cat {lab.WORK}/big & cat {lab.WORK}/big >&2; wait\n"
    kinds = {
        "ssh HOST cat": (lambda: by_ssh(site, "big"), 1),
        "stdout, read as it comes": (lambda: by_job(site, one, ["stdout"], want), 1),
        "stdout and stderr at once, both read": (
            lambda: by_job(site, two, ["stdout", "stderr"], want), 2),
        "stdout and stderr at once, nobody reads": (lambda: spool_only(site, two), 2),
    }
    rates = {what: [] for what in kinds}
    pid = place.mount.process.pid
    cpu = {}
    for _ in range(size.streams):
        for what, (call, streams) in kinds.items():
            before = lab.cpu_seconds(pid)
            rates[what].append(streams * amount / call() / 1e6)
            cpu[what] = lab.cpu_seconds(pid) - before
    ssh = statistics.median(rates.pop("ssh HOST cat"))
    show(f"ssh HOST cat, {amount // MiB} MiB", ssh, "MB/s")
    for what, list_of in rates.items():
        rate = statistics.median(list_of)
        show(f"a job's {what}", rate, f"MB/s, daemon {cpu[what]:.1f} s of CPU")
        show("  times ssh HOST cat", rate / ssh, "", 0.8, least=True)
    show("memory of the daemon, peak", lab.memory_peak(pid), "MiB", 128)


# --- a hundred at once --------------------------------------------------------------

def bench_hundred(place, size):
    box, count = place.sites[0].box, size.crowd
    fds = [os.open(box / "cmd", os.O_RDWR) for _ in range(count)]
    begun = time.perf_counter()
    for n, fd in enumerate(fds):
        write_all(fd, f"echo {n}\n".encode())
    # A read starts each; whoever reads waits, so a thread a handle.
    out = [None] * count

    def read(n):
        out[n] = read_all(fds[n])

    threads = [threading.Thread(target=read, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - begun
    assert out == [b"%d\n" % n for n in range(count)]
    for fd in fds:
        os.close(fd)
    show(f"{count} jobs at once, until the last has ended", seconds * 1000, "ms")
    show("  a job", seconds * 1000 / count, "ms")


class Size:
    rounds, history, stream, streams, crowd = 300, 10000, 1024 * MiB, 5, 100


class Quick(Size):
    rounds, history, stream, streams = 100, 1000, 256 * MiB, 3


class Tiny(Size):
    rounds, history, stream, streams, crowd = 3, 16, 4 * MiB, 1, 10


PARTS = {"latency": bench_latency, "throughput": bench_throughput, "hundred": bench_hundred}


def main():
    parser = argparse.ArgumentParser(prog="contrib/bench jobs", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="less of each")
    parser.add_argument("--selftest", action="store_true", help="seconds: does the bench work?")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, by comma")
    parser.add_argument("--rtt", type=int, default=0, help="round trip in ms (0)")
    args = parser.parse_args()
    size = Tiny if args.selftest else Quick if args.quick else Size
    place = lab.Lab([args.rtt], need=4 * size.stream + 1024 * MiB, config=CONFIG)
    try:
        for part in args.only.split(","):
            PARTS[part](place, size)
    finally:
        place.close()
    return lines.end(Path(find_sbxfs()).parent, judge=not args.selftest)


if __name__ == "__main__":
    sys.exit(main())
