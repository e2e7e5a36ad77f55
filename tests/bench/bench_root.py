#!/usr/bin/python3
"""bench_root.py: root/ against sshfs, rclone mount and plain sftp, on one sshd.

Each run is on a mount of its own (cold); a warm one follows on the same mount. Runs of
the systems take turns. Results are kept in build-check/bench/root.json, a call
replaces what it measures again. Run it by contrib/bench root.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))

import chart                # noqa: E402
import lab                  # noqa: E402
import sheet as sheets      # noqa: E402
import tree                 # noqa: E402
from support import wait_until      # noqa: E402

MiB = 1 << 20


def run(*argv, **kwargs):
    """Run a program; it dies with us when the time is over."""
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL,
                               stdout=kwargs.pop("stdout", subprocess.DEVNULL), **kwargs)
    try:
        status = process.wait()
    except lab.Overdue:
        process.kill()
        raise
    if status:
        raise subprocess.CalledProcessError(status, argv)


class Workload:
    """One line of the table. arrange and check look at the server's disk and are not timed."""

    targets = {}            # round trip -> times sshfs
    sftp_target = None      # times plain sftp
    bytes = count = None    # for figures by the second, or by the piece
    warm = None             # the workload that a second run on the same mount is
    sftp = None             # commands for plain sftp

    def __init__(self, size):
        self.size = size

    def arrange(self, site):
        pass

    def run(self, path):
        raise NotImplementedError

    def arrived(self, site):
        """Has the server all of it? For systems that answer before they have sent it."""
        return True

    def check(self, site):
        pass


# --- streams ----------------------------------------------------------------------

