"""Suspend and start: what runs in a sandbox, and who is connected to it, goes on where it was."""

import contextlib
import errno
import hashlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from drive import images_folder
from support import Mount, alive, matches, refused, wait_until, write, write_all
from test_clones import create, destroy, nothing_left, snapshot, \
    template    # noqa: F401  (makes one, or skips)
from test_rest import run, status

CONFIG = """\
[mount]
backends = kvm
[defaults]
cpus = 2
memory = 512M
disk = 4G
[kvm]
images = {images}
accel = tcg
[limits]
trash = {trash}
"""


@pytest.fixture
def new_mount():
    mounts = []

    def make(trash="0"):
        mounts.append(Mount(CONFIG.format(images=images_folder(), trash=trash)))
        return mounts[-1].start()
    yield make
    for mount in mounts:
        mount.close_leaked()
        if mount not in Mount.running:
            mount.start()
        folders = Path(mount.path), mount / ".sbxfs/trash"
        for folder in folders:
            for path in folder.iterdir():
                path.rmdir()
        wait_until(lambda: not any(list(folder.iterdir()) for folder in folders), 60)
        mount.clean()


def up(mount):
    box = mount / "web"
    box.mkdir()
    assert run(box, "hostname") == "web\n"
    return box


def job(box, command):
    """A new job; its folder."""
    write(box / "cmd", command)
    return box / "jobs" / os.readlink(box / "jobs/latest")


def text(path):
    return path.read_text().strip()


def info(box):
    return dict(line.split(" ", 1) for line in (box / "info").read_text().splitlines()
                if " " in line)


def suspend(box):
    """The pid of its network, which stays, or None."""
    write(box / "ctl", "suspend")
    wait_until(lambda: status(box) == "stopped", 120)
    assert info(box)["suspended"] == "yes" and "pid" not in info(box)
    return int(info(box).get("net_pid", 0)) or None


def start(box):
    write(box / "ctl", "start")
    wait_until(lambda: status(box) == "running", 180)


def listener(box, command):
    """A new job whose input is held: its folder, and that."""
    folder = box / "jobs" / f"n{len(os.listdir(box / 'jobs'))}"
    folder.mkdir()
    stdin = open(folder / "stdin", "wb", buffering=0)
    write(folder / "cmd", command)
    return folder, stdin


def counter(box):
    """A job that has begun to count the lines that it is sent."""
    counts, stdin = listener(box, "n=0; while read x; do n=$((n + 1)); echo $n; done; exit 7\n")
    stdin.write(b"x\n")
    wait_until(lambda: text(counts / "log") == "1", 60)
    return counts, stdin


def let_go(stdin):
    """Of a job that is over, or of a mount that is."""
    with contextlib.suppress(OSError):
        stdin.close()


def is_lost(counts, stdin, box):
    """Its output does not come any more, and that is told; the sandbox is as good as any."""
    wait_until(lambda: text(counts / "status").startswith("lost"), 30)
    assert text(counts / "exit") == "lost"
    let_go(stdin)
    start(box)
    assert run(box, "echo again") == "again\n"


LINES = "".join(f"{n}\n" for n in range(1, 20001)).encode()
ECHO = """#!/usr/bin/env python3
import socket
server = socket.create_server(("", 8080))
print("listens", flush=True)
peer = server.accept()[0]
while data := peer.recv(1000):
    peer.sendall(data.upper())
"""


