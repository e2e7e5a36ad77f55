"""mkdir makes a sandbox, rmdir destroys it; what can be refused at once is."""

import errno
import os
import re
import subprocess
from subprocess import Popen

import pytest

from support import CONFIG, Box, refused, wait_until

LONG = 3600 * 1000      # ms: longer than any test


def test_mkdir_answers_at_once_and_the_rest_goes_on_behind(mount):
    """The record has changed; creating and booting show in status."""
    box = mount.box(None, f"create {LONG}", f"boot {LONG}", wait=False)
    assert box.status() == "creating"
    assert os.path.isdir(box / "jobs")
    box.control("create 0")
    box.wait_status("booting")
    box.control("boot 0")
    box.wait_status("running")
    box.destroy()


def test_mkdir_twice(mount, box):
    refused(errno.EEXIST, os.mkdir, box.path)
    assert box.status() == "running"


@pytest.mark.parametrize("name", [
    "Web", "wEb", "we b", "web ", ".web", "-web", "web.1", "web_1", "wéb", "we\nb", "we*b", "1web",
    "web-",
])
def test_bad_name(mount, name):
    before = os.listdir(mount)
    refused(errno.EINVAL, os.mkdir, mount / name)
    assert os.listdir(mount) == before
    assert "name" in mount.errors().splitlines()[-1]


def test_long_name(mount):
    refused(errno.ENAMETOOLONG, os.mkdir, mount / ("a" * 64))
    refused(errno.ENAMETOOLONG, os.mkdir, mount / ("a" * 255))
    box = mount.box("a" * 63)
    assert box.ask("hostname") == b"a" * 63 + b"\n"
    box.destroy()


def test_dot_dot_is_not_a_name(mount):
    refused(errno.EEXIST, os.mkdir, f"{mount.path}/..")
    refused(errno.EEXIST, os.mkdir, f"{mount.path}/.")
    refused(errno.EEXIST, os.mkdir, mount / ".sbxfs")


def test_image_that_does_not_exist(new_mount):
    mount = new_mount(CONFIG + "[defaults]\nimage = windows\n").start()
    refused(errno.EINVAL, os.mkdir, mount / "web")
    assert os.listdir(mount) == []
    assert "windows" in mount.errors()
    assert list((mount.folder / "state/sbxfs/vms").iterdir()) == []


def test_rmdir_destroys(mount):
    """No process, file or port of it is left, and the name is free."""
    box = mount.box()
    box.run("sleep 1000 & setsid sleep 1001 & sleep 1002")
    box.wait_job("running")
    wait_until(lambda: len(mount.guest_processes(box.name)) >= 4)
    port, folder = box.info()["port"], box.info()["folder"]
    box.destroy()
    assert mount.guest_processes(box.name) == []
    assert mount.sshd_processes(box.name) == []
    assert not os.path.exists(os.path.dirname(folder))
    assert not (mount.folder / "state/sbxfs/vms" / box.name).exists()
    assert not (mount.fake / "records" / box.name).exists()
    with open("/proc/net/tcp") as sockets:      # 0A: listening
        assert not re.search(f"0100007F:{int(port):04X} 00000000:0000 0A", sockets.read())
    again = mount.box(box.name)
    assert again.read("error") == "" and os.listdir(again / "jobs") == []
    again.destroy()


def test_rmdir_answers_at_once_and_shows_destroying(mount):
    box = mount.box(None, f"destroy {LONG}")
    os.rmdir(box)
    assert box.status() == "destroying"
    assert box.name in os.listdir(mount)
    box.control("destroy 0")
    wait_until(lambda: not box.path.exists())


def test_a_sandbox_that_is_being_destroyed_takes_no_jobs(mount):
    box = mount.box(None, f"destroy {LONG}")
    os.rmdir(box)
    refused(errno.EHOSTDOWN, box.run, "true")
    refused(errno.EBUSY, os.rmdir, box)
    refused(errno.EEXIST, os.mkdir, box)
    box.control("destroy 0")
    wait_until(lambda: not box.path.exists())


def test_rmdir_while_creating(mount):
    box = mount.box(None, f"create {LONG}", wait=False)
    box.destroy()
    assert not (mount.fake / "boxes" / box.name).exists()


def test_rmdir_while_booting(mount):
    box = mount.box(None, f"boot {LONG}", wait=False)
    box.wait_status("booting")
    box.destroy()
    assert not (mount.fake / "boxes" / box.name).exists()


