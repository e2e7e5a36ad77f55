#!/usr/bin/python3
"""bench_kvm.py: mkdir to the first command done: booted, cloned, from the pool; snapshots; costs.

Real virtual machines of the image debian (sbxfs-image build debian), on KVM where it
works and else in emulation; the ratios are what counts. Run it by contrib/bench kvm.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "mount"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "kvm"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from drive import build_folder, images_folder       # noqa: E402
from sheet import Lines                             # noqa: E402
from support import Mount, wait_until, write   # noqa: E402

CONFIG = """\
[mount]
backends = kvm
[defaults]
memory = {memory}
disk = 4G
cpus = 2
[kvm]
images = {images}
templates = {templates}
pool = {pool}
[limits]
trash = 0
sandboxes = 1000
"""
MIB = 1 << 20
lines = Lines("kvm")


def show(what, seconds, target=None, least=False, unit="s", note=""):
    lines.show(what, seconds, unit, target, least)
    if note:
        print(f"    {note}", flush=True)


class Site:
    """A mount of its own; what is in it goes at the end."""

    def __init__(self, memory, templates="on", pool=0):
        self.mount = Mount(CONFIG.format(images=images_folder(), templates=templates, pool=pool,
                                         memory=memory))
        self.mount.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for box in Path(self.mount.path).iterdir():
            box.rmdir()
        wait_until(lambda: not list(Path(self.mount.path).iterdir()), 120)
        self.mount.stop()
        self.mount.clean()

    def info(self, name):
        return json.loads((self.mount / name / "info.json").read_text())

    def first_command(self, name):
        """Seconds from mkdir until status is running, and until a command is done."""
        began = time.monotonic()
        box = self.mount / name
        box.mkdir()
        write(box / "cmd", "true")
        assert (box / "exit").read_text() == "0\n", (box / "error").read_text()
        return time.monotonic() - began

    def destroy(self, name):
        (self.mount / name).rmdir()
        wait_until(lambda: not (self.mount / name).exists(), 120)


def stages(info):
    """What the backend tells of a start: {"files": 12, ...} in ms."""
    return {k: int(v) for k, v in re.findall(r"(\w+)=(\d+)", info.get("start_ms", ""))}


def median_stages(all_stages):
    return {key: statistics.median(s.get(key, 0) for s in all_stages) for key in all_stages[0]}


def processor_seconds(pid):
    """What a process has used, its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Starts:
    """Starts of one kind: how long each took, its steps, and what QEMU worked for it."""

    def __init__(self, title, site):
        self.title, self.site, self.info = title, site, None
        self.took, self.steps, self.worked = [], [], []

    def measure(self):
        self.took.append(self.site.first_command("box"))
        self.info = self.site.info("box")
        self.worked.append(processor_seconds(self.info["pid"]))
        self.steps.append(stages(self.info))
        self.site.destroy("box")

    def report(self):
        """The median, and that of each step."""
        step, took = median_stages(self.steps), statistics.median(self.took)
        show(f"{self.title}, to the first command done ({self.info['accel']})", took,
             note=" ".join(f"{k} {v:.0f}" for k, v in step.items()) +
             f" login and command {took * 1000 - sum(step.values()):.0f} ms; "
             + self.info.get("start", ""))
        show("    processor time of its QEMU until then", statistics.median(self.worked))
        return step


def measure_starts(options, site):
    """In turns, so that what else the machine does meets both."""
    with Site(options.memory, templates="off") as cold_site:
        cold, warm = Starts("cold boot", cold_site), Starts("clone of the template", site)
        for _ in range(options.rounds):
            cold.measure()
            warm.measure()
    cold.report()
    step = warm.report()
    show("clone against cold boot, median of the rounds (10 is the aim)",
         statistics.median(c / w for c, w in zip(cold.took, warm.took)), 6, least=True, unit="x")
    show("the same in processor time of QEMU, which does not depend on other load",
         statistics.median(cold.worked) / statistics.median(warm.worked), unit="x")
    show("the host's part of it: files, QEMU, state",
         (step["files"] + step["qemu"] + step["state"]) / 1000, 0.25)