@pytest.mark.deadline(400)
def test_goes_on(new_mount):
    """Jobs that speak, listen, wait; a connection to a port; a file that is open: twice."""
    box = up(new_mount())
    (box / "ports/8080").mkdir()
    listens = job(box, ECHO)
    wait_until(lambda: text(listens / "log") == "listens", 60)
    wait_until(lambda: text(box / "ports/8080/url"), 20)
    url = text(box / "ports/8080/url")
    peer = socket.create_connection(("127.0.0.1", int(url.rsplit(":")[-1])), 60)
    peer.sendall(b"before")
    assert peer.recv(100) == b"BEFORE"

    counts, count = counter(box)
    speaks = job(box, "until [ -e /run/enough ]; do seq 20000; sleep 0.1; done; exit 3\n")
    hears, stdin = listener(box, "sha256sum\n")
    sent, enough = hashlib.sha256(), threading.Event()

    def send():
        with stdin:
            while not enough.wait(0.1):
                write_all(stdin.fileno(), LINES)
                sent.update(LINES)
    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    opened = open(box / "root/root/file", "wb", buffering=0)
    opened.write(b"before\n")
    wait_until(lambda: (speaks / "log").stat().st_size > len(LINES), 60)

    (box / "snapshots/there").mkdir()
    wait_until(lambda: (box / "snapshots/there").stat().st_size > 0, 60)
    draft = box.parent / ".sbxfs/new/copy"
    draft.mkdir()
    write(draft / "from", "web")
    draft.rename(box.parent / "copy")
    assert run(box.parent / "copy", "hostname") == "copy\n"
    (box.parent / "copy").rmdir()

    for silence in (17, 0):     # longer than a connection may be silent; and at once
        if not silence:
            write(box / "ctl", "pause")
            wait_until(lambda: status(box) == "paused", 60)
        assert suspend(box)
        peer.sendall(b"while it is away")
        time.sleep(silence)
        for each in (counts, speaks, hears, listens):
            assert text(each / "status") == "running"
        start(box)
        assert peer.recv(100) == b"WHILE IT IS AWAY"
        count.write(b"x\n")
    wait_until(lambda: text(counts / "log") == "1\n2\n3", 60)
    count.close()
    assert text(counts / "exit") == "7"
    assert run(box, "echo new") == "new\n"
    opened.write(b"after\n")
    opened.close()
    assert run(box, "cat /root/file") == "before\nafter\n"
    asked = time.time()
    assert asked - 20 < float(run(box, "date +%s.%N")) < time.time() + 20

    enough.set()
    sender.join(120)
    assert (hears / "stdout").read_text().split()[0] == sent.hexdigest()
    run(box, "touch /run/enough")
    said = (speaks / "stdout").read_bytes()
    assert said == len(said) // len(LINES) * LINES and text(speaks / "exit") == "3"
    wait_until(lambda: text(box / "ports/8080/url") == url, 20)
    peer.close()
    assert text(listens / "exit") == "0"
    assert not text(box / "error")


@pytest.mark.deadline(400)
def test_network_ends_while_away(new_mount):
    """What held the connections dies, or the daemon does: jobs are lost, and nothing else."""
    mount = new_mount()
    box = up(mount)
    counts, stdin = counter(box)
    network = suspend(box)
    os.kill(network, signal.SIGKILL)
    is_lost(counts, stdin, box)

    for end in (mount.kill, mount.stop):
        counts, stdin = counter(box)
        network = suspend(box)
        let_go(stdin)
        end()
        wait_until(lambda: not alive(network), 20)
        mount.start()
        assert not matches(mount.folder / "run", "**/web.*")
        is_lost(counts, stdin, box)

    # removed while it is away
    network = suspend(box)
    box.rmdir()
    wait_until(lambda: not box.exists(), 60)
    assert not alive(network) and not matches(mount.folder / "run", "**/web.*")


def own_images(folder):
    """The image debian with its templates, in a folder from which a test may take files."""
    ours = folder / "images/debian"
    ours.mkdir(parents=True)
    for path in (images_folder() / "debian").resolve().iterdir():
        (ours / path.name).symlink_to(path)
    return ours


@pytest.mark.deadline(400)
def test_start_that_is_refused(new_mount):
    """What is in the way of a start costs neither the memory nor the connections."""
    mount = new_mount()
    mount.stop()
    image = own_images(mount.folder)
    mount.config.write_text(CONFIG.format(images=image.parent, trash="0"))
    box = up(mount.start())
    counts, stdin = counter(box)
    network = suspend(box)

    about = os.readlink(image / "image.json")
    (image / "image.json").unlink()         # this is seen at once
    refused(errno.EINVAL, write, box / "ctl", "start")
    assert "image.json" in text(box / "error") and status(box) == "stopped"
    (image / "image.json").symlink_to(about)

    run_dir, = matches(mount.folder / "run", "**/kvm")
    run_dir.rename(mount.folder / "elsewhere")  # and this when it is tried
    write(box / "ctl", "start")
    wait_until(lambda: str(run_dir) in text(box / "error"), 60)
    wait_until(lambda: status(box) == "stopped", 60)
    assert info(box)["suspended"] == "yes" and text(counts / "status") == "running"
    (mount.folder / "elsewhere").rename(run_dir)

    start(box)
    stdin.write(b"x\n")
    wait_until(lambda: text(counts / "log") == "1\n2", 60)
    assert int(info(box)["net_pid"]) == network
    stdin.close()
    assert text(counts / "exit") == "7"


