"""[limits]: a mkdir beyond them is EDQUOT with a sentence, and nothing is made."""

import errno
import os
import subprocess

import pytest

from support import CONFIG, Box, refused, wait_until


def limited(new_mount, *lines, more=""):
    return new_mount(CONFIG + "[limits]\n" + "".join(line + "\n" for line in lines) + more).start()


def test_sandboxes(new_mount):
    mount = limited(new_mount, "sandboxes = 2")
    first, _ = mount.box(), mount.box()
    refused(errno.EDQUOT, os.mkdir, mount / "third")
    assert "[limits] sandboxes = 2" in mount.errors().splitlines()[-1]
    assert len(os.listdir(mount)) == 2
    assert len(list((mount.folder / "state/sbxfs/vms").iterdir())) == 2
    first.destroy()
    mount.box("third")


def test_one_that_is_being_destroyed_counts(new_mount):
    """Its machine is there until its backend has seen it gone."""
    mount = limited(new_mount, "sandboxes = 1")
    box = mount.box(None, "destroy 3600000")
    os.rmdir(box)
    refused(errno.EDQUOT, os.mkdir, mount / "next")
    box.control("destroy 0")
    wait_until(lambda: not box.path.exists())
    mount.box("next")


def test_memory(new_mount):
    """What is stopped takes none; it is asked again at the start."""
    mount = limited(new_mount, "memory = 3G", more="[defaults]\nmemory = 1G\n")
    boxes = [mount.box() for _ in range(3)]
    refused(errno.EDQUOT, os.mkdir, mount / "fourth")
    assert "[limits] memory = 3G" in mount.errors().splitlines()[-1]
    boxes[0].write("ctl", "stop")
    boxes[0].wait_status("stopped")
    fourth = mount.box("fourth")
    refused(errno.EDQUOT, boxes[0].write, "ctl", "start")
    assert "memory" in boxes[0].error() and boxes[0].status() == "stopped"
    refused(errno.EDQUOT, boxes[0].write, "ctl", "restart")
    fourth.destroy()
    boxes[0].write("ctl", "start")
    boxes[0].wait_status("running")
    refused(errno.EDQUOT, boxes[1].write, "ctl", "resize memory=2G")
    assert boxes[1].info()["memory"] == "1G"
    boxes[0].destroy()
    boxes[1].write("ctl", "resize memory=2G cpus=3")
    assert (boxes[1].info()["memory"], boxes[1].info()["cpus"]) == ("2G", "3")
    refused(errno.EDQUOT, os.mkdir, mount / "fifth")


def test_disk(new_mount):
    """Also what is stopped has one."""
    mount = limited(new_mount, "disk = 25G", more="[defaults]\ndisk = 10G\n")
    boxes = [mount.box() for _ in range(2)]
    boxes[0].write("ctl", "stop")
    refused(errno.EDQUOT, os.mkdir, mount / "third")
    assert "10G more of disk, 20G are taken" in mount.errors()
    refused(errno.EDQUOT, boxes[1].write, "ctl", "resize disk=16G")
    boxes[1].write("ctl", "resize disk=15G")


def test_the_floor_of_the_hosts_disk(new_mount):
    mount = limited(new_mount, "free = 1000T")
    refused(errno.ENOSPC, os.mkdir, mount / "web")
    assert "[limits] free = 1000T" in mount.errors()
    assert os.listdir(mount) == []


def test_a_limit_holds_over_a_restart(new_mount):
    mount = limited(new_mount, "sandboxes = 2")
    mount.box(), mount.box()
    mount.kill()
    mount.start()
    refused(errno.EDQUOT, os.mkdir, mount / "third")


def test_foreign_ones_do_not_count(new_mount):
    """Somebody else's machines: protected, and no part of our fleet."""
    mount = limited(new_mount, "sandboxes = 1", "age = 1h")
    mount.control("theirs", "appear")
    theirs = Box(mount, "theirs")
    wait_until(lambda: theirs.path.exists() and theirs.status() == "running")
    assert theirs.read("protect") == "1\n" and theirs.info()["foreign"] == "yes"
    assert theirs.read("tags") == "theirs\n" and theirs.read("ttl") == ""
    refused(errno.EBUSY, os.rmdir, theirs.path)
    mount.box()
    refused(errno.EDQUOT, os.mkdir, mount / "second")
    theirs.write("protect", "0")
    mount.kill()
    mount.start()
    wait_until(lambda: theirs.status() == "running")
    assert theirs.read("protect") == "0\n"      # what was decided is not decided again
    os.rmdir(theirs.path)
    wait_until(lambda: not theirs.path.exists())


