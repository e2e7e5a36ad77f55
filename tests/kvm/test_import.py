"""Images that are imported: root trees and disks of clouds, made here, and what is none."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from drive import GIB, MIB, find_image_tool, matches

HERE = Path(__file__).resolve().parent


@pytest.fixture(autouse=True)
def needs():
    if os.geteuid() != 0 or not shutil.which("mmdebstrap"):
        pytest.skip("making a system to import needs root and mmdebstrap")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("import")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def tree(work, name, *options):
    """A tar of a Debian root tree of this release."""
    release = subprocess.run(["sh", "-c", '. /etc/os-release; echo "$VERSION_CODENAME"'],
                             capture_output=True, text=True, check=True).stdout.strip()
    tar = work / f"{name}.tar"
    subprocess.run(["mmdebstrap", "--variant=minbase", *options, release, tar], check=True,
                   capture_output=True)
    return tar


def tool(work, *args):
    return subprocess.run([find_image_tool(), "--images", work / "images", *args], text=True,
                          stdin=subprocess.DEVNULL, capture_output=True)


def refused(work, *args):
    done = tool(work, *args)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert not [p for p in matches(work / "images", "*") if p.is_symlink()]
    return done.stderr


def run_a_job(place, work, name):
    """It boots, is who it should be, and what it is asked for happens."""
    drive = place.drive(accel="tcg", images=work / "images")
    drive.ask(f"create web {name} 2 {512 * MIB} {5 * GIB}")
    guest = drive.up("web")
    said = guest.ssh("hostname; cat /etc/machine-id; df --output=size -B1 / | tail -1; id -un",
                     timeout=120).split()
    assert said[0] == "web" and said[1] == drive.info("web")["machine_id"] and said[3] == "root"
    assert int(said[2]) > 4 * GIB       # the file system has grown with the disk
    drive.ask("destroy web")
    drive.wait("^gone web$")


@pytest.mark.deadline(400)
def test_what_cannot_be_imported(work):
    bare = tree(work, "bare")
    said = refused(work, "import", "--no-template", "x", bare)
    assert "no systemd as /sbin/init: add the package systemd-sysv" in said
    text = work / "text"
    text.write_text("no tar\n")
    assert "is no tar of a root tree" in refused(work, "import", "x", text)
    empty = work / "empty"
    empty.mkdir()
    assert "holds no root tree" in refused(work, "import", "x", empty)
    disk = work / "disk.qcow2"
    disk.write_bytes(b"QFI\xfb" + b"\0\0\0\3" + b"x" * 5000)
    assert "no disk that QEMU can read" in refused(work, "import", "x", disk)
    assert "there is no" in refused(work, "import", "x", work / "nothing")


@pytest.mark.deadline(500)
def test_a_tar_of_a_root_tree(place, work):
    tar = tree(work, "tree", "--include=systemd-sysv,openssh-server")
    done = tool(work, "import", "--no-template", "tree", tar)
    assert done.returncode == 0, done.stderr
    assert tool(work, "verify", "tree").returncode == 0
    run_a_job(place, work, "tree")
    tool(work, "rm", "tree")


@pytest.mark.deadline(1200)
def test_a_disk_of_a_cloud(place, work):
    if not os.environ.get("SBXFS_TEST_CLOUD"):
        pytest.skip("takes five minutes and more in emulation: SBXFS_TEST_CLOUD=1 runs it")
    for program in ("grub-mkimage", "sfdisk"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    if not Path("/usr/lib/grub/i386-pc/boot.img").exists():
        pytest.skip("grub-pc-bin is not installed")
    folder = work / "cloud"
    folder.mkdir()
    subprocess.run([HERE / "make-cloud-image", folder], check=True, capture_output=True)
    done = tool(work, "import", "--no-template", "cloud", folder / "disk.qcow2")
    assert done.returncode == 0, done.stderr
    about = json.loads((work / "images/cloud/image.json").read_text())
    assert about["boot"] == "disk" and "Debian" in about["system"]
    run_a_job(place, work, "cloud")
