"""From mkdir to rmdir at the stand-in: what is asked of the service, and how often."""

import errno
import os

from support import refused, wait_until


def test_a_life(cloud, exe_mount):
    """mkdir, a command, files, rmdir: one `new`, one connection, no ssh over HTTPS."""
    mount = exe_mount(cloud, "refresh = 1h\n")
    wait_until(lambda: cloud.count("ls") == 1)          # what is there at the mount
    before = cloud.service.counts()
    box = mount.new("web", wait=False)
    box.run("echo hello; exit 3")
    assert box.exit() == "3"
    assert box.out() == "hello\n"
    assert cloud.service.names() == ["web"]
    assert cloud.count("new") == 1
    assert cloud.count("ls") - before.get("ls", 0) <= 1
    assert cloud.count("ssh") == 0
    assert cloud.front.connections() == 1
    os.rmdir(box)
    wait_until(lambda: mount.names() == [])
    assert cloud.service.names() == []
    assert cloud.count("rm") == 1
