"""sbxfs-image: what it says of images, when it removes them, and builds that do not come off."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from drive import TEMPLATE_FILES, describe_template, find_image_tool, matches, wait_until


@pytest.fixture
def home(tmp_path):
    """A home without images, and room in its own TMPDIR."""
    work = Path(tempfile.mkdtemp(prefix="sbxfs-image-test-", dir="/var/tmp"))
    yield Home(tmp_path, work)
    assert list(work.iterdir()) == []
    shutil.rmtree(work)


class Home:
    def __init__(self, folder, work):
        self.folder, self.work = folder, work
        self.images = folder / "data/sbxfs/images"
        self.env = dict(os.environ, HOME=str(folder), XDG_DATA_HOME=str(folder / "data"),
                        XDG_STATE_HOME=str(folder / "state"), TMPDIR=str(work))

    def tool(self, *args):
        return subprocess.run([find_image_tool(), *args], env=self.env, text=True,
                              stdin=subprocess.DEVNULL, capture_output=True)

    def refused(self, *args):
        done = self.tool(*args)
        assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
        return done.stderr

    def image(self, name, build):
        """A complete image of three small files, as a build leaves it."""
        folder = self.images / ".store" / build
        folder.mkdir(parents=True)
        sums = {}
        for file in ("vmlinux", "initrd", "root.qcow2"):
            (folder / file).write_text(file + build)
            sums[file] = hashlib.sha256((file + build).encode()).hexdigest()
        text = json.dumps({"name": name, "built": "2025-01-02T03:04:05Z",
                           "system": "Debian GNU/Linux 12 (bookworm)", "kernel": "6.1.0-1",
                           "disk_size": 1 << 31, "files": sums}, indent=2)
        (folder / "image.json").write_text(text + "\n")
        link = self.images / name
        if link.is_symlink():
            link.unlink()
        link.symlink_to(f".store/{build}")
        return folder

    def record(self, name, folder):
        """A sandbox whose disk is layered over that build."""
        path = self.folder / "state/sbxfs/kvm" / name / "vm.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"image_dir": str(folder.resolve())}))
        return path


def test_usage(home):
    assert "usage: sbxfs-image" in home.tool("--help").stdout
    assert home.tool("--version").stdout.startswith("sbxfs-image ")
    assert home.tool().returncode == 2
    for args in (["frobnicate"], ["--frobnicate"], ["build"], ["build", "a", "b"],
                 ["build", "--suite"], ["build", "--speed", "debian"], ["verify"], ["rm", "a", "b"],
                 ["list", "a"], ["--images"], ["build", "../x"], ["verify", "A b"]):
        home.refused(*args)


def test_list_and_verify(home):
    assert home.tool("list").stdout == ""
    assert "no image 'debian'" in home.refused("verify", "debian")
    folder = home.image("debian", "debian-1")
    home.image("other", "other-1")
    shown = home.tool("list").stdout.splitlines()
    assert [line.split()[0] for line in shown] == ["debian", "other"]
    assert "bookworm" in shown[0] and "6.1.0-1" in shown[0] and "2025-01-02" in shown[0]
    assert home.tool("verify", "debian").returncode == 0
    assert home.tool("--images", str(home.images), "verify", "debian").returncode == 0
    (folder / "root.qcow2").write_text("something else")
    assert home.tool("verify", "debian").returncode == 1
    (folder / "root.qcow2").unlink()
    assert "incomplete" in home.refused("verify", "debian")
    assert "debian       incomplete" in home.tool("list").stdout
    assert home.tool("verify", "other").returncode == 0


def test_a_damaged_template(home):
    """verify says which, and takes it out of use; all others stay."""
    folder = home.image("debian", "debian-1") / "templates"
    for name in ("good", "bad"):
        (folder / name).mkdir(parents=True)
        for file in TEMPLATE_FILES:
            (folder / name / file).write_bytes(b"\0" * 8192 + file.encode() * 3000)
        describe_template(folder / name, accel="tcg")
    assert home.tool("verify", "debian").returncode == 0
    stat = (folder / "bad/ram").stat()
    with open(folder / "bad/ram", "r+b") as ram:
        ram.seek(10000)
        ram.write(b"x")
    os.utime(folder / "bad/ram", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    done = home.tool("verify", "debian")
    assert done.returncode == 1 and "bad/ram is damaged" in done.stderr
    assert "template of the image 'debian' was damaged" in done.stderr
    assert sorted(p.name for p in matches(folder, "*/template.json")) == ["template.json"]
    assert (folder / "good/ram").exists() and (folder / "bad/disk.qcow2").exists()
    assert not (folder / "bad/ram").exists()
    assert home.tool("verify", "debian").returncode == 0


def test_rm(home):
    used, free = home.image("debian", "debian-1"), home.image("other", "other-1")
    record = home.record("web", used)
    assert "in use by: web" in home.refused("rm", "debian")
    assert home.tool("verify", "debian").returncode == 0
    assert home.tool("rm", "other").returncode == 0
    assert not free.exists() and used.exists()
    record.unlink()
    assert home.tool("rm", "debian").returncode == 0
    assert not used.exists() and "no image 'debian'" in home.refused("rm", "debian")


def test_an_earlier_build_stays_as_long_as_it_is_used(home):
    first = home.image("debian", "debian-1")
    record = home.record("web", first)
    second = home.image("debian", "debian-2")
    other = home.image("other", "other-1")
    half = home.images / ".store/.new-debian-x"
    half.mkdir()
    home.tool("rm", "other")
    assert first.exists() and second.exists() and not other.exists() and not half.exists()
    record.unlink()
    home.image("other", "other-1")
    home.tool("rm", "other")
    assert not first.exists() and second.exists()


def needs_mmdebstrap():
    if not shutil.which("mmdebstrap") or os.geteuid() != 0:
        pytest.skip("needs mmdebstrap and root")


def test_without_a_mirror(home):
    """No network: one sentence, the log is kept, and nothing else."""
    needs_mmdebstrap()
    said = home.refused("build", "--mirror", "http://127.0.0.1:9/debian", "debian")
    assert "the package mirror cannot be reached" in said
    assert [p.name for p in home.images.iterdir() if p.name != ".store"] == ["debian.log"]
    assert list((home.images / ".store").iterdir()) == []


def test_without_room(home):
    needs_mmdebstrap()
    small = home.folder / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "none", small]).returncode:
        pytest.skip("cannot mount a small file system")
    try:
        said = home.refused("--images", str(small), "build", "debian")
        assert "100 MB free and an image needs" in said
    finally:
        subprocess.run(["umount", small], check=True)


@pytest.mark.parametrize("signo", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(home, signo):
    """^C in the middle of a build: the image that was there stays, nothing else does."""
    needs_mmdebstrap()
    before = home.image("debian", "debian-1")
    process = subprocess.Popen([find_image_tool(), "build", "debian"], env=home.env, text=True,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, start_new_session=True)
    # It works on something: mmdebstrap has made its folder.
    wait_until(lambda: matches(home.work, "*/mmdebstrap.*/var"), timeout=60)
    os.killpg(process.pid, signo)       # as a terminal does it
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 1 and "interrupted" in said
    assert [p.name for p in (home.images / ".store").iterdir()] == ["debian-1"]
    assert home.tool("verify", "debian").returncode == 0 and before.exists()
