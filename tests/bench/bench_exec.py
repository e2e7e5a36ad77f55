#!/usr/bin/python3
"""bench_exec.py: what a command, a listing and a dead network cost on the fake backend.

Prints a line a measurement: what, median, target; fails when a target is missed.
Run it by contrib/bench, or with SBXFS=the daemon to measure. The machine should be idle.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "mount"))

from sheet import Lines     # noqa: E402
from support import CONFIG, Mount, find_sbxfs, wait_until     # noqa: E402

ROUNDS = 100
LONG = 3600 * 1000
lines = Lines("exec", 58)
show = lines.show


def timed(call):
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1000


def medians(calls, rounds=None):
    """The median of each call in ms; they take turns, so that all meet the same machine."""
    times = [[] for _ in calls]
    for call in calls:
        call()
    for _ in range(rounds or ROUNDS):
        for list_of, call in zip(times, calls):
            list_of.append(timed(call))
    return [statistics.median(list_of) for list_of in times]


# --- a warm command -----------------------------------------------------------

def quiet(*argv, **kwargs):
    return lambda: subprocess.run(argv, check=True, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.DEVNULL, **kwargs)


def bench_command(mount):
    box = mount.box()
    cmd, result = str(box / "cmd"), str(box / "exit")

    def by_calls():
        fd = os.open(cmd, os.O_WRONLY)
        os.write(fd, b"true\n")
        os.close(fd)
        fd = os.open(result, os.O_RDONLY)
        assert os.read(fd, 100) == b"0\n"
        os.close(fd)

    def by_handle():
        fd = os.open(cmd, os.O_RDWR)
        os.write(fd, b"true\n")
        assert os.read(fd, 100) == b""
        os.close(fd)

    socket = f"{mount.folder}/run/master"
    ssh = ["ssh", "-F", str(box / "ssh_config"), "-S", socket]
    subprocess.run([*ssh, "-M", "-f", "-N", box.name], check=True, stdin=subprocess.DEVNULL)
    try:
        shell, master, calls, handle = medians([
            quiet("sh", "-c", "echo true > cmd; cat exit", cwd=box.path),
            quiet(*ssh, box.name, "true"), by_calls, by_handle])
    finally:
        subprocess.run([*ssh, "-O", "exit", box.name], check=True, stderr=subprocess.DEVNULL)
    show("ssh host true, over a ControlMaster connection", master, "ms")
    show("sh -c 'echo true > cmd; cat exit'", shell, "ms")
    show("the same file calls without a process", calls, "ms")
    show("write and read on one handle of cmd", handle, "ms")
    show("ratio of the shell's line to ssh", shell / master, "", 2)
    show("ratio of the file calls to ssh", calls / master, "", 2)
    box.destroy()


# --- with every network dead --------------------------------------------------

def looks(mount, box):
    """What people and prompts do all the time, as the system calls behind it."""
    def ls_l(folder):
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name != "root":
                    entry.stat(follow_symlinks=False)

    def cat(path):
        fd = os.open(path, os.O_RDONLY)
        os.read(fd, 100)
        os.close(fd)

    def unknown():
        try:
            os.stat(mount / "nobody")
        except FileNotFoundError:
            pass

    return {
        "ls -l of the mount": lambda: ls_l(mount.path),
        "ls -l of a sandbox": lambda: ls_l(box.path),
        "stat": lambda: os.stat(box / "status"),
        "df": lambda: os.statvfs(box.path),
        "cat status": lambda: cat(box / "status"),
        "lookup of an unknown name": unknown,
    }


def bench_dead_networks(mount):
    boxes = [mount.box() for _ in range(5)]
    for box in boxes:
        box.control("silent")
    calls = looks(mount, boxes[0])
    for what, median in zip(calls, medians(list(calls.values()))):
        show(f"{what}, networks just gone silent", median, "ms", 1)
    for box in boxes:
        box.wait_status("unreachable")
    for what, median in zip(calls, medians(list(calls.values()))):
        show(f"{what}, networks known dead", median, "ms", 1)
    for box in boxes:
        box.control("revive")
        box.destroy()


# --- a thousand sandboxes -----------------------------------------------------

def bench_thousand(count=1000):
    mount = Mount(CONFIG).start()
    try:
        for n in range(count):
            mount.control(f"crowd-{n}", f"boot {LONG}")
        begun = time.perf_counter()
        for n in range(count):
            os.mkdir(mount / f"crowd-{n}")
        show(f"mkdir, each of {count}", (time.perf_counter() - begun) * 1000 / count, "ms")
        wait_until(lambda: (mount / f"crowd-{count - 1}/status").read_text() == "booting\n")
        mount.stop()
        for record in (mount.fake / "records").iterdir():
            record.write_text(re.sub("^state .*$", "state up", record.read_text(), flags=re.M))
        mount.start()
        wait_until(lambda: (mount / f"crowd-{count - 1}/status").read_text() == "running\n")
        names, ls, ls_l = medians([lambda: os.listdir(mount), quiet("ls", mount),
                                   quiet("ls", "-l", mount)], 30)
        show(f"listing {count} sandboxes, system calls", names, "ms", 50)
        show(f"ls of {count} sandboxes", ls, "ms", 50)
        show(f"ls -l of {count} sandboxes", ls_l, "ms")
        status = Path(f"/proc/{mount.process.pid}/status").read_text()
        rss = int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) / 1024
        show(f"resident memory with {count} sandboxes, idle", rss, "MiB", 32)
    finally:
        mount.clean()


def main():
    parser = argparse.ArgumentParser(prog="contrib/bench exec", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--selftest", action="store_true", help="seconds: does the bench work?")
    args = parser.parse_args()
    if args.selftest:
        global ROUNDS
        ROUNDS = 2
    mount = Mount(CONFIG).start()
    try:
        status = Path(f"/proc/{mount.process.pid}/status").read_text()
        show("resident memory of a fresh daemon",
             int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) / 1024, "MiB", 32)
        bench_command(mount)
        bench_dead_networks(mount)
    finally:
        mount.clean()
    bench_thousand(20 if args.selftest else 1000)
    return lines.end(Path(find_sbxfs()).parent, judge=not args.selftest)


if __name__ == "__main__":
    sys.exit(main())