@pytest.mark.parametrize("line", ["sandboxes = many", "memory = 1Q", "disk = -1", "age = old",
                                  "trash = 1 h", "free = x", "colour = red"])
def test_bad_keys(new_mount, line):
    mount = new_mount(f"{CONFIG}[limits]\n{line}\n")
    done = subprocess.run(mount.command("-f"), env=mount.env, capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 2 and "line" in done.stderr


# --- several backends --------------------------------------------------------------

TWO = CONFIG.replace("backends = fake", "backends = fake fake2") + "[fake2]\nsharedkey = yes\n"


def test_overflow(new_mount):
    """What the limits refuse the default backend is made by the other one, which says so."""
    mount = new_mount(TWO + "[limits]\nmemory = 2G\nsandboxes = 3\n"
                      "[defaults]\noverflow = fake2\n").start()
    boxes = [mount.box() for _ in range(2)]
    third = mount.box()
    assert [box.info()["backend"] for box in boxes] == ["fake", "fake"]
    assert third.info()["backend"] == "fake2" and third.info()["image"] == "fake"
    assert "not fake" in third.info()["overflow"] and "memory" in third.info()["overflow"]
    assert third.ask("hostname") == third.name.encode() + b"\n"
    mount.box()
    refused(errno.EDQUOT, os.mkdir, mount / "fifth")        # the other one has limits as well
    assert "of fake2" in mount.errors().splitlines()[-1]
    boxes[0].destroy()
    assert mount.box("sixth").info()["backend"] == "fake"


def test_a_draft_chooses_its_backend(new_mount):
    mount = new_mount(TWO + "[limits]\nsandboxes = 1\n[defaults]\noverflow = fake2\n").start()
    draft = mount / ".sbxfs/new/web"
    draft.mkdir()
    assert (draft / "image").read_text() == "debian\n" and (draft / "network").exists()
    (draft / "network").write_text("off")
    (draft / "backend").write_text("fake2")
    assert (draft / "image").read_text() == "fake\n" and not (draft / "network").exists()
    refused(errno.EINVAL, os.rename, draft, mount / "web")      # what does not go together
    assert "fake2 knows no network" in mount.errors().splitlines()[-1]
    (draft / "backend").write_text("fake")
    (draft / "network").write_text("\n")
    mount.box()
    refused(errno.EDQUOT, os.rename, draft, mount / "web")      # fake was asked for: no other
    (draft / "backend").write_text("\n")
    (draft / "image").write_text("debian")
    refused(errno.EDQUOT, os.rename, draft, mount / "web")      # an image of fake: likewise
    (draft / "image").write_text("\n")
    (draft / "backend").write_text("fake2")
    os.rename(draft, mount / "web")
    assert Box(mount, "web").info()["backend"] == "fake2"
    mount.kill()
    mount.start()
    wait_until(lambda: Box(mount, "web").status() == "running")


def test_an_overflow_that_is_no_backend(new_mount):
    mount = new_mount(CONFIG + "[defaults]\noverflow = fake2\n")
    done = subprocess.run(mount.command("-f"), env=mount.env, capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 2 and "not among [mount] backends" in done.stderr


@pytest.mark.parametrize("text, words", [
    ("[mount]\nbackends = fake fake\n", "line 2: backends = fake fake: each backend once"),
    ("[mount]\nbackends = fake\n[defaults]\nmemory = 4\n", "line 4: memory = 4: a size is"),
    ("[mount]\nbackends = fake\n[defaults]\ndisk = 100\n", "line 4: disk = 100: a size is"),
])
def test_a_slip_in_the_config_file(new_mount, text, words):
    """Twice the same backend; bytes of memory, since the unit was left out."""
    mount = new_mount(text)
    done = subprocess.run(mount.command("-f"), env=mount.env, capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 2 and words in done.stderr, done.stderr
