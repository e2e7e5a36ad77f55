"""A fork bomb, a memory hog and a disk filler, each in one sandbox, at once, and a calm one."""

import errno
import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from drive import GIB, MIB, images_folder
from support import Mount, refused, wait_until, write
from test_clones import template     # noqa: F401  (makes one)
from test_metrics import samples, value

MEMORY, DISK, BOXES = 512 * MIB, 4 * GIB, 4
HOST = 2300 * MIB       # the host's disk, as a file system of its own
FLOOR = 1700 * MIB
CONFIG = f"""\
[mount]
backends = kvm
[defaults]
memory = {MEMORY >> 20}M
disk = {DISK >> 30}G
[limits]
memory = {BOXES * MEMORY >> 20}M
disk = {BOXES * DISK >> 30}G
free = {FLOOR >> 20}M
trash = 0
[kvm]
images = {{images}}
accel = tcg
"""
# All of the guest's disk but a GiB is reserved, which takes nothing of the host's; then it writes.
FILL = """free=$(df --output=avail -k / | tail -n 1)
fallocate -l $(( free - 1024 * 1024 ))K /reserved && cat /dev/zero >/filler"""
HOG = "exec python3 -c \"\nall = []\nwhile True:\n\tall.append(b'x' * (8 << 20))\""
BOMB = "bomb() { bomb | bomb & }; bomb; sleep 100000"


@pytest.fixture
def mount():
    mount = Mount(CONFIG.format(images=images_folder()))
    state = mount.folder / "state"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={HOST},mode=700", "none", state],
                      stderr=subprocess.DEVNULL).returncode:
        mount.clean()
        pytest.skip("a disk of its own needs root")
    try:
        mount.start()
        yield mount
        for path in Path(mount.path).iterdir():
            path.rmdir()
        wait_until(lambda: not list(Path(mount.path).iterdir()), 60)
        mount.stop()
    finally:
        subprocess.run(["umount", "-l", state], check=True)
        mount.clean()


def status(box):
    return (box / "status").read_text().strip()


def info(box):
    return json.loads((box / "info.json").read_text())


def job(box, command):
    """Starts it; its folder."""
    write(box / "cmd", command + "\n")
    return box / "jobs" / os.readlink(box / "jobs/latest")


def answer(box):
    """Seconds that a command takes to say something."""
    began = time.monotonic()
    assert (job(box, "echo ok") / "stdout").read_text() == "ok\n"
    return time.monotonic() - began


def free(mount):
    fs = os.statvfs(mount.folder / "state")
    return fs.f_bavail * fs.f_frsize


def errors(found, number):
    """How many calls of mkdir were refused so."""
    return value(found, "sbxfs_request_errors_total", operation="mkdir", errno=number)


def check_metrics(mount, boxes):
    """What is promised is counted, and never more than the limits; returns all there is."""
    found = samples(mount)
    there = sum(v for (name, labels), v in found.items()
                if name == "sbxfs_sandboxes" and ("backend", "kvm") in labels)
    assert there == value(found, "sbxfs_used_sandboxes", backend="kvm") == boxes
    for what, each in (("memory", MEMORY), ("disk", DISK)):
        limit = value(found, f"sbxfs_limit_{what}_bytes", backend="kvm")
        used = value(found, f"sbxfs_used_{what}_bytes", backend="kvm")
        assert limit == BOXES * each and used <= boxes * each, (what, used)
    return found


