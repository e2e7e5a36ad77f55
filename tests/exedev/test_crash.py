"""kill -9 at each step of create, clone and destroy: the next mount has what the service has."""

import os
import threading

import pytest

from support import matches, wait_until


class Gate:
    """Holds the stand-in in a step: entered is set when it is there, open lets it go on."""

    def __init__(self):
        self.entered, self.open = threading.Event(), threading.Event()

    def __call__(self, *args):
        self.entered.set()
        assert self.open.wait(60)


def kill(mount):
    mount.kill()
    mount.abort()


def steps(cloud, command):
    """The steps of a command at the stand-in: before it runs, and when it has run."""
    def before(gate):
        cloud.service.fault = lambda path: gate() if path == command else None

    def after(gate):
        method = "do_" + command.replace(" ", "_")
        real = getattr(cloud.lobby, method)

        def held(*args):
            answer = real(*args)
            cloud.lobby.lock.release()      # others go on, as at the service
            try:
                gate()
            finally:
                cloud.lobby.lock.acquire()
            return answer
        setattr(cloud.lobby, method, held)
    return {"before": before, "after": after}


def release(cloud, gate, command):
    gate.open.set()
    cloud.service.fault = lambda path: None
    cloud.lobby.__dict__.pop("do_" + command.replace(" ", "_"), None)


def agree(mount, cloud):
    """What is here is what the service has, and no tag of a clone was left on another VM."""
    def so():
        names = mount.names()
        return names == cloud.service.names() and all(
            mount.made(n) for n in names)
    wait_until(so, step=0.05)
    for vm in cloud.lobby.vms.values():
        assert sum(t.startswith("sbxfs-") for t in vm.tags) == 1, (vm.name, vm.tags)


@pytest.mark.parametrize("late", ["released first", "released after"])
@pytest.mark.parametrize("step", ["before", "after"])
@pytest.mark.parametrize("command", ["ls", "new"])
def test_killed_while_creating(paper, exe_mount, command, step, late):
    mount = exe_mount(paper)
    wait_until(lambda: paper.count("ls") >= 1)
    gate = Gate()
    steps(paper, command)[step](gate)
    os.mkdir(mount / "web")
    assert gate.entered.wait(60)
    kill(mount)
    if late == "released first":
        release(paper, gate, command)
    seen = paper.count("ls")
    mount.start()
    if late == "released after":        # the old `new` ends when the next daemon has looked
        if command != "ls":
            wait_until(lambda: paper.count("ls") > seen)
        release(paper, gate, command)
    wait_until(lambda: mount.names() == ["web"])
    agree(mount, paper)
    assert paper.service.names() == ["web"] and paper.lobby.created_ever == ["web"]


@pytest.mark.parametrize("step", ["before", "after"])
@pytest.mark.parametrize("command", ["tag", "cp"])
def test_killed_while_cloning(paper, exe_mount, command, step):
    mount = exe_mount(paper)
    os.mkdir(mount / "web")
    agree(mount, paper)
    gate = Gate()
    steps(paper, command)[step](gate)
    os.mkdir(mount / ".sbxfs/new/copy")
    (mount / ".sbxfs/new/copy/backend").write_text("exe.dev\n")
    (mount / ".sbxfs/new/copy/from").write_text("web\n")
    os.rename(mount / ".sbxfs/new/copy", mount / "copy")
    assert gate.entered.wait(60)
    kill(mount)
    release(paper, gate, command)
    mount.start()
    wait_until(lambda: paper.service.names() == ["copy", "web"])
    wait_until(lambda: all(sum(t.startswith("sbxfs-") for t in vm.tags) == 1
                           for vm in paper.lobby.vms.values()))
    agree(mount, paper)
    assert paper.lobby.created_ever == ["web", "copy"]


@pytest.mark.parametrize("step", ["before", "after"])
@pytest.mark.parametrize("command", ["ls", "rm"])
def test_killed_while_destroying(paper, exe_mount, command, step):
    mount = exe_mount(paper)
    for name in ("web", "other"):
        os.mkdir(mount / name)
    agree(mount, paper)
    gate = Gate()
    steps(paper, command)[step](gate)
    os.rmdir(mount / "web")
    assert gate.entered.wait(60)
    kill(mount)
    release(paper, gate, command)
    mount.start()
    wait_until(lambda: paper.service.names() == ["other"])
    agree(mount, paper)
    assert paper.lobby.removed_ever == ["web"]
    assert not matches(mount.folder / "state/sbxfs/exe.dev", "web*")


def test_killed_between_rmdir_of_an_unclear_new(paper, exe_mount):
    """The `new` that runs late makes no VM that nobody knows of."""
    mount = exe_mount(paper, settle="10s")      # it may be later than it should
    paper.service.late_s = 1.0
    paper.service.fault = lambda path: "late" if path == "new" else None
    os.mkdir(mount / "web")
    wait_until(lambda: paper.service.requests >= 2)
    os.rmdir(mount / "web")
    kill(mount)
    mount.start()
    paper.service.fault = lambda path: None
    wait_until(lambda: paper.lobby.created_ever == ["web"])
    wait_until(lambda: mount.names() == [] and paper.service.names() == [])
