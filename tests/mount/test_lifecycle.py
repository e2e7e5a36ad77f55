"""Start, stop, failures, and daemons that end or die in the middle of something."""

import errno
import os
import random
import socket
import subprocess
import time

import pytest

from support import alive, blocked_in_read, refused, wait_until

LONG = 3600 * 1000


# --- verbs --------------------------------------------------------------------

def test_stop_and_start(box):
    (box.home / "kept").write_text("kept")
    box.run("sleep 1000")
    box.wait_job("running")
    box.write("ctl", "stop\n")
    box.wait_status("stopped")
    assert box.exit() == "lost"
    assert box.mount.guest_processes(box.name) == []
    assert box.read("error") == ""
    refused(errno.EHOSTDOWN, os.listdir, box.path / "root")
    assert "no address" in box.read("ssh_config")
    box.write("ctl", "start")
    box.wait_status("running")
    assert box.ask("cat kept") == b"kept"


def test_a_job_of_a_stopped_sandbox_waits(box):
    """...as it does for one that boots: until somebody starts it."""
    box.write("ctl", "stop\n")
    box.wait_status("stopped")
    box.run("echo patience")
    assert box.job_status() == "queued"
    assert box.status() == "stopped"
    box.write("ctl", "start\n")
    assert box.out() == "patience\n"


def test_a_sandbox_that_is_being_stopped(box):
    """Its network goes before it is stopped: that is no trouble, and nothing new is lost there."""
    box.control(f"stop {LONG}")
    box.run("sleep 1000")
    box.wait_job("running")
    first = box.latest()
    box.write("ctl", "stop")
    box.run("echo patience")
    assert box.read(f"jobs/{first}/exit") == "lost\n"      # its connection was cut
    assert box.status() == "running" and box.job_status() == "queued" and box.error() == ""
    refused(errno.ECONNREFUSED, socket.create_connection, ("127.0.0.1", int(box.info()["port"])))
    box.control("stop 0")
    box.wait_status("stopped")
    assert box.job_status() == "queued"
    box.write("ctl", "start")
    assert box.out() == "patience\n" and box.error() == ""


def test_a_job_for_an_unreachable_sandbox_that_is_being_stopped(box):
    """It is for what comes after that."""
    box.control(f"stop {LONG}", "dead")
    box.wait_status("unreachable")
    refused(errno.EHOSTDOWN, box.run, "echo too early")
    box.write("ctl", "stop")
    box.run("echo later")
    assert box.job_status() == "queued" and box.status() == "unreachable"
    box.control("revive")
    box.write("ctl", "start")
    assert box.out() == "later\n"


def test_start_while_it_is_being_stopped(box):
    """What was asked last holds."""
    rounds = (("stop", "start"), "running"), (("stop", "start", "stop"), "stopped")
    for n, (verbs, status) in enumerate(rounds, 1):
        box.control(f"stop {LONG}")
        for verb in verbs:
            box.write("ctl", verb)
        assert box.status() == "running"
        box.control("stop 0")
        wait_until(lambda: n == sum(e["event"] == "stopped" and e["sandbox"] == box.name
                                    for e in box.mount.events()))
        box.wait_status(status)
    assert box.error() == ""


def test_restart(box):
    box.run("sleep 1000")
    box.wait_job("running")
    box.write("ctl", "restart\n")
    assert box.exit() == "lost"
    box.wait_status("running")
    assert box.ask("echo up") == b"up\n"
    assert box.read("console").count("login:") == 2


def test_pause_and_resume(box):
    """It stands still, its memory kept; what it was doing goes on."""
    box.run("while sleep 0.02; do echo .; done")
    wait_until(lambda: box.read("log"))
    box.write("ctl", "pause\n")
    box.wait_status("paused")
    refused(errno.EHOSTDOWN, os.listdir, box.path / "root")
    box.write("ctl", "resume\n")
    box.wait_status("running")
    assert box.ask("echo on") == b"on\n"


