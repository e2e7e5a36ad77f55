"""Drafts: a sandbox is described in .sbxfs/new/NAME before mv makes it."""

import errno
import os
import stat
import subprocess

import pytest

from support import CONFIG, Box, refused, wait_until, write
from test_life import Clock, HOUR, MINUTE, seconds

KEYS = {"backend", "image", "cpus", "memory", "disk", "network", "ttl", "idle", "env", "tags",
        "comment", "setup", "colour"}


class Draft:
    def __init__(self, mount, name):
        self.mount, self.name = mount, name
        self.path = mount / ".sbxfs/new" / name
        self.path.mkdir()

    def read(self, key):
        return (self.path / key).read_text()

    def write(self, key, value):
        write(self.path / key, value)

    def make(self, name=None, wait=True):
        os.rename(self.path, self.mount / (name or self.name))
        box = Box(self.mount, name or self.name)
        if wait:
            box.wait_status("running")
        return box


@pytest.fixture
def draft(mount):
    mount.count += 1
    draft = Draft(mount, f"draft-{mount.count}")
    yield draft
    if draft.path.exists():
        draft.path.rmdir()
    for name in (draft.name, "made-" + draft.name):
        if (mount / name).exists():
            Box(mount, name).destroy()


def test_the_defaults_are_filled_in(new_mount):
    mount = new_mount(CONFIG + "[defaults]\ncpus = 3\nmemory = 512M\nttl = 8h\n").start()
    draft = Draft(mount, "web")
    assert set(os.listdir(draft.path)) == KEYS
    values = {key: draft.read(key).rstrip("\n") for key in KEYS}
    assert values == {"backend": "fake", "image": "debian", "cpus": "3", "memory": "512M",
                      "disk": "10G", "network": "on", "ttl": "8h", "idle": "", "env": "",
                      "tags": "", "comment": "", "setup": "", "colour": ""}
    box = draft.make()
    assert box.info()["cpus"] == "3" and 8 * HOUR - MINUTE < seconds(box.read("ttl")) <= 8 * HOUR
    box.destroy()


def test_mv_makes_it(draft):
    """With all of what was written, and the draft is gone."""
    for key, value in {"cpus": "4", "memory": "2G", "disk": "20G", "tags": "ci nightly",
                       "comment": "for the build", "ttl": "3h", "idle": "40m", "image": "fake",
                       "env": "A=one\nB=two words", "colour": "red"}.items():
        draft.write(key, value + "\n")
        assert draft.read(key) == value + "\n"
    assert draft.name not in os.listdir(draft.mount)
    box = draft.make("made-" + draft.name)
    assert not draft.path.exists()
    info = box.info()
    assert [info[k] for k in ("cpus", "memory", "disk", "image", "fake_colour")] == \
        ["4", "2G", "20G", "fake", "red"]
    assert (info["tags"], info["comment"]) == ("ci nightly", "for the build")
    assert 3 * HOUR - MINUTE < seconds(box.read("ttl")) <= 3 * HOUR
    assert 39 * MINUTE < seconds(box.read("idle")) <= 40 * MINUTE
    assert box.ask('echo "$A/$B"') == b"one/two words\n"
    assert info["fake_tags"] == "ci nightly"


@pytest.mark.parametrize("key, value, allowed", [
    ("backend", "cloud9", "fake"), ("image", "windows", "debian"), ("cpus", "0", "1 to 255"),
    ("cpus", "two", "1 to 255"), ("cpus", "65", "at most 64"), ("memory", "much", "512M"),
    ("disk", "-1", "10G"), ("env", "no variable", "NAME=VALUE"), ("ttl", "soon", "30m"),
    ("idle", "0", "30m"), ("network", "maybe", "on or off"), ("tags", "a/b", "letters"),
    ("comment", "two\nlines", "one line"), ("cpus", "1\n2", "one line"),
    ("colour", "green", "red or blue"),
])
def test_a_bad_value_is_refused_at_the_write(draft, key, value, allowed):
    """With a sentence that says what is allowed, also on the same handle; the old one stays."""
    before = draft.read(key)
    fd = os.open(draft.path / key, os.O_RDWR)
    refused(errno.EINVAL, os.write, fd, value.encode())
    assert allowed in os.pread(fd, 1000, 0).decode()
    os.close(fd)
    assert allowed in draft.mount.errors().splitlines()[-1]
    assert draft.read(key) == before


