"""What rmdir removed is kept for a while, and comes back by mv."""

import errno
import os
import re

import pytest

from support import CONFIG, Box, refused, wait_until
from test_life import Clock, HOUR, MINUTE

WITH_TRASH = CONFIG.replace("[limits]\ntrash = 0\n", "")


@pytest.fixture
def mount(new_mount):
    return new_mount(WITH_TRASH).start()


def trash(mount):
    return sorted(os.listdir(mount / ".sbxfs/trash"))


def trashed(mount, name):
    found = [entry for entry in trash(mount) if entry.startswith(name + "@")]
    assert len(found) == 1
    return Box(mount, ".sbxfs/trash/" + found[0])


def test_rmdir_puts_it_there(mount):
    """Away at once, stopped, its processes gone, its disk and jobs kept; its name is free."""
    box = mount.box("web")
    box.ask("echo kept > file; echo output")
    box.run("sleep 1000")
    box.wait_job("running")
    os.rmdir(box.path)
    assert "web" not in os.listdir(mount)
    inside = trashed(mount, "web")
    assert re.fullmatch(r"web@\d{8}T\d{6}Z", inside.name.rsplit("/")[-1])
    inside.wait_status("stopped")
    assert mount.guest_processes("web") == []
    assert (inside / "jobs/1/stdout").read_text() == "output\n"
    assert inside.read("jobs/2/exit") == "lost\n"
    refused(errno.EHOSTDOWN, inside.write, "cmd", "true")
    assert inside.error() == "the sandbox lies in the trash: mv brings it back"
    assert f" {inside.name}/cmd " in mount.errors().splitlines()[-1]
    refused(errno.EBUSY, inside.write, "ctl", "start")
    assert "trash" in inside.error()
    new = mount.box("web")
    assert new.ask("ls") == b"" and new.info()["id"].startswith("web-")


def test_mv_brings_it_back(mount):
    """...as it was: running again, with its disk and its jobs, under any name."""
    box = mount.box("web")
    box.ask("echo kept > file; echo output")
    os.rmdir(box.path)
    inside = trashed(mount, "web")
    inside.wait_status("stopped")
    os.rename(inside.path, mount / "again")
    again = Box(mount, "again")
    again.wait_status("running")
    assert trash(mount) == []
    assert again.ask("cat file") == b"kept\n" and again.read("jobs/1/stdout") == "output\n"


def test_back_before_it_has_stopped(mount):
    box = mount.box("web")
    box.ask("echo kept > file")
    os.rmdir(box.path)
    os.rename(trashed(mount, "web").path, mount / "web")
    wait_until(lambda: box.status() == "running" and box.ask("cat file") == b"kept\n")


def test_there_and_back_again_and_again(mount):
    """Each time it is stopped anew, or is not: it runs jobs afterwards."""
    box = mount.box("web")
    for n in range(8):
        assert box.ask(f"echo {n}") == f"{n}\n".encode()
        os.rmdir(box.path)
        if n % 2:       # that it has stopped is heard of there, or only behind
            trashed(mount, "web").wait_status("stopped")
        os.rename(trashed(mount, "web").path, box.path)


def test_a_stopped_one_comes_back_stopped(mount):
    box = mount.box("web")
    box.write("ctl", "stop")
    box.wait_status("stopped")
    os.rmdir(box.path)
    inside = trashed(mount, "web")
    os.rename(inside.path, mount / os.path.basename(inside.name))   # as `mv trash/web@... .` does
    assert box.status() == "stopped" and os.listdir(mount) == ["web"]
    box.write("ctl", "start")
    box.wait_status("running")


def test_the_name_must_be_free(mount):
    box = mount.box("web")
    os.rmdir(box.path)
    inside = trashed(mount, "web")
    mount.box("web")
    refused(errno.EEXIST, os.rename, inside.path, mount / "web")
    refused(errno.EINVAL, os.rename, inside.path, mount / "We b")
    refused(errno.EPERM, os.rename, inside.path, mount / ".sbxfs/other")
    assert len(trash(mount)) == 1


def test_rmdir_in_it_is_for_good(mount):
    box = mount.box("web")
    os.rmdir(box.path)
    inside = trashed(mount, "web")
    os.rmdir(inside.path)
    wait_until(lambda: trash(mount) == [])
    assert not list((mount.folder / "state/sbxfs/vms").iterdir())
    assert not list((mount.fake / "records").iterdir())
    assert mount.guest_processes("web") == []


def test_it_is_kept_for_an_hour(mount):
    clock = Clock(mount)
    boxes = [mount.box(name) for name in ("one", "two")]
    os.rmdir(boxes[0].path)
    clock.advance(40 * MINUTE)
    os.rmdir(boxes[1].path)
    clock.advance(19 * MINUTE)
    assert len(trash(mount)) == 2
    clock.advance(2 * MINUTE)
    wait_until(lambda: [name[:3] for name in trash(mount)] == ["two"])
    mount.kill()
    (mount.fake / "clock").write_text(f"{2 * HOUR * 1000}\n")
    mount.start()
    wait_until(lambda: trash(mount) == [])
    assert not list((mount.fake / "records").iterdir())


