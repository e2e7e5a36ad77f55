"""Pause, suspend, snapshots/ and drafts with from, as a user of the mount sees them."""

import errno
import os
import time
from pathlib import Path

import pytest

from drive import images_folder
from support import Mount, refused, wait_until, write
from test_clones import template     # noqa: F401  (makes one, or skips)

CONFIG = """\
[mount]
backends = kvm
[defaults]
memory = 512M
disk = 4194305K
on_use = {on_use}
[kvm]
images = {images}
accel = tcg
[limits]
trash = 0
"""


@pytest.fixture
def new_mount():
    mounts = []

    def make(on_use="wait"):
        mounts.append(Mount(CONFIG.format(images=images_folder(), on_use=on_use)))
        mounts[-1].start()
        return mounts[-1]
    yield make
    for mount in mounts:
        for path in Path(mount.path).iterdir():
            path.rmdir()
        wait_until(lambda: not list(Path(mount.path).iterdir()), 60)
        mount.stop()
        mount.clean()


def status(box):
    return (box / "status").read_text().strip()


def run(box, command):
    write(box / "cmd", command + "\n")
    return (box / "stdout").read_text()


def test_rest(new_mount):
    mount = new_mount()
    box = mount / "web"
    box.mkdir()
    assert run(box, "hostname") == "web\n" and "start template" in (box / "info").read_text()

    # a job that runs stands still with it, and ends as if nothing had been
    write(box / "cmd", "echo before; until [ -e /run/go ]; do sleep 0.1; done; echo after")
    job = box / "jobs" / os.readlink(box / "jobs/latest")
    wait_until(lambda: (job / "log").read_text() == "before\n", 30)
    write(box / "ctl", "pause")
    wait_until(lambda: status(box) == "paused", 60)
    write(box / "cmd", "touch /run/go; echo later")
    assert "resumed: it is paused" in (box / "jobs/latest/info").read_text()
    assert "jobs_wait_for" in (box / "info").read_text()
    time.sleep(17)      # longer than a connection may be silent: it is not held against it
    assert (job / "status").read_text() == "running\n" and status(box) == "paused"
    for verb in ("resume", "pause", "resume"):      # the last word counts
        write(box / "ctl", verb)
    assert (job / "stdout").read_text() == "before\nafter\n"
    assert (job / "exit").read_text() == "0\n"
    assert (box / "stdout").read_text() == "later\n"

    # snapshots/
    run(box, "echo one >/root/file")
    (box / "snapshots/first").mkdir()
    wait_until(lambda: (box / "snapshots/first").stat().st_size > 0, 60)
    taken = (box / "snapshots/first").stat()
    assert abs(taken.st_mtime - time.time()) < 60 and os.listdir(box / "snapshots") == ["first"]
    refused(errno.EEXIST, os.mkdir, box / "snapshots/first")
    refused(errno.EINVAL, os.mkdir, box / "snapshots/a b")
    run(box, "echo two >/root/file")
    write(box / "ctl", "restore first")
    assert run(box, "cat /root/file") == "one\n"        # it waits for what is restored
    assert "connect web" not in (mount / ".sbxfs/errors").read_text()
    assert sorted(os.listdir(box / "snapshots")) == ["before-first", "first"]
    (box / "snapshots/first").rmdir()

    # a draft that clones: not with another size; of the present and of a snapshot
    draft = mount / ".sbxfs/new/large"
    draft.mkdir()
    write(draft / "from", "web")
    write(draft / "memory", "1G")
    refused(errno.EINVAL, draft.rename, mount / "large")
    assert "a clone has the memory of what it is cloned from" in \
        (mount / ".sbxfs/errors").read_text()
    for name, origin, text in (("now", "web", "one"), ("then", "web/before-first", "two")):
        draft = mount / ".sbxfs/new" / name
        draft.mkdir()
        write(draft / "from", origin)
        draft.rename(mount / name)
        assert run(mount / name, "hostname; cat /root/file") == f"{name}\n{text}\n"

    # one after the other, as they are asked for
    write(box / "ctl", "suspend")
    write(box / "ctl", "start")
    assert run(box, "cat /root/file") == "one\n"
    write(box / "ctl", "stop")
    refused(errno.EBUSY, write, box / "ctl", "pause")
    assert "it is being stopped" in (box / "error").read_text()
    write(box / "ctl", "start")
    assert run(box, "cat /root/file") == "one\n"


def test_on_use(new_mount):
    """A job wakes what sleeps, where it is allowed to."""
    mount = new_mount("start")
    box = mount / "web"
    box.mkdir()
    run(box, "echo kept >/run/here")
    for verb, state in (("suspend", "stopped"), ("pause", "paused")):
        write(box / "ctl", verb)
        wait_until(lambda: status(box) == state, 60)
        assert run(box, "cat /run/here") == "kept\n"