def test_verbs(box):
    """Those that the backend has, and no others; arguments only where there are some."""
    assert box.read("ctl") == "start stop restart pause resume killall resize\n"
    for line in ("boot", "suspend", "stop now", "resize", "resize cpus", "resize cpus=0",
                 "resize memory=1Q", "resize speed=9"):
        with pytest.raises(OSError) as caught:
            box.write("ctl", line)
        assert caught.value.errno in (errno.EINVAL, errno.ENOSYS), line
    assert box.status() == "running"
    refused(errno.EINVAL, box.write, "ctl", "resize disk=1G")       # the backend's own words
    assert "shrink" in box.error() and box.info()["disk"] == "10G"


def test_a_guest_that_halts(box):
    """Seen, told, and no longer running; not started behind anybody's back."""
    box.control("halt")
    box.wait_status("stopped")
    assert "powered itself off" in box.error()
    assert box.name in box.mount.errors()
    time.sleep(0.2)
    assert box.status() == "stopped"
    box.write("ctl", "start\n")
    box.wait_status("running")


def test_reads_start_nothing(box):
    """Nothing is woken by lookup, open, read, stat or listing."""
    box.write("ctl", "stop\n")
    box.wait_status("stopped")
    for name in os.listdir(box):
        os.stat(box / name)
        if name not in ("root", "jobs", "ports", "stdin"):
            box.read(name)
    with pytest.raises(OSError):
        os.listdir(box / "root")
    assert box.status() == "stopped"


def test_a_creation_that_fails(mount):
    box = mount.box(None, "failcreate", wait=False)
    box.wait_status("failed")
    assert "could not be unpacked" in box.error()
    assert box.name in mount.errors()
    refused(errno.EHOSTDOWN, box.run, "true")
    box.destroy()


def test_a_guest_that_does_not_come_up(mount):
    """failed, why, and a console that can still be read."""
    box = mount.box(None, "failboot", wait=False)
    box.wait_status("failed")
    assert "did not come up" in box.error()
    assert "failed: the guest did not come up" in box.read("console")
    box.control("revive")
    box.write("ctl", "start\n")
    box.wait_status("running")
    box.destroy()


def test_a_destruction_that_fails(mount):
    """It stays in sight, says why, and can be tried again."""
    box = mount.box()
    box.control("faildestroy")
    os.rmdir(box)
    box.wait_status("failed")
    assert "could not be destroyed" in box.error()
    box.destroy()


# --- the daemon goes, the VMs stay --------------------------------------------

def test_unmounting_leaves_sandboxes_running(own_mount):
    box = own_mount.box()
    box.run("sleep 1000 > /dev/null 2>&1 < /dev/null & echo $!")
    sleeper = int(box.out())
    own_mount.stop()
    assert alive(sleeper)
    own_mount.start()
    assert os.listdir(own_mount) == [box.name]
    assert box.status() == "running"
    assert box.ask(f"kill {sleeper} && echo killed") == b"killed\n"


def test_adoption_after_kill(own_mount):
    boxes = [own_mount.box() for _ in range(3)]
    tag = boxes[0].info()["tag"]
    (boxes[0].home / "kept").write_text("kept")
    boxes[1].write("ctl", "stop\n")
    boxes[1].wait_status("stopped")
    own_mount.kill()
    own_mount.start()
    assert sorted(os.listdir(own_mount)) == sorted(box.name for box in boxes)
    wait_until(lambda: [box.status() for box in boxes] == ["running", "stopped", "running"])
    assert boxes[0].ask("cat kept") == b"kept"
    assert boxes[0].info()["tag"] == tag
    assert (boxes[0].disk / "kept").read_text() == "kept"


def test_a_failure_is_remembered(own_mount):
    box = own_mount.box(None, "failboot", wait=False)
    box.wait_status("failed")
    own_mount.kill()
    own_mount.start()
    box.wait_status("failed")
    assert "did not come up" in box.error()
    box.destroy()


@pytest.mark.parametrize("state", ["creating", "booting", "destroying"])
def test_kill_in_the_middle(own_mount, state):
    """What was begun is finished by the next daemon."""
    if state == "destroying":
        box = own_mount.box(None, f"destroy {LONG}")
        os.rmdir(box)
    else:
        order = "create" if state == "creating" else "boot"
        box = own_mount.box(None, f"{order} {LONG}", wait=False)
    box.wait_status(state)
    own_mount.kill()
    own_mount.start()
    if state == "destroying":
        wait_until(lambda: not box.path.exists(), 60)
        assert list((own_mount.fake / "boxes").iterdir()) == []
    else:
        box.wait_status("running")
        assert box.ask("echo up") == b"up\n"


