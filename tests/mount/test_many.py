"""A thousand sandboxes known."""

import os
import re
import subprocess
import time

import pytest

from support import CONFIG, sanitized, wait_until
from test_daemon import cpu_ticks, rss

LONG = 3600 * 1000
COUNT = 1000


@pytest.fixture
def crowd(new_mount):
    """A mount that has adopted a thousand sandboxes which run; nobody has asked for them yet."""
    mount = new_mount(CONFIG).start()
    names = [f"crowd-{n}" for n in range(COUNT)]
    for name in names:
        mount.control(name, f"boot {LONG}")
        os.mkdir(mount / name)
    wait_until(lambda: len(list((mount.fake / "records").iterdir())) == COUNT, 200)
    wait_until(lambda: (mount / names[-1] / "status").read_text() == "booting\n", 200)
    mount.stop()
    # They boot; a daemon that finds them up has nothing to do with them until it is asked.
    for record in (mount.fake / "records").iterdir():
        record.write_text(re.sub("^state .*$", "state up", record.read_text(), flags=re.M))
    mount.start()
    wait_until(lambda: (mount / names[-1] / "status").read_text() == "running\n", 200)
    return mount


@pytest.mark.deadline(600)
def test_a_thousand(crowd, spawn):
    """Listed, looked at, used, and idle without cost; each is a sandbox like any other."""
    names = os.listdir(crowd)
    assert len(names) == COUNT and names == sorted(names)
    listing = subprocess.run(["ls", "-l", crowd], capture_output=True, text=True, check=True)
    assert len(listing.stdout.splitlines()) == COUNT + 1
    statuses = subprocess.run(f"cat {crowd.path}/*/status | sort | uniq -c", shell=True,
                              capture_output=True, text=True, check=True)
    assert statuses.stdout.split() == [str(COUNT), "running"]
    for n in (0, 500, 999):
        (crowd / f"crowd-{n}/cmd").write_text("hostname")
        assert (crowd / f"crowd-{n}/stdout").read_text() == f"crowd-{n}\n"
    assert len(crowd.sshd_processes()) <= 2 * 3
    if not sanitized():
        assert rss(crowd.process.pid) < 32 << 20

    def quiet():
        before = cpu_ticks(crowd.process.pid)
        time.sleep(2)
        return cpu_ticks(crowd.process.pid) == before

    wait_until(quiet)
    for n in range(COUNT):
        os.rmdir(crowd / f"crowd-{n}")
    wait_until(lambda: os.listdir(crowd) == [], 300)
    assert list((crowd.fake / "boxes").iterdir()) == []