def test_rmdir_of_what_is_not_there(mount):
    refused(errno.ENOENT, os.rmdir, mount / "nobody")


def test_files_inside_do_not_block_rmdir(mount):
    box = mount.box()
    box.run("mkdir -p deep/er; touch deep/er/file; chmod 0 deep")
    assert box.exit() == "0"
    box.destroy()


def test_open_files_outlive_rmdir(mount):
    """Who still holds a file of it gets an answer, never a hang or another's data."""
    box = mount.box()
    box.run("echo before; sleep 1000")
    fd = os.open(box / "stdout", os.O_RDONLY)
    status = os.open(box / "status", os.O_RDONLY)
    assert os.read(fd, 100) == b"before\n"
    box.destroy()
    mount.box(box.name)
    assert os.read(fd, 100) == b""
    try:
        assert os.read(status, 100) in (b"", b"destroying\n")
    except OSError as e:
        assert e.errno == errno.ESTALE
    os.close(fd)
    os.close(status)
    Box(mount, box.name).destroy()


@pytest.mark.parametrize("name, value", [("cwd", b"/tmp"), ("env", b"A=1"), ("timeout", b"1m")])
def test_a_default_of_a_sandbox_that_is_gone_is_stale(mount, name, value):
    box = mount.box()
    fd = os.open(box / name, os.O_WRONLY)
    box.destroy()
    refused(errno.ESTALE, os.write, fd, value)
    os.close(fd)


def test_readers_that_wait_end_at_rmdir(mount, spawn):
    box = mount.box()
    box.run("sleep 1000")
    readers = [spawn(["cat", box / name], stdout=-1, stderr=-3) for name in ("stdout", "exit")]
    box.wait_job("running")
    box.destroy()
    for reader in readers:
        reader.wait(60)
    assert readers[1].stdout.read() in (b"lost\n", b"cancelled\n", b"")


def test_a_current_folder_that_was_destroyed(mount, spawn):
    """A shell that stands in it is told, and can leave."""
    box = mount.box()
    shell = spawn(["sh"], cwd=box, stdin=-1, stdout=-1, stderr=-2, text=True)
    box.destroy()
    out, _ = shell.communicate("ls; cd /; echo left\n", timeout=60)
    assert out.endswith("left\n")


def test_a_second_sandbox_is_independent(mount, box):
    other = mount.box()
    box.run("echo one > file")
    other.run("cat file")
    assert (box.exit(), other.exit()) == ("0", "1")
    other.destroy()
    assert box.ask("cat file") == b"one\n"


def test_many_at_once(mount):
    """Ten made by ten processes run at the same time."""
    names = [f"many-{n}" for n in range(10)]
    makers = [Popen(["mkdir", mount / name]) for name in names]
    assert [maker.wait() for maker in makers] == [0] * 10
    boxes = [mount / name for name in names]
    for box in boxes:
        (box / "cmd").write_text("hostname")
    assert [(box / "stdout").read_text() for box in boxes] == [name + "\n" for name in names]
    for box in boxes:
        os.rmdir(box)
    wait_until(lambda: not set(names) & set(os.listdir(mount)))


def test_mkdir_held_back_by_nothing(mount):
    """A mkdir is quick while another sandbox is still being created."""
    slow = mount.box(None, f"create {LONG}", wait=False)
    quick = mount.box()
    assert slow.status() == "creating"
    for box in (slow, quick):
        box.destroy()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_disk_that_is_full_while_creating(new_mount):
    """ENOSPC at mkdir, nothing of it stays, and all is well when there is room again."""
    mount = new_mount(CONFIG + "[limits]\nfree = 0\n")
    state = mount.folder / "state"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "full", state], check=True)
    try:
        mount.start()
        mount.box("before")
        with open(state / "ballast", "wb", buffering=0) as ballast, pytest.raises(OSError):
            while True:
                ballast.write(b"x" * 4096)
        refused(errno.ENOSPC, os.mkdir, mount / "web")
        assert os.listdir(mount) == ["before"]
        assert "No space left" in mount.errors()
        assert (mount / "before/status").read_text() == "running\n"
        os.unlink(state / "ballast")
        mount.box("web")
        mount.stop()
    finally:
        mount.sweep()
        subprocess.run(["umount", "-l", state], check=True)