def test_ttl_puts_it_there_and_begins_anew_behind(mount):
    clock, box = Clock(mount), mount.box("web")
    box.write("ttl", "30m")
    clock.advance(31 * MINUTE)
    wait_until(lambda: not box.path.exists())
    inside = trashed(mount, "web")
    assert "ttl was 30m" in inside.error()
    os.rename(inside.path, mount / "web")
    wait_until(lambda: box.status() == "running")
    assert box.read("ttl").startswith(("29m", "30m"))


def test_the_daemon_dies_on_the_way(mount):
    """Whatever was asked for goes on: into the trash, out of it, and away."""
    names = ["into", "outof", "gone"]
    boxes = {name: mount.box(name) for name in names}
    boxes["into"].ask("echo kept > file")
    for name in names:
        os.rmdir(boxes[name].path)
    os.rename(trashed(mount, "outof").path, mount / "outof")
    os.rmdir(trashed(mount, "gone").path)
    mount.kill()
    mount.start()
    wait_until(lambda: [name.split("@")[0] for name in trash(mount)] == ["into"])
    trashed(mount, "into").wait_status("stopped")
    wait_until(lambda: boxes["outof"].status() == "running")
    assert mount.guest_processes("into") == []
    os.rename(trashed(mount, "into").path, mount / "into")
    boxes["into"].wait_status("running")
    assert boxes["into"].ask("cat file") == b"kept\n"


def test_one_that_was_never_made_leaves_nothing(mount):
    box = mount.box("web", "create 3600000", wait=False)
    os.rmdir(box.path)
    wait_until(lambda: not box.path.exists())
    assert trash(mount) == [] and not list((mount.fake / "records").iterdir())


def test_limits_and_the_trash(new_mount):
    """It counts with its disk only, and makes room: the oldest first."""
    mount = new_mount(WITH_TRASH + "[limits]\nsandboxes = 2\ndisk = 30G\n"
                      "[defaults]\ndisk = 10G\n").start()
    clock = Clock(mount)
    for name in ("one", "two"):
        box = mount.box(name)
        os.rmdir(box.path)
        trashed(mount, name).wait_status("stopped")
        clock.advance(10)
    mount.box("three")
    mount.box("four")               # 40G with the trash: the oldest goes
    wait_until(lambda: [name[:3] for name in trash(mount)] == ["two"])
    refused(errno.EDQUOT, os.rename, trashed(mount, "two").path, mount / "two")
    assert "sandboxes" in mount.errors().splitlines()[-1]


def test_a_full_disk_empties_it(new_mount):
    mount = new_mount(WITH_TRASH).start()
    os.rmdir(mount.box("web").path)
    assert len(trash(mount)) == 1
    mount.stop()
    mount.config.write_text(WITH_TRASH + "[limits]\nfree = 1000T\n")
    mount.start()
    wait_until(lambda: trash(mount) == [])


def test_protect_is_no_matter_there(mount):
    box = mount.box("web")
    os.rmdir(box.path)
    inside = trashed(mount, "web")
    inside.write("protect", "1")
    os.rmdir(inside.path)
    wait_until(lambda: trash(mount) == [])


def test_one_that_failed_holds_no_memory_there(new_mount):
    mount = new_mount(WITH_TRASH + "[limits]\nmemory = 1G\n").start()
    box = mount.box("web", "failboot", wait=False)
    box.wait_status("failed")
    os.rmdir(box.path)
    assert trashed(mount, "web").status() == "failed"
    mount.box("next")
    os.rename(trashed(mount, "web").path, mount / "web")
    assert box.status() == "failed"
    refused(errno.EDQUOT, box.write, "ctl", "start")


def test_its_backend_is_not_configured(mount):
    """It stays where it is until its backend is there again."""
    box = mount.box("web")
    box.ask("echo kept > file")
    os.rmdir(box.path)
    trashed(mount, "web").wait_status("stopped")
    mount.stop()
    mount.config.write_text(WITH_TRASH.replace("= fake", "= fake2"))
    mount.launch()
    mount.log.wait("mounted on")
    inside = trashed(mount, "web")
    wait_until(lambda: "not configured" in inside.error())
    refused(errno.ENODEV, os.rename, inside.path, mount / "web")
    refused(errno.ENODEV, os.rmdir, inside.path)
    mount.stop()
    mount.config.write_text(WITH_TRASH)
    mount.start()
    wait_until(lambda: trashed(mount, "web").status() == "stopped")
    os.rename(trashed(mount, "web").path, mount / "web")
    box.wait_status("running")
    assert box.ask("cat file") == b"kept\n"