def test_what_its_backend_does_not_know_cannot_be_written(draft):
    """The fake backend clones nothing: that must not pass for a temporary file of an editor."""
    assert not (draft.path / "from").exists()
    refused(errno.EINVAL, os.open, draft.path / "from", os.O_WRONLY | os.O_CREAT)
    assert "backend fake knows no from" in draft.mount.errors().splitlines()[-1]
    (draft.path / "from.tmp").write_text("web\n")
    refused(errno.EINVAL, os.rename, draft.path / "from.tmp", draft.path / "from")
    refused(errno.EINVAL, os.rename, draft.path / "cpus", draft.path / "from")
    assert draft.read("from.tmp") == "web\n" and draft.read("cpus") == "2\n"
    assert not (draft.path / "from").exists()


def test_an_empty_value_is_the_default_again(draft):
    draft.write("cpus", "4")
    draft.write("cpus", "\n")
    assert draft.read("cpus") == "2\n"


def test_nothing_is_made_by_it(draft):
    """A draft is no sandbox: no record, no machine, no limit that it counts against."""
    state = draft.mount.folder / "state/sbxfs"
    before = os.listdir(state / "vms"), os.listdir(draft.mount.fake / "records")
    draft.write("cpus", "4")
    assert (os.listdir(state / "vms"), os.listdir(draft.mount.fake / "records")) == before


def test_names(draft, mount, box):
    refused(errno.EEXIST, os.mkdir, draft.path)
    refused(errno.EINVAL, os.mkdir, mount / ".sbxfs/new/No_Name")
    refused(errno.EEXIST, os.rename, draft.path, box.path)
    refused(errno.EINVAL, os.rename, draft.path, mount / "No_Name")
    refused(errno.EPERM, os.rename, draft.path, mount / ".sbxfs/by-tag/x")
    refused(errno.EPERM, os.rename, box.path, mount / ".sbxfs/new/back")
    os.rename(draft.path, draft.path.with_name("other-draft"))
    assert "other-draft" in os.listdir(mount / ".sbxfs/new")
    os.rename(draft.path.with_name("other-draft"), draft.path)
    assert draft.read("cpus") == "2\n"


def test_editors_save_their_way(draft):
    """A temporary file beside, renamed over it; sed -i; >> adds a line."""
    beside = draft.path / ".setup.tmp"
    beside.write_text("#!/bin/sh\ntouch made\n")
    os.rename(beside, draft.path / "setup")
    assert draft.read("setup") == "#!/bin/sh\ntouch made\n"
    subprocess.run(["sed", "-i", "s/made/changed/", draft.path / "setup"], check=True)
    assert "changed" in draft.read("setup")
    subprocess.run(f"echo A=1 > {draft.path}/env; echo B=2 >> {draft.path}/env", shell=True,
                   check=True)
    assert draft.read("env") == "A=1\nB=2\n"
    beside.write_text("many")
    refused(errno.EINVAL, os.rename, beside, draft.path / "cpus")
    beside.unlink()
    refused(errno.EPERM, os.unlink, draft.path / "cpus")
    assert stat.S_ISDIR(os.stat(draft.path).st_mode)


def test_kept_over_a_restart_and_gone_after_a_day(own_mount):
    clock, draft = Clock(own_mount), Draft(own_mount, "web")
    draft.write("cpus", "7")
    own_mount.kill()
    own_mount.start()
    assert draft.read("cpus") == "7\n"
    clock.advance(23 * HOUR)
    draft.write("memory", "3G")         # a change: a day from now
    clock.advance(23 * HOUR)
    assert draft.read("cpus") == "7\n"
    clock.advance(HOUR + 1)
    wait_until(lambda: os.listdir(own_mount / ".sbxfs/new") == [])
    assert not list((own_mount.folder / "state/sbxfs/drafts").iterdir())
    Draft(own_mount, "old")
    own_mount.stop()
    clock.advance_unseen(25 * HOUR)
    own_mount.start()
    wait_until(lambda: os.listdir(own_mount / ".sbxfs/new") == [])


