"""root/: what goes wrong in the guest is told as what it is.

File systems of all kinds are mounted in the guest: in the mount namespace of its SFTP server,
which takes root."""

import contextlib
import errno
import os
import shutil
import stat
import subprocess

import pytest

from support import refused, sftp_servers, wait_until, write_all

needs_root = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("nsenter"),
                                reason="only root mounts file systems in the guest")


@pytest.fixture
def guest_mount(box, d):
    """Mount something in the guest at d/NAME, for as long as its connection lives."""
    def mount(name, *args):
        (d / name).mkdir(exist_ok=True)
        server, = sftp_servers(box)
        subprocess.run(["nsenter", "-t", str(server), "-m", "mount", *args,
                        f"{box.guest_home}/d/{name}"], check=True)
        return d / name
    return mount


def small(guest_mount, options="size=64k"):
    return guest_mount("small", "-t", "tmpfs", "-o", options, "tmpfs")


@needs_root
def test_a_full_disk_is_told_to_who_writes(box, guest_mount):
    """At the write, or at the close; never lost, and with a sentence."""
    full = small(guest_mount)
    fd = os.open(full / "f", os.O_WRONLY | os.O_CREAT)
    with pytest.raises(OSError) as caught:
        try:
            write_all(fd, bytes(1 << 20))
        finally:
            os.close(fd)
    assert caught.value.errno == errno.ENOSPC
    assert "full" in box.error()
    assert any(box.name in line and "full" in line for line in box.mount.errors().splitlines())
    assert 0 < os.stat(full / "f").st_size <= 64 << 10
    assert os.statvfs(full).f_bavail == 0
    # a shell, which does not look at what the close says
    done = subprocess.run(["bash", "-c", f"echo more > {full}/h; echo $?"], capture_output=True,
                          text=True)
    assert done.stdout == "1\n" and "No space left" in done.stderr
    os.unlink(full / "h")
    # programs notice, and when there is room again it is used
    done = subprocess.run(["cp", "/bin/sh", full / "g"], stderr=subprocess.PIPE, text=True)
    assert done.returncode != 0
    assert "No space left" in done.stderr
    os.unlink(full / "f")
    os.unlink(full / "g")
    (full / "f").write_bytes(bytes(20000))
    assert os.stat(full / "f").st_size == 20000


@needs_root
def test_a_full_disk_is_told_to_fsync(guest_mount):
    full = small(guest_mount)
    fd = os.open(full / "f", os.O_WRONLY | os.O_CREAT)
    with pytest.raises(OSError) as caught:
        write_all(fd, bytes(1 << 20))
        os.fsync(fd)
    assert caught.value.errno == errno.ENOSPC
    try:
        os.close(fd)        # (tells it once more where the write has told it)
    except OSError as e:
        assert e.errno == errno.ENOSPC


@needs_root
def test_no_more_files(guest_mount):
    full = small(guest_mount, "nr_inodes=4")
    with pytest.raises(OSError) as caught:
        for n in range(10):
            (full / str(n)).touch()
    assert caught.value.errno == errno.ENOSPC
    refused(errno.ENOSPC, os.mkdir, full / "folder")
    refused(errno.ENOSPC, os.symlink, "x", full / "link")


@needs_root
def test_a_read_only_file_system(box, guest_mount, h):
    (h / "store/sub").mkdir(parents=True)
    (h / "store/f").write_text("text")
    store = guest_mount("store", "--bind", f"{box.guest_home}/d/store")
    guest_mount("store", "-o", "remount,ro,bind")
    assert (store / "f").read_text() == "text"
    assert os.statvfs(store).f_flag & os.ST_RDONLY == 0     # the mount itself can be written
    for call in ((open, store / "f", "w"), (open, store / "f", "a"), (open, store / "new", "w"),
                 (os.mkdir, store / "new"), (os.unlink, store / "f"), (os.rmdir, store / "sub"),
                 (os.rename, store / "f", store / "g"), (os.symlink, "x", store / "l"),
                 (os.link, store / "f", store / "g"), (os.truncate, store / "f", 0),
                 (os.chmod, store / "f", 0o600), (os.utime, store / "f", (1, 1)),
                 (os.chown, store / "f", 1, 1)):
        refused(errno.EROFS, *call)
    assert "read-only" in box.error()


@needs_root
def test_another_file_system(d, guest_mount):
    """rename and link say EXDEV, so mv and cp -l know what to do."""
    other = small(guest_mount, "size=4m")
    (d / "f").write_text("text")
    (d / "folder").mkdir()
    (d / "folder/x").write_text("x")
    refused(errno.EXDEV, os.rename, d / "f", other / "f")
    refused(errno.EXDEV, os.rename, d / "folder", other / "folder")
    refused(errno.EXDEV, os.link, d / "f", other / "f")
    (other / "there").write_text("there")
    refused(errno.EXDEV, os.rename, other / "there", d / "f")
    assert (d / "f").read_text() == "text"
    subprocess.run(["mv", d / "f", d / "folder", other], check=True)
    assert (other / "folder/x").read_text() == "x"
    assert sorted(os.listdir(d)) == ["small"]
    # what is mounted there cannot be taken away
    refused(errno.EBUSY, os.rmdir, d / "small")
    refused(errno.EBUSY, os.rename, d / "small", d / "moved")


def runs(program):
    """Is it being run, on this machine?"""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.path.samefile(f"/proc/{pid}/exe", program):
                return True
    return False


def test_a_program_that_runs(box, d, h):
    shutil.copy("/bin/sleep", h / "prog")
    os.mkdir(box / "jobs/prog")
    box.write("jobs/prog/cmd", "cd d; exec ./prog 100\n")
    wait_until(lambda: runs(h / "prog"))
    refused(errno.ETXTBSY, open, d / "prog", "r+b")
    refused(errno.ETXTBSY, os.truncate, d / "prog", 0)
    # replaced it may be, as compilers do
    (d / "new").write_bytes(b"#!/bin/sh\n")
    os.rename(d / "new", d / "prog")
    box.write("jobs/prog/ctl", "kill\n")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
def test_what_the_user_may_not(box, d, h):
    (h / "f").write_text("text")
    (h / "closed").mkdir()
    (h / "closed/f").write_text("text")
    (h / "f").chmod(0)
    (h / "closed").chmod(0)
    try:
        refused(errno.EACCES, open, d / "f")
        refused(errno.EACCES, open, d / "f", "w")
        refused(errno.EACCES, os.listdir, d / "closed")
        refused(errno.EACCES, os.stat, d / "closed/f")
        refused(errno.EACCES, open, box.path / "root/etc/new", "w") \
            if not os.access(box.info()["folder"] + "/etc", os.W_OK) else None
    finally:
        (h / "closed").chmod(0o700)


def test_modes_of_what_cannot_be_opened(d, h):
    os.mkfifo(h / "pipe")
    assert stat.S_ISFIFO(os.stat(d / "pipe").st_mode)
    # it is the host's pipe, with nobody at its other end
    refused(errno.ENXIO, os.open, d / "pipe", os.O_WRONLY | os.O_NONBLOCK)
