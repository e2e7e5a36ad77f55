"""Networks that fail: who asks is told, memory still answers, and nobody else is delayed."""

import errno
import os
import re
import signal
import socket
import subprocess
import threading
import time

import pytest

from support import blocked_in_read, free_port, refused, wait_until

# Silence is known after some 15 s (fs/ssh/session.c: DEAD_MS); this is how long to wait for it.
SILENCE = 60


def run(*argv):
    return subprocess.run(argv, capture_output=True, text=True, timeout=20)


def in_fuse(process):
    """Does it wait for an answer of the mount?"""
    with open(f"/proc/{process.pid}/wchan") as wchan:
        return "request_wait" in wchan.read()


def look_at_everything(mount, box):
    """What answers from memory, as users ask for it: each within the timeout of run()."""
    assert box.name in run("ls", "-l", mount).stdout
    assert "status" in run("ls", "-l", "--ignore=root", box).stdout
    assert run("stat", box / "status").returncode == 0
    assert run("stat", box).returncode == 0
    assert run("df", mount).returncode == 0
    assert run("df", box / "status").returncode == 0
    assert run("cat", box / "status").stdout in ("running\n", "unreachable\n")
    assert run("cat", box / "info", box / "info.json", box / "error").returncode == 0
    assert run("cat", box / "console").returncode == 0
    assert run("stat", box / "nobody").returncode != 0
    assert run("stat", mount / "nobody").returncode != 0
    assert run("ls", box / "jobs").returncode == 0


def test_silence(mount, box, spawn):
    """A network that swallows everything: nothing hangs, and the fact is found out."""
    other = mount.box()
    box.run("sleep 1000")
    box.wait_job("running")
    reader = spawn(["cat", box / "stdout"])
    wait_until(lambda: blocked_in_read(reader))
    box.control("silent")
    look_at_everything(mount, box)
    for n in range(20):
        assert other.ask(f"echo {n}") == b"%d\n" % n
    # nobody has asked for anything: the link's own pulse finds it out
    box.wait_status("unreachable", timeout=SILENCE)
    assert box.exit() == "lost"
    assert reader.wait(60) == 0
    assert box.error()
    look_at_everything(mount, box)
    start = time.monotonic()        # nobody asks the network: that would take SILENCE
    refused(errno.EHOSTDOWN, box.run, "true")
    refused(errno.EHOSTDOWN, os.listdir, box.path / "root")
    refused(errno.EHOSTDOWN, os.stat, f"{box.path}/root/etc")
    assert time.monotonic() - start < 14
    assert other.ask("echo still") == b"still\n"
    box.control("revive")
    box.wait_status("running")
    assert box.ask("echo back") == b"back\n"
    assert box.disk.is_dir()
    other.destroy()


def test_a_quiet_job_is_not_a_dead_link(mount):
    """Nothing to say for longer than a dead link has: jobs whose input is held go on."""
    boxes = [mount.box() for _ in range(3)]
    held = []
    for box in boxes:
        os.mkdir(box / "jobs/quiet")
        held.append(os.open(box / "jobs/quiet/stdin", os.O_WRONLY))
        box.write("jobs/quiet/cmd", "cat")
    time.sleep(18)
    for box, fd in zip(boxes, held):
        os.write(fd, b"still here\n")
        os.close(fd)
        assert box.read("jobs/quiet/stdout") == "still here\n"
        assert box.read("jobs/quiet/exit") == "0\n"
        box.destroy()


def test_calls_in_flight_when_silence_falls(mount, box, spawn):
    """Each gets an answer within a bound, and ^C frees whoever does not want to wait."""
    other = mount.box()
    (box.home / "file").write_text("text")
    assert (box.disk / "file").read_text() == "text"
    other.control("silent")
    box.control("silent")
    waiting = spawn(["cat", box.disk / "new"], stderr=-1)
    impatient = spawn(["cat", box.disk / "newer"], stderr=-1)
    wait_until(lambda: all(in_fuse(process) for process in (waiting, impatient)))
    impatient.send_signal(signal.SIGINT)
    assert impatient.wait(60) == -signal.SIGINT     # and not 1, as when the silence is known
    # a writer of cmd is not held
    other.run("echo hello")
    assert waiting.poll() is None
    assert waiting.wait(SILENCE) == 1
    assert b"Host is down" in waiting.stderr.read()
    other.wait_status("unreachable", timeout=SILENCE)
    assert other.exit() in ("lost", "cancelled")
    other.destroy()


def test_every_network_is_dead(own_mount):
    boxes = [own_mount.box() for _ in range(3)]
    for box in boxes:
        box.control("dead")
    for box in boxes:
        box.wait_status("unreachable")
    for box in boxes:
        look_at_everything(own_mount, box)
        refused(errno.EHOSTDOWN, box.run, "true")
        refused(errno.EHOSTDOWN, os.listdir, box.path / "root")
    for box in boxes:
        box.control("revive")
    for box in boxes:
        box.wait_status("running")
        assert box.ask("echo back") == b"back\n"


