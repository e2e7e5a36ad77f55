"""ports/: mkdir makes a port of the guest reachable, url says where, rmdir closes it."""

import errno
import os
import urllib.request

from support import free_port, refused, wait_until


def url(box, port):
    return box.read(f"ports/{port}/url").rstrip("\n")


def test_a_server_in_the_guest(box):
    port = free_port()
    assert os.listdir(box / "ports") == []
    os.mkdir(box / f"ports/{port}")
    assert os.listdir(box / "ports") == [str(port)]
    assert url(box, port).startswith("http://127.0.0.1:")
    (box.disk / "page").write_text("served")
    box.run(f"exec python3 -m http.server --bind 127.0.0.1 {port}")
    box.wait_job("running")

    def page():
        try:
            return urllib.request.urlopen(url(box, port) + "/page", timeout=5).read()
        except OSError:
            return None
    wait_until(lambda: page() == b"served")
    os.rmdir(box / f"ports/{port}")
    assert os.listdir(box / "ports") == []
    refused(errno.ENOENT, open, box / f"ports/{port}/url")


def test_asked_again_when_it_comes_up(own_mount):
    """After a restart of the guest and of the daemon; the fake backend remembers nothing."""
    box = own_mount.box()
    for port in (8080, 53, 443):
        os.mkdir(box / f"ports/{port}")
    box.write("ctl", "stop")
    box.wait_status("stopped")
    assert url(box, 8080) == ""
    box.write("ctl", "start")
    box.wait_status("running")
    assert url(box, 8080) == "http://127.0.0.1:8080"
    own_mount.kill()
    own_mount.start()
    wait_until(lambda: url(box, 443) == "http://127.0.0.1:443")
    assert os.listdir(box / "ports") == ["53", "443", "8080"]


def test_what_is_refused(box):
    for name in ("0", "65536", "http", "-1", "08080", "80 80"):
        refused(errno.EINVAL, os.mkdir, box / "ports" / name)
    assert "1 to 65535" in box.error()
    os.mkdir(box / "ports/8080")
    refused(errno.EEXIST, os.mkdir, box / "ports/8080")
    refused(errno.ENOENT, os.rmdir, box / "ports/8081")
    refused(errno.ENOENT, os.stat, box / "ports/08080")
    refused(errno.EACCES, os.mkdir, box / "ports/666")       # what the backend refuses
    assert "opens no port 666" in box.error()
    assert os.listdir(box / "ports") == ["8080"]
    refused(errno.EPERM, os.mkdir, box / "ports/8080/more")
    refused(errno.EPERM, os.unlink, box / "ports/8080/url")


def test_at_most_64(box):
    for port in range(1000, 1064):
        os.mkdir(box / f"ports/{port}")
    refused(errno.ENOSPC, os.mkdir, box / "ports/1064")
    os.rmdir(box / "ports/1010")
    os.mkdir(box / "ports/1064")
    assert len(os.listdir(box / "ports")) == 64


def test_files_of_the_backend(box):
    os.mkdir(box / "ports/8080")
    assert sorted(os.listdir(box / "ports/8080")) == ["url", "visibility"]
    assert box.read("ports/8080/visibility") == "private\n"
    box.write("ports/8080/visibility", "public\n")
    assert box.read("ports/8080/visibility") == "public\n"
    refused(errno.EINVAL, box.write, "ports/8080/visibility", "secret")
    assert "private or public" in box.error()


def test_one_of_another_sandbox(mount, box):
    other = mount.box()
    os.mkdir(box / "ports/8080")
    assert os.listdir(other / "ports") == []
    fd = os.open(box / "ports/8080/url", os.O_RDONLY)
    box.destroy()
    try:
        assert os.read(fd, 100) == b""
    except OSError as e:
        assert e.errno == errno.ESTALE
    os.close(fd)
    other.destroy()