@pytest.mark.deadline(400)
def test_others_still_answer(mount):
    calm, bomb, hog, filler = boxes = [mount / name for name in ("calm", "bomb", "hog", "filler")]
    for box in boxes:
        box.mkdir()
    refused(errno.EDQUOT, os.mkdir, mount / "fifth")
    for box in boxes:
        wait_until(lambda box=box: status(box) == "running", 180)
    before = max(answer(calm) for _ in range(3))
    found = check_metrics(mount, BOXES)
    assert value(found, "sbxfs_used_memory_bytes", backend="kvm") == BOXES * MEMORY
    assert value(found, "sbxfs_used_disk_bytes", backend="kvm") == BOXES * DISK
    assert value(found, "sbxfs_sandboxes", backend="kvm", state="running") == BOXES
    assert errors(found, "EDQUOT") == 1 and errors(found, "ENOSPC") == 0

    bombing, filling, hogging = job(bomb, BOMB), job(filler, FILL), job(hog, HOG)
    wait_until(lambda: (bombing / "status").read_text() != "queued\n", 60)
    took, listed, most = [], [], 0
    while not took or (filling / "status").read_text().strip() in ("queued", "running"):
        took.append(answer(calm))
        most = max(most, *(int(info(box).get("memory_private", 0)) for box in boxes))
        # what lies in memory here answers at once, whatever the guests do
        began = time.monotonic()
        for box in boxes:
            os.listdir(box)
            status(box)
        found = check_metrics(mount, BOXES)
        listed.append(time.monotonic() - began)
    used = {box.name: int(info(box)["disk_used"]) >> 20 for box in boxes}
    print(f"calm answers in {before:.2f} s before, {sorted(took)} meanwhile; "
          f"most private MiB {most >> 20}, disks MiB {used}, free MiB {free(mount) >> 20}")
    # What is in memory waits for none of them, nor for a command of the calm one.
    assert min(listed) < min(took) and sum(listed) < sum(took)

    # what the tree tells of each, and that it stays within its bounds
    assert (filling / "exit").read_text() == "1\n"
    assert "No space left on device" in (filling / "stderr").read_text()
    assert (hogging / "exit").read_text() == "137\n"        # by the guest's own kernel
    # its kernel may hold it down, be too busy to answer, or give up
    assert status(bomb) in ("running", "unreachable", "booting") or (bomb / "error").read_text()
    # what the guest has not written back is not on the host yet
    assert 700 < used["filler"] < 1200
    assert used["calm"] < 100 and used["bomb"] < 100 and used["hog"] < 100
    assert most < MEMORY + 256 * MIB        # and what emulation takes for itself
    assert info(bomb)["cpu_seconds"] > info(calm)["cpu_seconds"] > 0
    ended = [e for e in mount.events() if e["event"] == "job_ended"]
    assert {("filler", 1), ("hog", 137)} <= {(e["sandbox"], e["exit"]) for e in ended}
    # events, metrics and info say the same of it
    found = check_metrics(mount, BOXES)
    assert value(found, "sbxfs_jobs_total", result="success") == len(took) + 3 == \
        len([e for e in ended if e["sandbox"] == "calm" and e["exit"] == 0])
    assert value(found, "sbxfs_jobs_total", result="failure") >= 1      # the filler
    assert value(found, "sbxfs_jobs_total", result="signaled") >= 1     # the hog
    assert sum(value(found, "sbxfs_jobs_total", result=how) for how in
               ("success", "failure", "signaled", "timeout", "lost", "cancelled")) + \
        sum(value(found, "sbxfs_jobs", state=state) for state in ("queued", "running")) == \
        sum(int(info(box)["jobs"]) for box in boxes)

    # the disk is at its floor: no more machines, until there is room again
    (mount / "hog").rmdir()
    wait_until(lambda: not hog.exists(), 60)
    assert free(mount) < FLOOR
    refused(errno.ENOSPC, os.mkdir, mount / "next")
    said = {e["limit"]: e for e in mount.events() if e["event"] == "limit"}
    assert (said["memory"]["sandbox"], said["free"]["sandbox"]) == ("fifth", "next")
    assert "[limits] memory" in said["memory"]["error"] and "free" in said["free"]["error"]
    assert said["free"]["pid"] == os.getpid()
    assert errors(check_metrics(mount, BOXES - 1), "ENOSPC") == 1
    began = time.monotonic()
    for box in (filler, bomb):
        box.rmdir()
    wait_until(lambda: not filler.exists() and not bomb.exists(), 60)
    print(f"bomb and filler gone after {time.monotonic() - began:.2f} s")
    assert free(mount) > FLOOR
    (mount / "next").mkdir()
    assert answer(mount / "next") and answer(calm)
    found = check_metrics(mount, 2)
    assert value(found, "sbxfs_sandboxes_created_total") == BOXES + 1
    assert value(found, "sbxfs_sandboxes_destroyed_total") == BOXES - 1