def test_a_cut_link_comes_back_at_once(box):
    """Only the connection went, not the machine: nobody sees more than a lost job."""
    assert box.ask("echo one") == b"one\n"
    box.control("cut")
    assert box.ask("echo two") == b"two\n"
    assert box.disk.is_dir()
    assert box.status() == "running"


def test_a_sandbox_that_dies_delays_no_other(mount, box):
    other = mount.box()
    for n in range(3):
        box.control("dead")
        assert other.ask(f"echo {n}") == b"%d\n" % n
        assert other.disk.is_dir()
        box.wait_status("unreachable")
        assert other.ask(f"echo {n}") == b"%d\n" % n
        box.control("revive")
        box.write("ctl", "start\n")
        box.wait_status("running")
    other.destroy()


def test_a_refused_connection_while_booting(mount):
    """sshd is often not there yet when the machine is: it is tried again."""
    box = mount.box(None, "refuse", wait=False)
    box.run("echo patience")
    wait_until(lambda: "port" in box.info())
    assert box.status() == "booting"
    box.control("revive")
    assert box.out() == "patience\n"
    assert box.status() == "running"
    box.destroy()


def test_wrong_host_key(mount):
    """It is refused, named, and nothing is ever sent there."""
    box = mount.box(None, "wronghostkey", "boot 600000", wait=False)
    box.run("echo secret > seen")
    box.control("boot 0")
    box.wait_status("unreachable")
    assert "host key" in box.error()
    assert box.exit() == "cancelled"
    refused(errno.EHOSTDOWN, box.run, "echo secret > seen")
    refused(errno.EHOSTDOWN, os.listdir, box.path / "root")
    assert not (box.home / "seen").exists()
    assert "host key" in mount.errors()
    box.destroy()


def test_host_key_that_changes(mount, box):
    """What was fine before is refused as well."""
    assert box.ask("echo fine") == b"fine\n"
    box.control("wronghostkey")
    box.wait_status("unreachable")
    assert "host key" in box.error()
    box.control("revive")
    box.wait_status("running")
    assert box.ask("echo fine") == b"fine\n"


def test_rmdir_of_an_unreachable_sandbox(mount):
    box = mount.box(None)
    box.control("silent")
    box.destroy()
    assert mount.sshd_processes(box.name) == []


def test_start_probes_an_unreachable_sandbox(own_mount):
    """`start` asks for it now instead of at the next probe."""
    box = own_mount.box()
    failed = re.compile(r'^sbxfs_ssh_connections_total\{result="failure"\} (\d+)$', re.M)

    def failures():
        return int(failed.search((own_mount / ".sbxfs/metrics").read_text()).group(1))
    box.control("dead")
    wait_until(lambda: failures() >= 6)     # two of the cut, four probes: the next is 16 s away
    box.control("revive")
    box.write("ctl", "start\n")
    box.wait_status("running", timeout=15)


@pytest.mark.deadline(200)
def test_a_link_that_flaps(box):
    """Cut again and again under load: each job has one true result."""
    results = []
    for n in range(15):
        box.run(f"echo {n}; sleep 0.05; echo {n}")
        if n % 3 == 0:
            box.control("cut")
        results.append((box.exit(), box.out()))
    for n, (result, out) in enumerate(results):
        assert result in ("0", "lost")
        if result == "0":
            assert out == f"{n}\n{n}\n"
    assert ("0", "14\n14\n") == results[14]


class Tamperer(threading.Thread):
    """Stands between the daemon and a sandbox's port; flips one bit of what the sandbox sends."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.listener = port, socket.create_server(("127.0.0.1", 0))
        self.at = self.listener.getsockname()[1]
        self.flip, self.flipped = threading.Event(), threading.Event()
        self.start()

    def run(self):
        while True:
            client = self.listener.accept()[0]
            server = socket.create_connection(("127.0.0.1", self.port))
            for pair, tamper in (((client, server), False), ((server, client), True)):
                threading.Thread(target=self.carry, args=(*pair, tamper), daemon=True).start()

    def carry(self, source, to, tamper):
        try:
            while data := bytearray(source.recv(65536)):
                if tamper and len(data) > 1000 and self.flip.is_set():
                    self.flip.clear()
                    data[len(data) // 2] ^= 1
                    self.flipped.set()
                to.sendall(data)
            to.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def test_one_bit_changed_on_the_way(mount):
    """What the cipher's tag does not fit ends the connection; no byte of it is shown."""
    port = free_port()
    tamperer = Tamperer(port)
    box = mount.box(None, f"port {port}", f"via {tamperer.at}")
    assert box.ask("echo fine") == b"fine\n"
    tamperer.flip.set()
    box.run("yes | head -c 100000")
    assert tamperer.flipped.wait(60)
    assert box.exit() == "lost"
    assert set(box.out()) <= set("y\n")
    box.wait_status("running")
    assert box.ask("yes | head -c 1000000") == b"y\n" * 500000
    box.destroy()