@pytest.mark.deadline(300)
def test_kill_at_any_moment(own_mount):
    """kill -9 at a random moment of creating and destroying; then nothing is unaccounted for."""
    moments = random.Random(7)
    for n in range(50):
        name = f"any-{n % 3}"
        worker = subprocess.Popen(["sh", "-c", f"mkdir {name} || rmdir {name}; "
                                   f"rmdir any-{(n + 1) % 3}; mkdir other-{n}; rmdir other-{n}"],
                                  cwd=own_mount, stderr=subprocess.DEVNULL)
        time.sleep(moments.uniform(0, 0.12))
        own_mount.kill()
        worker.wait(60)
        own_mount.start()
        vms = own_mount.folder / "state/sbxfs/vms"
        names, = wait_until(lambda: settled(own_mount))
        assert set(names) == {p.name for p in vms.iterdir()}
        assert set(names) == {p.name for p in (own_mount.fake / "records").iterdir()}
        assert set(names) == {p.name for p in (own_mount.fake / "boxes").iterdir()}
        for name in names:
            assert (own_mount / name / "status").read_text() == "running\n"


def settled(mount):
    """The names of all sandboxes in a list once none of them is on its way; else None."""
    names = os.listdir(mount)
    try:
        states = [(mount / name / "status").read_text() for name in names]
    except OSError:
        return None
    done = set(states) <= {"running\n", "failed\n"} and names == os.listdir(mount)
    return [names] if done else None


def test_a_record_that_cannot_be_read_is_left_alone(own_mount):
    box = own_mount.box()
    own_mount.stop()
    stray = own_mount.folder / "state/sbxfs/vms/stray"
    stray.mkdir()
    (stray / "record.json").write_text("no JSON")
    own_mount.expect("vm=stray its record cannot be used")
    own_mount.start()
    assert os.listdir(own_mount) == [box.name]
    assert (stray / "record.json").read_text() == "no JSON"


def test_a_vm_without_a_record_is_taken_in(own_mount):
    """The backend has it, the fleet's record is lost: nothing is lost from sight."""
    box = own_mount.box()
    own_mount.stop()
    subprocess.run(["rm", "-r", own_mount.folder / "state/sbxfs/vms" / box.name], check=True)
    own_mount.start()
    wait_until(box.path.exists)
    assert box.ask("echo here") == b"here\n"
    box.destroy()


def test_stale_mount_is_replaced(own_mount):
    box = own_mount.box()
    own_mount.kill()
    refused(errno.ENOTCONN, os.listdir, own_mount)
    own_mount.start()
    assert os.listdir(own_mount) == [box.name]
    assert len(list(own_mount.mountinfo())) == 1


def test_unmount_while_readers_wait(own_mount, spawn):
    """They end; fusermount3 -z detaches what somebody still uses."""
    box = own_mount.box()
    box.run("sleep 1000")
    readers = [spawn(["cat", box / name], stderr=-3) for name in ("stdout", "exit", "stderr")]
    for reader in readers:
        wait_until(lambda: blocked_in_read(reader))
    assert subprocess.run(["fusermount3", "-u", own_mount], stderr=-3).returncode != 0   # busy
    own_mount.process.terminate()
    for reader in readers:
        assert reader.wait(60) != 0
    assert own_mount.process.wait(60) == 0
    assert not own_mount.mounted()


def test_a_new_sandbox_of_the_same_process_is_not_refused(mount):
    """What was refused on one sandbox holds for that one only."""
    first = mount.box()
    refused(errno.EPERM, os.unlink, first / "status")
    first.destroy()
    for _ in range(20):
        box = mount.box()
        assert os.listdir(box / "jobs") == []
        os.mkdir(box / "jobs/x")
        os.rmdir(box / "jobs/x")
        (box.home / "file").touch()
        os.unlink(box.disk / "file")
        box.destroy()