def timed(action, done, timeout=120):
    began = time.monotonic()
    action()
    wait_until(done, timeout, 0.01)
    return time.monotonic() - began


def measure_snapshots(site):
    first = site.first_command("box")
    box, mount = site.mount / "box", site.mount

    def running():
        return (box / "status").read_text() == "running\n"

    def snapshot():
        (box / "snapshots/one").mkdir()
    took = timed(snapshot, lambda: (box / "snapshots/one").stat().st_size > 0)
    size = (box / "snapshots/one").stat().st_size
    show(f"snapshot ({size >> 20} MiB)", took)
    took = timed(lambda: write(box / "ctl", "restore one"), lambda: not running())
    took += timed(lambda: None, running)
    show("restore, until it runs", took)
    took = timed(lambda: write(box / "ctl", "suspend"),
                 lambda: (box / "status").read_text() == "stopped\n")
    show("suspend", took)
    took = timed(lambda: write(box / "ctl", "start"), running)
    show("start of a suspended one, until it runs", took)
    draft = mount / ".sbxfs/new/copy"
    for title, origin in (("of one that runs", "box"), ("of a snapshot", "box/one")):
        draft.mkdir()
        write(draft / "from", origin)
        began = time.monotonic()
        os.rename(draft, mount / "copy")
        write(mount / "copy/cmd", "true")
        assert (mount / "copy/exit").read_text() == "0\n"
        show(f"clone {title}, to the first command done", time.monotonic() - began)
        site.destroy("copy")
    site.destroy("box")
    return first


def measure_many(site, count):
    names = [f"c{n}" for n in range(count)]
    began = time.monotonic()
    for name in names:
        (site.mount / name).mkdir()
        write(site.mount / name / "cmd", "hostname")
    for name in names:
        assert (site.mount / name / "stdout").read_text() == f"{name}\n"
    took = time.monotonic() - began
    costs = [site.info(name) for name in names]
    show(f"{count} clones at once, until all have run a command", took)
    show("private memory of each, at most", max(int(c["memory_private"]) for c in costs) / MIB,
         120, unit="MiB")
    show("disk of each, at most", max(int(c["disk_used"]) for c in costs) / MIB, 30, unit="MiB")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clones", type=int, default=20)
    parser.add_argument("--memory", default="512M")
    parser.add_argument("--only", default="start,snapshots,many")
    parser.add_argument("--selftest", action="store_true", help="see only that it works")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.selftest or options.quick:
        options.rounds, options.clones = 1, 3
    if options.selftest:
        options.only, options.clones = "many", 2
    image = images_folder() / "debian"
    if not shutil.which("qemu-system-x86_64") or not (image / "image.json").exists():
        print(f"skipped: there is no QEMU, or no image debian in {images_folder()}")
        return 0
    if json.loads((image / "image.json").read_text()).get("guest", 1) < 2:
        print("skipped: the image debian was built by an earlier sbxfs-image")
        return 0
    if not [found for found in image.resolve().glob(
            f"templates/*-2x{options.memory}-*/template.json") if '"files"' in found.read_text()]:
        subprocess.run([build_folder() / "sbxfs-image", "template", "debian", "2",
                        options.memory, "4G"], check=True)
    with Site(options.memory) as site:
        if "start" in options.only:
            measure_starts(options, site)
        if "snapshots" in options.only:
            measure_snapshots(site)
        if "many" in options.only:
            measure_many(site, options.clones)
    if "start" in options.only:
        with Site(options.memory, pool=2) as site:
            site.first_command("first")

            def waiting():
                pools = list((site.mount.folder / "state/sbxfs/kvm").glob(".pool-*/vm.json"))
                return len(pools) == 2 and all('"cloning":\ttrue' in p.read_text() for p in pools)
            took = []
            for n in range(options.rounds):
                wait_until(waiting, 120, 0.1)
                took.append(site.first_command(f"box{n}"))
                assert site.info(f"box{n}").get("from_pool"), "not from the pool"
                steps = stages(site.info(f"box{n}"))
            show("from the pool, to the first command done", statistics.median(took),
                 note=f"identity {steps['guest']} ms")
    return lines.end(build_folder(), not options.selftest)


if __name__ == "__main__":
    sys.exit(main())