def test_a_limit_refuses_the_mv_and_the_draft_stays(new_mount):
    mount = new_mount(CONFIG + "[limits]\nmemory = 4G\n").start()
    draft = Draft(mount, "web")
    refused(errno.EINVAL, draft.write, "memory", "5G")
    assert "at most 4G" in mount.errors()
    mount.box()
    draft.write("memory", "4G")
    refused(errno.EDQUOT, draft.make)
    assert draft.read("memory") == "4G\n"
    draft.write("memory", "3G")
    draft.make().destroy()


# --- setup ---------------------------------------------------------------------------

def test_setup_runs_before_the_first_job(draft):
    """Once, as job 0, with the environment of the draft."""
    draft.write("env", "WHO=me")
    draft.write("setup", "sleep 0.3; echo \"set up by $WHO\" | tee -a file\n")
    box = draft.make(wait=False)
    box.run("cat file")
    assert box.out() == "set up by me\n"
    assert box.read("jobs/0/stdout") == "set up by me\n"
    assert box.read("jobs/0/exit") == "0\n" and box.info()["setup"] == "exited 0"
    assert box.error() == ""
    box.write("ctl", "restart")
    box.run("cat file")
    assert box.out() == "set up by me\n"


def test_jobs_wait_for_it(draft):
    draft.write("setup", "while [ ! -e go ]; do sleep 0.02; done; touch done")
    box = draft.make(wait=False)
    box.run("ls done")
    box.wait_status("running")
    wait_until(lambda: box.read("jobs/0/status") == "running\n")
    assert box.job_status() == "queued"
    assert "job 0" in box.read("jobs/latest/info")
    (box.disk / "go").touch()
    assert box.out() == "done\n"


def test_a_setup_that_fails(draft):
    """It is shown, the sandbox stays for inspection, and jobs run."""
    draft.write("setup", "echo half; echo why >&2; exit 3")
    box = draft.make()
    assert box.ask("echo runs") == b"runs\n"
    assert "exited 3" in box.error() and "jobs/0" in box.error()
    assert box.info()["setup"] == "exited 3" and box.status() == "running"
    assert (box.read("jobs/0/stdout"), box.read("jobs/0/stderr")) == ("half\n", "why\n")
    assert "setup" in draft.mount.errors()


def test_an_interpreter(draft):
    draft.write("setup", "#!/bin/cat\nsecond line\n")
    box = draft.make()
    assert box.read("jobs/0/stdout") == "#!/bin/cat\nsecond line"


def test_setup_of_one_that_did_not_boot(mount, draft):
    """It runs when the sandbox does at last."""
    mount.control(draft.name, "failboot")
    draft.write("setup", "echo late > file")
    box = draft.make(wait=False)
    box.wait_status("failed")
    box.control("revive")
    box.write("ctl", "start")
    box.wait_status("running")
    assert box.ask("cat file") == b"late\n" and box.info()["setup"] == "exited 0"


def test_setup_over_a_kill(own_mount):
    """Not begun: it runs once later. Begun: it is lost, and never runs twice."""
    waiting, begun = Draft(own_mount, "waiting"), Draft(own_mount, "begun")
    own_mount.control("waiting", "boot 3600000")
    waiting.write("setup", "echo once >> file")
    begun.write("setup", "echo once >> file; sleep 1000")
    boxes = [waiting.make(wait=False), begun.make()]
    wait_until(lambda: boxes[1].read("jobs/0/status") == "running\n")
    wait_until(lambda: (boxes[1].disk / "file").exists())
    own_mount.kill()
    own_mount.start()
    assert boxes[0].ask("cat file") == b"once\n"
    assert boxes[1].ask("cat file") == b"once\n"
    assert "lost" in boxes[1].info()["setup"] and "setup" in own_mount.errors()


def test_network_off(draft):
    """No address but its own; the sandbox still runs jobs."""
    draft.write("network", "off")
    box = draft.make()
    assert box.info()["network"] == "off"
    assert b"127.0.0.1" not in box.ask("cat /proc/net/route /proc/self/net/fib_trie 2>&1")
    out = box.ask("(exec 3<>/dev/tcp/127.0.0.1/22) 2>&1; cat /proc/net/dev | tail -n +3")
    assert b"eth" not in out and b"lo:" in out
