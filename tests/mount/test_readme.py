"""The examples of README.md that a shell can run are run as they stand there."""

import os
import re
import subprocess
import time

from support import TOP, wait_until
from test_life import HOUR, MINUTE, seconds

SHELL = "A fleet from a shell"


def examples(heading):
    """The commands below a heading: indented blocks, one string each."""
    text = (TOP / "README.md").read_text()
    section = re.search(rf"^## {heading}\n(.*?)^## ", text, re.M | re.S)[1]
    blocks = re.findall(r"(?:^    .*\n)+", section, re.M)
    return ["\n".join(line[4:] for line in block.splitlines()) for block in blocks]


def sh(mount, command, **kwargs):
    done = subprocess.run(["bash", "-c", command], cwd=mount, text=True, capture_output=True,
                          timeout=60, **kwargs)
    assert not done.stderr, done.stderr
    return done.stdout


def test_a_fleet_from_a_shell(own_mount, spawn, tmp_path):
    """Fan out, wait, collect, find the idle, give a time to live, destroy by tag."""
    fan_out, wait, collect, find, follow, destroy = examples(SHELL)
    assert sh(own_mount, fan_out) == ""
    assert sh(own_mount, wait) == "part-a 0\npart-b 0\npart-c 0\n"
    sh(own_mount, collect.replace("/tmp/", f"{tmp_path}/"))     # which others use too
    for n in "abc":
        assert (tmp_path / f"part-{n}.txt").read_text() == f"result of {n}\n"
    idle, running = find.splitlines()
    assert sh(own_mount, idle) == ""
    two_hours = time.time() - 7200
    os.utime(own_mount / "part-b", (two_hours, two_hours))      # a sign of life, whatever it says
    assert sh(own_mount, idle) == ""
    (own_mount / "part-b/cmd").write_text("sleep 100")
    wait_until(lambda: (own_mount / "part-b/jobs/latest/status").read_text() == "running\n")
    assert sh(own_mount, running) == "part-b/jobs/latest/status\n"
    tail, ttl = follow.splitlines()
    follows = spawn(["bash", "-c", "exec " + tail], cwd=own_mount, stdout=-1, text=True)
    while "job_started" not in follows.stdout.readline():
        assert follows.poll() is None
    assert sh(own_mount, ttl) == ""
    assert 2 * HOUR - MINUTE < seconds((own_mount / "part-c/ttl").read_text()) <= 2 * HOUR
    sh(own_mount, destroy)
    wait_until(lambda: os.listdir(own_mount) == [])


def test_what_nobody_used_is_found(own_mount):
    """Made two hours ago; looked at all the time, which is no use of it."""
    find = examples(SHELL)[3].splitlines()[0]
    own_mount.control("@clock", "advance -7200000")
    own_mount.box("old")
    own_mount.control("@clock", "advance 7200000")
    own_mount.box("new")
    sh(own_mount, "ls -l . old old/jobs >/dev/null; cat old/info old/status >/dev/null")
    assert sh(own_mount, find) == "./old\n"
    os.utime(own_mount / "old")
    assert sh(own_mount, find) == ""
