"""The whole life of a real virtual machine, through the mount, as its user sees it."""

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from drive import images_folder
from support import Mount, alive, ask, matches, wait_until, write

CONFIG = """\
[mount]
backends = kvm
[defaults]
memory = 512M
disk = 4G
[kvm]
images = {images}
accel = tcg
templates = off
[limits]
trash = 0
"""


class Machine:
    """A sandbox and the evidence of it outside the mount."""

    def __init__(self, mount, name):
        self.mount, self.name, self.path = mount, name, mount / name
        self.path.mkdir()

    def __truediv__(self, file):
        return self.path / file

    def run(self, command):
        """As a user does it: echo COMMAND > cmd; cat stdout."""
        write(self / "cmd", command + "\n")
        return (self / "stdout").read_text()

    def status(self):
        return (self / "status").read_text().strip()

    def await_status(self, *wanted, timeout=180):
        return wait_until(lambda: self.status() in wanted and self.status(), timeout, 0.05)

    def info(self):
        return json.loads((self / "info.json").read_text())

    def folder(self):
        return self.mount.folder / "state/sbxfs/kvm" / self.name

    def destroy(self):
        """rmdir, and afterwards there is no process, no file, no socket and no open port."""
        info = self.info()
        self.path.rmdir()
        wait_until(lambda: not self.path.exists(), 60)
        for pid in ("pid", "net_pid"):
            assert pid not in info or not alive(int(info[pid]))
        assert not self.folder().exists()
        run = self.mount.folder / "run"
        assert not [p for p in matches(run, "**/*") if p.name.startswith(self.name + ".")]
        if "port" in info:
            with socket.socket() as s:
                assert s.connect_ex(("127.0.0.1", int(info["port"]))) != 0


@pytest.fixture
def mount():
    mount = Mount(CONFIG.format(images=images_folder()))
    yield mount
    if mount not in Mount.running:
        mount.start()
    for path in Path(mount.path).iterdir():
        path.rmdir()
    wait_until(lambda: not list(Path(mount.path).iterdir()), 60)
    mount.clean()


def session_of_the_issue(hello):
    """The first session of the README, word by word."""
    write(hello / "cmd", "uname -a; echo oops >&2; exit 3\n")
    assert (hello / "stdout").read_text().startswith("Linux hello ")
    assert (hello / "stderr").read_text() == "oops\n"
    assert (hello / "exit").read_text() == "3\n"
    with open(hello / "root/etc/hosts", "a") as f:
        f.write("10.0.0.1 db\n")
    assert hello.run("tail -1 /etc/hosts") == "10.0.0.1 db\n"


def scripts_and_files(hello):
    assert hello.run("#!/usr/bin/env python3\nimport json, sys\n"
                     "print(json.dumps([sys.version_info.major, 'no quoting \\' \" $HOME']))\n") \
        == '[3, "no quoting \' \\" $HOME"]\n'
    big = "# " + "x" * (1 << 20) + "\necho ran\n"
    assert hello.run(big) == "ran\n"
    assert ask(hello / "cmd", "cat /proc/sys/kernel/hostname; df --output=size -BG / | tail -1") \
        .split() == [b"hello", b"4G"]
    data = os.urandom(3 << 20)
    (hello / "root/tmp/blob").write_bytes(data)
    assert (hello / "root/tmp/blob").read_bytes() == data
    digest = subprocess.run(["md5sum"], input=data, capture_output=True, check=True).stdout
    assert hello.run("md5sum </tmp/blob").encode() == digest


def output_comes_as_it_is_made(hello):
    write(hello / "cmd", "for i in 1 2 3; do echo $i; until [ -e /run/$i ]; do sleep 0.1; done; "
                         "done")
    with open(hello / "stdout", "rb", buffering=0) as f:
        for n in (1, 2, 3):
            assert f.readline() == f"{n}\n".encode()
            (hello / f"root/run/{n}").touch()       # it does not go on before
        assert f.readline() == b""


def ssh_config_works(hello):
    config = hello.mount.folder / "ssh_config"
    config.write_text((hello / "ssh_config").read_text())
    done = subprocess.run(["ssh", "-F", config, hello.name, "hostname"], text=True, timeout=60,
                          stdin=subprocess.DEVNULL, capture_output=True)
    assert done.stdout == "hello\n", done.stderr


@pytest.mark.deadline(400)
def test_life(mount):
    mount.start()
    assert "kvm ready" in (mount / ".sbxfs/backends").read_text()
    hello = Machine(mount, "hello")
    assert hello.status() in ("creating", "booting")    # mkdir does not wait for that
    session_of_the_issue(hello)
    assert hello.status() == "running"
    scripts_and_files(hello)
    output_comes_as_it_is_made(hello)
    ssh_config_works(hello)
    assert "Linux version" in (hello / "console").read_text()
    info = hello.info()
    assert info["accel"] == "tcg" and "PRIVATE" not in (hello / "info").read_text()

    mount.process.kill()        # kill -9 of the daemon: the machine runs on, and is adopted
    mount.process.wait()
    mount.ended()
    assert alive(int(info["pid"]))
    mount.start()
    assert hello.await_status("running") and hello.info()["pid"] == info["pid"]
    assert hello.run("tail -1 /etc/hosts") == "10.0.0.1 db\n"

    write(hello / "ctl", "stop\n")
    hello.await_status("stopped")
    assert not alive(int(info["pid"]))
    mount.stop()                # an orderly end, and a mount that finds it stopped
    mount.start()
    assert hello.await_status("stopped")
    write(hello / "ctl", "start\n")
    assert hello.run("tail -1 /etc/hosts") == "10.0.0.1 db\n"
    assert hello.info()["host_key"] == info["host_key"]
    hello.destroy()
    mount.stop()


def test_destroyed_while_it_boots(mount):
    mount.start()
    box = Machine(mount, "box")
    write(box / "cmd", "echo never")
    box.await_status("booting")
    box.destroy()
    again = Machine(mount, "box")
    again.await_status("booting")
    mount.process.send_signal(signal.SIGKILL)
    mount.process.wait()
    mount.ended()
    mount.start()
    assert again.await_status("booting", "running")
    again.destroy()


def test_guest_that_never_comes_up(mount):
    """status failed, why in error, the console readable."""
    source = (images_folder() / "debian").resolve()
    broken = mount.folder / "images/debian"
    broken.mkdir(parents=True)
    for path in source.iterdir():
        if path.name == "initrd":
            (broken / "initrd").write_bytes(b"not an initrd")
        else:
            (broken / path.name).symlink_to(path)
    mount.config.write_text(CONFIG.format(images=broken.parent))
    mount.start()
    box = Machine(mount, "box")
    write(box / "cmd", "echo never")
    box.await_status("failed")
    assert "Unable to mount root fs" in (box / "error").read_text()
    assert "Kernel panic" in (box / "console").read_text()
    with pytest.raises(OSError):
        Machine(mount, "no-such-IMAGE")
    box.destroy()
