"""Started by others: systemd (Type=notify, the watchdog, the journal), mount(8) and fstab."""

import os
import re
import socket
import subprocess
from pathlib import Path

import pytest

from support import find_sbxfs, wait_until


def has_libsystemd():
    return "libsystemd" in subprocess.run(["ldd", find_sbxfs()], text=True,
                                          capture_output=True).stdout


@pytest.fixture
def manager(tmp_path, monkeypatch):
    """A socket as systemd gives it; .hear() is the next datagram."""
    if not has_libsystemd():
        pytest.skip("sbxfs was built without libsystemd")
    path = tmp_path / "notify"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(str(path))
    sock.settimeout(60)
    monkeypatch.setenv("NOTIFY_SOCKET", str(path))
    yield lambda: sock.recv(4096).decode()
    sock.close()


def test_the_manager_hears_when_the_mount_answers_and_when_it_ends(new_mount, manager):
    mount = new_mount()
    mount.launch()
    ready = manager()
    assert "READY=1" in ready and f"STATUS=mounted on {mount.path}" in ready
    assert os.listdir(mount) == []
    mount.stop()
    assert "STOPPING=1" in manager()


def test_the_watchdog_is_fed_twice_a_period(new_mount, manager, monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    mount = new_mount()
    mount.launch()
    assert "READY=1" in manager()
    assert [manager() for _ in range(5)] == ["WATCHDOG=1"] * 5
    mount.stop()


def test_lines_for_the_journal_have_a_level_and_no_clock(new_mount, monkeypatch):
    """$JOURNAL_STREAM names the very file that standard error is."""
    mount = new_mount()
    read, write = os.pipe()
    st = os.fstat(write)
    monkeypatch.setenv("JOURNAL_STREAM", f"{st.st_dev}:{st.st_ino}")
    process = subprocess.Popen(mount.command("-f"), env=mount.env, stderr=write,
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    os.close(write)
    wait_until(mount.mounted)
    assert (mount / ".sbxfs/version").read_text()      # it has said so before it answers
    mount.unmount()
    assert process.wait(60) == 0
    with os.fdopen(read) as log:
        lines = log.read().splitlines()
    assert lines and all(re.match(r"<[3-7]>\S", line) for line in lines), lines
    assert any(line.startswith("<6>mounted on ") for line in lines)


def test_another_stderr_than_the_journal_has_the_clock(new_mount, monkeypatch):
    monkeypatch.setenv("JOURNAL_STREAM", "1:1")
    mount = new_mount()
    mount.start()
    assert re.match(r"\d\d:\d\d:\d\d\.\d\d\d sbxfs info: ", mount.log.lines[-1])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may call mount(8) with options")
def test_mount_8_mounts_it(new_mount):
    """As fstab does it: source, mount point, options of mount's own. With an installed sbxfs
    it is `-t fuse.sbxfs`; PROGRAM#SOURCE is the same for one that is not on the path."""
    mount = new_mount()
    done = subprocess.run(
        ["mount", "-t", "fuse", f"{Path(find_sbxfs()).resolve()}#sandboxes", mount.path,
         "-o", f"rw,nofail,_netdev,x-systemd.automount,config={mount.config}"],
        env=mount.env, text=True, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    try:
        fields = next(mount.mountinfo())
        assert "fuse.sbxfs" in fields
        assert "fake ready" in (mount / ".sbxfs/backends").read_text()
    finally:
        # (It is busy while anybody on the machine looks at it.)
        wait_until(lambda: subprocess.run(["umount", mount.path], timeout=20).returncode == 0,
                   step=0.1)
    wait_until(lambda: not mount.mounted())


def test_config_among_the_mount_options(new_mount, tmp_path):
    """-o config= is -c: a bad file is named with its line."""
    bad = tmp_path / "bad.conf"
    bad.write_text("[mount]\nnonsense = 1\n")
    done = subprocess.run([find_sbxfs(), "-o", f"config={bad}", tmp_path], text=True,
                          capture_output=True, timeout=20)
    assert done.returncode == 2 and f"{bad}, line 2" in done.stderr
