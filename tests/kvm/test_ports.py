"""ports/ and network = off on a real machine."""

import os
import re
import socket
import urllib.request
from pathlib import Path

import pytest

from support import alive, wait_until, write
from test_life import Machine, mount      # noqa: F401 (a fixture)

SERVE = "cd /tmp; echo served > page; exec python3 -m http.server 8080 --bind 0.0.0.0"


def url(m, port=8080):
    return (m / f"ports/{port}/url").read_text().strip()


def page(m, port=8080):
    try:
        return urllib.request.urlopen(url(m, port) + "/page", timeout=20).read()
    except (OSError, ValueError):
        return None


@pytest.mark.deadline(600)
def test_ports(mount):      # noqa: F811
    """Open, used, kept over a restart of the daemon and of the guest, closed."""
    mount.start()
    web = Machine(mount, "web")
    os.mkdir(web / "ports/8080")        # before there is a machine
    web.await_status("running")
    wait_until(lambda: re.fullmatch(r"http://127\.0\.0\.1:\d+", url(web)), 60)
    write(web / "cmd", SERVE)
    wait_until(lambda: page(web) == b"served\n", 60)
    os.mkdir(web / "ports/8081")
    wait_until(lambda: url(web, 8081), 20)
    assert url(web, 8081) != url(web)

    before = url(web)
    mount.kill()
    mount.start()
    wait_until(lambda: web.status() == "running" and url(web) == before, 60)
    assert web.info()["port"] not in (int(before.rsplit(":")[-1]),)     # ssh's is another one
    assert web.run("echo ssh") == "ssh\n"
    write(web / "ctl", "restart")
    wait_until(lambda: web.status() == "booting", 120)      # by force after a minute
    web.await_status("running")
    write(web / "cmd", SERVE)
    wait_until(lambda: url(web) and page(web) == b"served\n", 60)

    host_port = int(url(web).rsplit(":")[-1])
    os.rmdir(web / "ports/8080")
    assert os.listdir(web / "ports") == ["8081"]

    def closed():
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", host_port)) != 0
    wait_until(closed, 20)
    web.destroy()


ASK = """#!/usr/bin/env python3
import socket, sys
for host, port in (("10.0.2.2", {port}), ("10.0.2.3", 53), ("10.0.2.2", 22), ("1.1.1.1", 53),
                   ("169.254.169.254", 80)):
    s = socket.socket()
    s.settimeout(3)
    try:
        s.connect((host, port))
        print("reached", host, port)
    except OSError as e:
        print("closed", host, port)
"""


@pytest.mark.deadline(400)
def test_network_off(mount):        # noqa: F811
    """Nothing outside answers, the host's loopback neither; a forwarded port works."""
    mount.start()
    draft = Path(mount / ".sbxfs/new/closed")
    draft.mkdir()
    write(draft / "network", "off")
    os.rename(draft, mount / "closed")
    closed = object.__new__(Machine)
    closed.mount, closed.name, closed.path = mount, "closed", mount / "closed"
    closed.await_status("running")
    assert closed.info()["network"] == "off"
    with socket.create_server(("127.0.0.1", 0)) as server:
        said = closed.run(ASK.format(port=server.getsockname()[1]))
    assert "reached" not in said and said.count("closed") == 5
    assert closed.run("getent hosts deb.debian.org || echo none") == "none\n"
    os.mkdir(closed / "ports/8080")
    write(closed / "cmd", SERVE)
    wait_until(lambda: url(closed) and page(closed) == b"served\n", 60)
    pid = closed.info()["pid"]
    closed.destroy()
    assert not alive(int(pid))
