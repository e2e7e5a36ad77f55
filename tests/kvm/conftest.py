"""Fixtures for tests with real virtual machines.

place	folders for a backend of the test's own; see drive.py
"""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from drive import Place, build_folder, find_image_tool, images_folder
from support import pytest_runtest_makereport   # noqa: F401

DEADLINE = 240


def missing():
    """Why these tests cannot run, or None."""
    if not os.access(build_folder() / "tests/kvm/drive", os.X_OK):
        return f"{build_folder()}/tests/kvm/drive has not been built"
    for program in ("qemu-system-x86_64", "qemu-img", "ssh-keygen", "ssh"):
        if not shutil.which(program):
            return f"{program} is not installed"
    if subprocess.run([find_image_tool(), "verify", "debian"], capture_output=True).returncode:
        return f"there is no image debian in {images_folder()}: sbxfs-image build debian makes it"
    return None


def pytest_configure(config):
    config.addinivalue_line("markers", "deadline(seconds): how long the test may take")
    # Started with & by a script, we ignore ^C, and so would all that a test wants to interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    reason = missing()
    if reason:
        for item in items:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def deadline(request):
    marker = request.node.get_closest_marker("deadline")
    seconds = marker.args[0] if marker else DEADLINE

    def overdue(signo, frame):
        raise TimeoutError(f"the test took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, overdue)
    signal.alarm(seconds)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def new_place():
    places = []

    def make(**names):
        places.append(Place(Path(tempfile.mkdtemp(prefix="sbxfs-kvm-")), **names))
        return places[-1]

    yield make
    for place in places:
        place.close()
        shutil.rmtree(place.folder)


@pytest.fixture
def place(new_place):
    return new_place()
