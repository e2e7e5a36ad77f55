"""What a guest reaches, and the life of the process that is its network."""

import json
import os
import re
import shutil
import signal

import pytest

from drive import Endpoint, alive, matches, wait_until
from test_clones import CREATE, create, destroy, template     # noqa: F401  (makes one)
from world import ANSWER, HOST, METADATA, OUTSIDE, name_server, serve, world

# What each of these says within a few seconds, asked from inside the guest, all at once.
ASK = """#!/usr/bin/env python3
import socket, threading
said = {{}}
def ask(host, port):
    s = socket.socket()
    s.settimeout(20)
    try:
        s.connect((host, port))
        s.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
        said[host, port] = "answers" if s.recv(100) else "closes"
    except OSError as e:
        said[host, port] = type(e).__name__ + " " + str(e.errno)
threads = [threading.Thread(target=ask, args=a) for a in {asked}]
[t.start() for t in threads]
[t.join() for t in threads]
for (host, port), what in said.items():
    print(host, port, what)
"""


def ask(guest, *asked):
    """{(host, port): what it said}"""
    said = guest.ssh("python3 - <<'EOF'\n" + ASK.format(asked=asked) + "EOF", timeout=120)
    return {(host, int(port)): what for host, port, what in
            re.findall(r"^(\S+) (\d+) (.*)$", said, re.MULTILINE)}


def all_up(drive, place, *wanted):
    """Their endpoints, in whatever order they come up."""
    up = {}
    while len(up) < len(wanted):
        line = drive.wait(r"^state \S+ up ")
        up[line.split()[1]] = Endpoint(line, place)
    return [up[name] for name in wanted]


def names(guest):
    done = guest.ssh("getent ahostsv4 world.example || echo none", timeout=120)
    return done.split()[0]


@pytest.fixture
def home():
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("a world of its own needs root and iproute2")
    with world():
        yield


@pytest.mark.deadline(400)
def test_what_is_reached(home, place):
    """On: the world and names, but nothing of the host or of others. Off: nothing at all."""
    drive = place.drive(accel="tcg", templates="on")
    loopback, everywhere = serve("127.0.0.1"), serve("0.0.0.0")
    drive.ask(f"create open {CREATE}")
    drive.ask(f"create other {CREATE}")
    drive.ask(f"create closed {CREATE} off")
    on, other, off = all_up(drive, place, "open", "other", "closed")
    never = [("10.0.2.2", loopback.server_port), ("127.0.0.1", loopback.server_port),
             ("10.0.2.2", everywhere.server_port), (HOST, everywhere.server_port),
             ("0.0.0.0", everywhere.server_port), ("10.0.2.2", other.port),
             (HOST, other.port), ("10.0.2.3", other.port), ("10.0.2.3", 22),
             (METADATA, 80), ("100.100.100.200", 80)]
    said = ask(on, *never, (OUTSIDE, 80), (ANSWER, 80))
    assert said.pop((OUTSIDE, 80)) == said.pop((ANSWER, 80)) == "answers"
    assert set(said) == set(never) and not {"answers", "closes"} & set(said.values()), said
    said = ask(off, *never, (OUTSIDE, 80), (ANSWER, 80), ("10.0.2.3", 53))
    assert len(said) == len(never) + 3 and not {"answers", "closes"} & set(said.values()), said
    # at once, by a word that says no, and not after minutes of silence
    assert said[OUTSIDE, 80] == "OSError 113"
    if name_server():
        assert names(on) == ANSWER
    assert names(off) == "none"
    destroy(drive, place, "open", "other", "closed")
    loopback.shutdown()
    everywhere.shutdown()


@pytest.mark.deadline(300)
def test_what_is_allowed(home, place):
    """[kvm] allow opens what it names and nothing beside it."""
    first, second = serve("127.0.0.1"), serve("127.0.0.1")
    drive = place.drive(accel="tcg", templates="on",
                        allow=f"127.0.0.1:{first.server_port} {METADATA}")
    guest = create(drive, "web")
    said = ask(guest, ("10.0.2.2", first.server_port), ("10.0.2.2", second.server_port),
               (METADATA, 80), ("100.100.100.200", 80), (HOST, guest.port))
    assert [what == "answers" for what in said.values()].count(True) == 2, said
    assert said["10.0.2.2", first.server_port] == said[METADATA, 80] == "answers"
    destroy(drive, place, "web")
    first.shutdown()
    second.shutdown()


@pytest.mark.deadline(300)
def test_its_process(place):
    """Killed, it is replaced on the same port and that is told; it ends with its QEMU."""
    drive = place.drive(accel="tcg", templates="on")
    guest = create(drive, "web")
    first = int(drive.info("web")["net_pid"])
    os.kill(first, signal.SIGKILL)
    assert "connections of before are lost" in drive.wait("^trouble web network ", 60)
    assert guest.ssh("echo same port") == "same port\n"
    second = int(drive.info("web")["net_pid"])
    assert second != first

    # without a daemon it lives on; a new daemon finds it, or puts another in its place
    drive.kill()
    drive = place.drive(accel="tcg", templates="on")
    guest = drive.up("web")
    assert guest.ssh("echo adopted") == "adopted\n"
    assert int(drive.info("web")["net_pid"]) == second
    drive.kill()
    os.kill(second, signal.SIGKILL)
    wait_until(lambda: not alive(second))
    drive = place.drive(accel="tcg", templates="on")
    assert drive.up("web").port == guest.port
    assert "another one was started" in drive.wait("^trouble web network ", 60)
    assert guest.ssh("echo again", timeout=120) == "again\n"

    # QEMU's end is its own, with a daemon or without
    third = int(drive.info("web")["net_pid"])
    drive.kill()
    place.kill_qemu("web")
    assert not alive(third)
    drive = place.drive(accel="tcg", templates="on")
    drive.wait("^state web stopped ")
    drive.ask("start web")
    drive.up("web")
    place.kill_qemu("web")
    drive.wait("^state web failed ", 60)
    assert not place.processes(str(place.state / "web"))
    destroy(drive, place, "web")
    assert not list(place.run.iterdir()) and not place.processes(str(place.state))


@pytest.mark.deadline(300)
def test_saved_by_an_earlier_one(place):
    """A state of machines with another network card is not tried: it boots, and says why."""
    drive = place.drive(accel="tcg", templates="on")
    create(drive, "web").ssh("echo kept >/root/file; sync")
    drive.ask("suspend web")
    drive.wait("^state web stopped")
    saved, = matches(place.state, ".layers/*/saved.json")
    about = json.loads(saved.read_text())
    saved.write_text(json.dumps({**about, "machine": 1}))
    drive.ask("start web")
    assert "saved by an earlier sbxfs" in drive.wait("^trouble web start ")
    assert drive.up("web").ssh("cat /root/file") == "kept\n"
    assert drive.info("web")["start"] == "boot"
    destroy(drive, place, "web")
