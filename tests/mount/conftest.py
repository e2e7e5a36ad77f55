"""Fixtures for tests on real mounts; support.py says what a mount and a box are.

mount	a mount that all tests share: whoever kills or reconfigures it takes own_mount
box	a fresh running sandbox of it
d, h	an empty folder of its disk: in the mount; the same on the host's disk, as the guest has it
own_mount	a mount of the test's own, running
new_mount	makes mounts of the test's own: new_mount(config), not started
spawn	as subprocess.Popen; what still runs at the end of the test is killed
"""

import contextlib
import faulthandler
import os
import signal
import subprocess
import threading

import pytest

from support import Mount, find_sbxfs, pytest_runtest_makereport  # noqa: F401

DEADLINE = 300      # seconds a test may take unless marked: @pytest.mark.deadline(400)


def pytest_configure(config):
    config.addinivalue_line("markers", "deadline(seconds): how long the test may take")
    # Started with & by a script, we ignore ^C, and so would all that a test wants to interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        reason = "/dev/fuse cannot be opened by this user"
    elif not os.access(find_sbxfs(), os.X_OK):
        reason = f"{find_sbxfs()} has not been built"
    else:
        return
    for item in items:
        item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def deadline(request):
    """A test that hangs fails; one that hangs in the kernel is freed by force."""
    marker = request.node.get_closest_marker("deadline")
    seconds = marker.args[0] if marker else DEADLINE

    def overdue(signo, frame):
        raise TimeoutError(f"the test took longer than {seconds} s")

    def free():
        faulthandler.dump_traceback()
        for mount in list(Mount.running):
            mount.abort()

    before = signal.signal(signal.SIGALRM, overdue)
    signal.alarm(seconds)
    last_resort = threading.Timer(seconds + 15, free)
    last_resort.daemon = True
    last_resort.start()
    yield
    last_resort.cancel()
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


class Shared:
    """The mount that tests share; made anew for the next test when one has ended it."""

    mount = None

    def get(self):
        if self.mount and self.mount.process.poll() is not None:
            self.clean()
        self.mount = self.mount or Mount().start()
        return self.mount

    def clean(self):
        mount, self.mount = self.mount, None
        if mount:
            mount.clean()


@pytest.fixture(scope="session")
def shared():
    shared = Shared()
    yield shared
    shared.clean()


@pytest.fixture
def mount(shared):
    mount = shared.get()
    before, seen, lines = len(mount.allowed), len(mount.log.lines), mount.log.lines
    yield mount
    if mount.process.poll() is not None:
        with contextlib.suppress(AssertionError):       # this is the message to show
            shared.clean()
        pytest.fail("the daemon has ended:\n" + "\n".join(lines[-50:]))
    assert not mount.trouble(seen), "\n".join(lines[seen:])
    del mount.allowed[before:]


@pytest.fixture
def box(mount):
    box = mount.box()
    yield box
    if mount.process.poll() is None and box.path.exists():
        box.control("revive")
        box.destroy()


@pytest.fixture
def d(box):
    (box.home / "d").mkdir()
    return box.disk / "d"


@pytest.fixture
def h(box, d):
    return box.home / "d"


@pytest.fixture
def new_mount():
    mounts = []

    def make(*args):
        mounts.append(Mount(*args))
        return mounts[-1]

    yield make
    failures = []
    for mount in mounts:
        try:
            mount.clean()
        except AssertionError as e:
            failures.append(str(e))
    assert not failures, "\n".join(failures)


@pytest.fixture
def own_mount(new_mount):
    return new_mount().start()


@pytest.fixture
def own_box(own_mount):
    return own_mount.box()


@pytest.fixture
def spawn():
    processes = []

    def start(*args, **kwargs):
        processes.append(subprocess.Popen(*args, **kwargs))
        return processes[-1]

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait(20)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe:
                pipe.close()