def another_dev(place):
    """What a daemon is started with to have mounts of its own; where the device is there at all."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("/dev/kvm cannot be opened")
    if subprocess.run(["unshare", "-m", "true"], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("mounts of its own need root")
    socket.socket(socket.AF_UNIX).bind(str(place.folder / "nothing"))   # cannot be opened by anyone
    return ["unshare", "-m"]


@contextlib.contextmanager
def connection(guest):
    """Somebody who is logged in; a function that says whether he still is."""
    with subprocess.Popen(guest.command("cat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          bufsize=0) as cat:
        def echoes():
            with contextlib.suppress(BrokenPipeError):
                cat.stdin.write(b"there\n")
            return cat.stdout.readline() == b"there\n"
        assert echoes()
        yield echoes


@pytest.mark.deadline(400)
def test_restore_that_fails(place):
    """What was suspended is what it was."""
    countdown = place.folder / "countdown"      # the disk of its last line cannot be made
    place.wrapper("qemu-img", f"""
if [ -s {countdown} ]; then
	sed -i 1d {countdown}
	[ -s {countdown} ] || {{ echo no room today >&2; exit 1; }}
fi
exec "$REAL" "$@" """)
    drive = place.drive(accel="tcg", templates="on", env={"PATH": place.wrapped_path()})
    guest = create(drive, "web")
    snapshot(drive, "web", "first")
    with connection(guest) as echoes:
        drive.ask("suspend web")
        drive.wait("^state web stopped")
        network = drive.info("web")["net_pid"]
        countdown.write_text("its present\nthat of the snapshot\n")
        drive.ask("restore web first")
        assert "no room today" in drive.wait("^trouble web restore ")
        assert "no room today" in drive.wait("^state web stopped ")
        assert drive.info("web")["suspended"] == "yes"
        drive.ask("start web")
        drive.up("web")
        assert drive.info("web")["net_pid"] == network and echoes()
    destroy(drive, place, "web")


@pytest.mark.deadline(400)
def test_saved_with_a_kvm_that_is_gone(place):
    """It waits for KVM, with its memory, and whoever is connected does."""
    drive = place.drive(accel="tcg", templates="on")
    guest = create(drive, "web")
    drive.quit()
    record = json.loads(place.record("web").read_text())
    place.record("web").write_text(json.dumps({**record, "accel": "kvm"}))  # as far as is known
    drive = place.drive(prefix=another_dev(place), accel="tcg")
    drive.up("web")
    with connection(guest) as echoes:
        drive.ask("suspend web")
        drive.wait("^state web stopped")
        network = int(drive.info("web")["net_pid"])
        subprocess.run(["nsenter", "-t", str(drive.process.pid), "-m", "mount", "--bind",
                        place.folder / "nothing", "/dev/kvm"], check=True)
        with pytest.raises(RuntimeError, match="^-6 its memory was saved with KVM, and /dev/kvm"):
            drive.ask("start web")
        info = drive.info("web")
        assert info["suspended"] == "yes" and info["accel"] == "kvm"
        assert int(info["net_pid"]) == network and alive(network)
        destroy(drive, place, "web")
        assert not echoes()
    nothing_left(place)


@pytest.mark.deadline(400)
def test_comes_back_as_something_else(new_mount):
    """Another state of the guest does not get the connections of this one."""
    mount = new_mount("1h")
    box = up(mount)
    (box / "snapshots/first").mkdir()
    wait_until(lambda: (box / "snapshots/first").stat().st_size > 0, 60)
    counts, stdin = counter(box)
    network = suspend(box)
    write(box / "ctl", "restore first")
    wait_until(lambda: status(box) == "running", 120)
    assert not alive(network) and text(counts / "status").startswith("lost")
    let_go(stdin)
    assert run(box, "echo restored") == "restored\n"

    # what was saved cannot be used: it boots
    counts, stdin = counter(box)
    suspend(box)
    for saved in matches(mount.folder / "state", "**/.layers/*/saved.json"):
        saved.write_text(saved.read_text().replace('"machine":2', '"machine":1')
                         .replace('"machine":\t2', '"machine":\t1'))
    start(box)
    assert "saved by an earlier sbxfs" in info(box)["start_why"]
    assert text(counts / "status").startswith("lost") and run(box, "echo booted") == "booted\n"
    let_go(stdin)

    # in the trash nobody waits for it
    counts, stdin = counter(box)
    network = suspend(box)
    box.rmdir()
    wait_until(lambda: not alive(network), 20)
    trashed, = (mount / ".sbxfs/trash").iterdir()
    trashed.rename(box)
    is_lost(box / "jobs" / counts.name, stdin, box)
