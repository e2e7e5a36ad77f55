"""Jobs in a real virtual machine: their ends, their descendants, a hundred of them."""

import pytest

from drive import images_folder
from support import Mount, ask, wait_until, write
from test_life import CONFIG, Machine

FAMILY = ("sleep 1000 & setsid sleep 1000 & env -i setsid sh -c 'sleep 1000 &'; "
          "echo ready; wait\n")


@pytest.fixture(scope="module")
def machine():
    mount = Mount(CONFIG.format(images=images_folder()) + "[limits]\ntrash = 0\n").start()
    machine = Machine(mount, "jobs")
    machine.await_status("running")
    yield machine
    machine.path.rmdir()
    wait_until(lambda: not machine.path.exists(), 60)
    mount.clean()


def sleepers(machine):
    """How many sleeps of a thousand seconds the guest has."""
    out = ask(machine / "cmd", "grep -alsE '^sleep.1000' /proc/[0-9]*/cmdline | wc -l")
    return int(out)


def start(machine, name, text, **settings):
    job = machine / "jobs" / name
    job.mkdir()
    for key, value in settings.items():
        write(job / key, value)
    write(job / "cmd", text)
    return job


@pytest.mark.deadline(400)
def test_timeout(machine):
    for seconds in (8, 30, 120):        # it must have come so far: a busy machine gets more
        job = start(machine, f"late-{seconds}", FAMILY, timeout=f"{seconds}s")
        assert (job / "exit").read_text() == "124\n"
        assert (job / "status").read_text() == "timeout\n"
        assert sleepers(machine) == 0
        if (job / "log").read_text() == "ready\n":
            break
    else:
        pytest.fail("it was never ready")


@pytest.mark.deadline(300)
@pytest.mark.parametrize("how", ["kill", "rmdir", "killall"])
def test_kill(machine, how):
    job = start(machine, how, FAMILY)
    wait_until(lambda: (job / "log").read_text() == "ready\n", 60)
    if how == "rmdir":
        job.rmdir()
        wait_until(lambda: not job.exists(), 60)
    else:
        write(job / "ctl" if how == "kill" else machine / "ctl", how)
        assert (job / "exit").read_text() in ("143\n", "137\n")
    assert sleepers(machine) == 0


@pytest.mark.deadline(300)
def test_what_the_guest_lacks(machine):
    """A Debian of systemd lacks nothing."""
    wait_until(lambda: ask(machine / "cmd", "true") == b"")
    assert machine.info().get("guest_missing") is None


@pytest.mark.deadline(600)
def test_a_hundred_at_once(machine):
    ask(machine / "cmd", "mkfifo /tmp/gate")        # to wait there costs an emulated guest nothing
    jobs = [start(machine, f"many-{n}", f"read x </tmp/gate; echo {n}\n") for n in range(100)]

    def running():
        return [(job / "status").read_text() for job in jobs].count("running\n")

    wait_until(lambda: running() == 100, 400, 1)
    assert int(machine.info()["connections"]) <= 16
    assert machine.info()["jobs_running"] == 100
    write(machine / "cmd", "exec 3>/tmp/gate; sleep 1\n")
    assert [(job / "stdout").read_text() for job in jobs] == [f"{n}\n" for n in range(100)]