def need_file(site, name, size):
    """A file of random bytes in the site's folder, shared among sites by a hard link."""
    stock, there = site.lab.stock / name, site.disk / name
    if not stock.exists():
        with open("/dev/urandom", "rb") as source, open(stock, "wb") as out:
            for _ in range(size // MiB):
                out.write(source.read(MiB))
    if not there.exists():
        os.link(stock, there)
    return stock


class Read(Workload):
    name, targets, sftp_target = "read", {0: 1.5, 20: 4}, 0.8
    label = "sequential read"
    sftp = "get big /dev/null"

    def __init__(self, size):
        super().__init__(size)
        self.bytes = size.stream
        self.title = f"sequential read, {size.stream // MiB} MiB"

    def arrange(self, site):
        need_file(site, "big", self.bytes)

    def run(self, path):
        run("dd", f"if={path}/big", "of=/dev/null", "bs=1M", "status=none")


class Write(Workload):
    name, targets, sftp_target = "write", {0: 1.2, 20: 1.5}, 0.8
    label = "sequential write"

    def __init__(self, size):
        super().__init__(size)
        self.bytes = size.stream
        self.title = f"sequential write, {size.stream // MiB} MiB"

    def arrange(self, site):
        self.source = need_file(site, "big", self.bytes)
        self.sftp = f"put {self.source} new"
        (site.disk / "new").unlink(missing_ok=True)

    def run(self, path):
        run("dd", f"if={self.source}", f"of={path}/new", "bs=1M", "status=none")

    def arrived(self, site):
        new = site.disk / "new"
        return new.exists() and new.stat().st_size == self.bytes

    def check(self, site):
        run("cmp", self.source, site.disk / "new")
        (site.disk / "new").unlink()


class RandomRead(Workload):
    name = "random"
    label = "4 KiB random read"

    def __init__(self, size):
        super().__init__(size)
        self.count = size.random
        self.title = "4 KiB random read, each"

    def arrange(self, site):
        need_file(site, "big", self.size.stream)
        dice = random.Random(1)
        pages = self.size.stream // 4096
        self.offsets = [dice.randrange(pages) * 4096 for _ in range(self.count)]

    def run(self, path):
        fd = os.open(path / "big", os.O_RDONLY)
        try:
            for offset in self.offsets:
                assert len(os.pread(fd, 4096, offset)) == 4096
        finally:
            os.close(fd)


class Copy(Workload):
    name, targets = "copy", {0: 5, 20: 20}
    label = "cp inside root/"

    def __init__(self, size):
        super().__init__(size)
        self.bytes = size.copy
        self.title = f"cp {size.copy // MiB} MiB inside"

    def arrange(self, site):
        self.source = need_file(site, "medium", self.bytes)
        (site.disk / "copy").unlink(missing_ok=True)

    def run(self, path):
        run("cp", path / "medium", path / "copy")

    def arrived(self, site):
        copy = site.disk / "copy"
        return copy.exists() and copy.stat().st_size == self.bytes

    def check(self, site):
        run("cmp", self.source, site.disk / "copy")


# --- trees ------------------------------------------------------------------------

class Untar(Workload):
    name, targets = "untar", {0: 1, 20: 4}
    label = "untar"

    def __init__(self, size):
        super().__init__(size)
        self.title = f"untar {size.files:,} files"

    def arrange(self, site):
        self.stock = tree.need_stock(site.lab.stock, self.size.files)
        shutil.rmtree(site.disk / "untar", ignore_errors=True)
        (site.disk / "untar").mkdir()

    def run(self, path):
        run("tar", "-xf", self.stock / "tree.tar", "-C", path / "untar")

    def arrived(self, site):
        return sum(len(files) for _, _, files in os.walk(site.disk / "untar")) == self.size.files

    def check(self, site):
        run("diff", "-r", self.stock / "tree", site.disk / "untar/tree")
        shutil.rmtree(site.disk / "untar")


class OnTree(Workload):
    """Something that walks over the files and leaves them as they are."""

    def __init__(self, size):
        super().__init__(size)
        self.title = f"{self.what}, {size.files:,} files"
        if self.warm:
            self.warm = Warm(self)

    def arrange(self, site):
        stock = tree.need_stock(site.lab.stock, self.size.files)
        if not (site.disk / "tree").exists():
            run("cp", "-a", stock / "tree", site.disk / "tree")


class Warm:
    """The same again on the same mount."""

    sftp_target = bytes = count = None

    def __init__(self, cold):
        self.name, self.title = f"{cold.name} warm", f"{cold.title}, warm"
        self.label, self.targets = f"{cold.label}, warm", cold.warm_targets


class Find(OnTree):
    name, what, targets = "find", "find -ls", {0: 2, 20: 10}
    label = "find -ls"
    warm, warm_targets = True, {}

    def run(self, path):
        run("find", path / "tree", "-ls")


class Grep(OnTree):
    name, what, targets = "grep", "grep -r", {0: 2, 20: 10}
    label = "grep -r"
    warm, warm_targets = True, {}

    def run(self, path):
        found = subprocess.run(["grep", "-rlF", tree.NEEDLE, path / "tree"], text=True,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True)
        assert len(found.stdout.splitlines()) == 1, found.stdout


class Status(OnTree):
    name, what, targets = "status", "git status", {0: 2, 20: 5}
    label = "git status"
    warm, warm_targets = True, {0: 1, 20: 1}

    def arrange(self, site):
        super().arrange(site)
        tree.make_repository(site.disk / "tree")

    def run(self, path):
        # Owners look different through some mounts; git must not refuse for that.
        said = subprocess.run(["git", "-c", "safe.directory=*", "-C", path / "tree", "status",
                               "--short"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              text=True, check=True).stdout
        assert not said or "rclone" in str(path), said


class Remove(Workload):
    name, targets = "remove", {}
    label = "rm -r"

    def __init__(self, size):
        super().__init__(size)
        self.title = f"rm -r, {size.files:,} files"

    def arrange(self, site):
        stock = tree.need_stock(site.lab.stock, self.size.files)
        shutil.rmtree(site.disk / "gone", ignore_errors=True)
        run("cp", "-a", stock / "tree", site.disk / "gone")

    def run(self, path):
        run("rm", "-r", path / "gone")

    def check(self, site):
        assert not (site.disk / "gone").exists()


class Compile(Workload):
    name, targets = "compile", {}
    label = "make"

    def __init__(self, size):
        super().__init__(size)
        self.title = f"make, {size.sources} C files"

    def arrange(self, site):
        shutil.rmtree(site.disk / "project", ignore_errors=True)
        tree.make_project(site.disk / "project", self.size.sources)

    def run(self, path):
        run("make", "-s", "-j2", "-C", path / "project")

    def check(self, site):
        run(site.disk / "project/program")


WORKLOADS = [Read, Write, RandomRead, Copy, Untar, Find, Grep, Status, Remove, Compile]


# --- the measuring ----------------------------------------------------------------

@dataclass
class Size:
    stream: int = 1024 * MiB
    copy: int = 256 * MiB
    random: int = 5000
    files: int = 10000
    sources: int = 40


QUICK = Size(stream=128 * MiB, copy=64 * MiB, random=500, files=1000, sources=8)
TINY = Size(stream=4 * MiB, copy=2 * MiB, random=20, files=50, sources=2)


@dataclass
class Plan:
    rounds: int
    budget: float
    limit: float
    systems: list
    spent: dict = field(default_factory=dict)


def one_run(results, workload, site, system, plan):
    """Arrange, mount, measure cold and warm, check."""
    key = workload.name, site.rtt, system.name
    workload.arrange(site)
    extra = {}
    with system.open(site) as path:
        if system.name == "sbxfs":
            pid = site.lab.mount.process.pid
            before = lab.cpu_seconds(pid)
        try:
            with lab.limit(plan.limit):
                if system.mounts:
                    begun = time.perf_counter()
                    workload.run(path)
                    if system.late:
                        wait_until(lambda: workload.arrived(site), plan.limit, 0.05)
                    seconds = time.perf_counter() - begun
                else:
                    idle = lab.timed(path, "pwd")
                    seconds = max(lab.timed(path, workload.sftp) - idle, 1e-6)
        except lab.Overdue:
            seconds, extra["limit"] = None, plan.limit
        if system.name == "sbxfs":
            extra["cpu"] = round(lab.cpu_seconds(pid) - before, 2)
            extra["memory"] = round(lab.memory_peak(pid), 1)
        results.add(*key, seconds, **extra)
        plan.spent[key] = plan.spent.get(key, 0) + (seconds or plan.limit)
        if workload.warm and seconds is not None and system.mounts:
            warm = lab.timed(workload.run, path)
            results.add(workload.warm.name, site.rtt, system.name, warm)
            plan.spent[key] += warm
    if seconds is not None and not system.late:
        workload.check(site)
    told = f"{seconds:8.2f} s" if seconds is not None else f"  > {plan.limit:.0f} s"
    print(f"  {workload.name:<10} {site.rtt:>3} ms  {system.name:<8} {told}"
          + (f"  daemon: {extra['cpu']:.2f} s of CPU, {extra['memory']:.0f} MiB"
             if "cpu" in extra else ""), flush=True)


def measure(results, workload, site, plan):
    systems = [s for s in plan.systems if s.mounts or workload.sftp or workload.name == "write"]
    for system in systems:
        for name in (workload.name, workload.warm.name if workload.warm else None):
            results.begin(name, site.rtt, system.name)
    for number in range(plan.rounds):
        for system in systems:
            spent = plan.spent.get((workload.name, site.rtt, system.name), 0)
            if number and spent + spent / number > plan.budget:
                continue
            try:
                one_run(results, workload, site, system, plan)
            except (subprocess.CalledProcessError, OSError, AssertionError, RuntimeError) as e:
                if system.name in ("sbxfs", "sshfs"):
                    raise
                # What a rival cannot do is no reason to stop.
                print(f"  {workload.name} {site.rtt} ms: {system.name} failed: {e}", flush=True)
                plan.spent[workload.name, site.rtt, system.name] = plan.budget * plan.rounds


def arguments():
    parser = argparse.ArgumentParser(prog="contrib/bench root", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true",
                        help="an eighth of the bytes, a tenth of the files, three rounds")
    parser.add_argument("--selftest", action="store_true", help="seconds: does the bench work?")
    parser.add_argument("--only", default="", help="workloads, by comma: "
                        + ",".join(w.name for w in WORKLOADS))
    parser.add_argument("--rtt", default="0,20", help="round trips in ms, by comma")
    parser.add_argument("--systems", default="sbxfs,sshfs,rclone,sftp")
    parser.add_argument("--rounds", type=int, help="runs of each (5)")
    parser.add_argument("--files", type=int, help="files of the trees (10000)")
    parser.add_argument("--budget", type=float, default=600,
                        help="seconds for all runs of one system at one workload: a slow one "
                        "gets fewer rounds (600)")
    parser.add_argument("--limit", type=float, default=1800,
                        help="seconds after which a run is given up (1800)")
    parser.add_argument("--results", help="the file that keeps them")
    parser.add_argument("--chart", help="the picture that is drawn of them (beside that file)")
    parser.add_argument("--readme", type=Path, help="put the table between the marks of this file")
    parser.add_argument("--show", action="store_true", help="only show the kept results")
    args = parser.parse_args()
    args.rtts = [int(rtt) for rtt in args.rtt.split(",")]
    args.systems = [lab.SYSTEMS[name] for name in args.systems.split(",")]
    args.size = TINY if args.selftest else QUICK if args.quick else Size()
    args.size.files = args.files or args.size.files
    args.rounds = args.rounds or (1 if args.selftest else 3 if args.quick else 5)
    name = "root-selftest" if args.selftest else "root-quick" if args.quick else "root"
    args.results = args.results or Path(lab.find_sbxfs()).parent / f"bench/{name}.json"
    return args


def main():
    args = arguments()
    wanted = args.only.split(",") if args.only else [w.name for w in WORKLOADS]
    unknown = set(wanted) - {w.name for w in WORKLOADS}
    if unknown:
        sys.exit(f"contrib/bench root: there is no workload {', '.join(sorted(unknown))}")
    workloads = [w(args.size) for w in WORKLOADS]
    results = sheets.Sheet(args.results)
    if not args.show:
        results.versions = lab.versions([s.name for s in args.systems])
        plan = Plan(args.rounds, args.budget, args.limit, args.systems)
        place = lab.Lab(args.rtts, need=6 * args.size.stream + 2048 * MiB)
        try:
            for workload in workloads:
                for site in place.sites:
                    if workload.name in wanted:
                        measure(results, workload, site, plan)
        finally:
            place.close()
        results.notes["memory of the daemon, peak"] = f"{place.peak:.0f} MiB (at most 128 wanted)"
        results.save()
    lines = [line for w in workloads for line in (w, w.warm) if line]
    picture = Path(args.chart or Path(args.results).with_suffix(".svg"))
    picture.write_text(chart.draw(results, lines, args.rtts))
    if args.readme:
        sheets.put_into(args.readme, sheets.markdown(results, lines, args.rtts))
    missed = sheets.show(results, lines, args.rtts, [s.name for s in args.systems])
    if missed:
        print("\nMissed: " + "; ".join(missed))
    return 1 if missed and not args.selftest else 0


if __name__ == "__main__":
    sys.exit(main())
