"""Programs that delete everything: they destroy nothing on the disk of a sandbox.

They are refused on a fixed file, which are listed before root/, and from then on everywhere
below root/, and on the sandbox itself. rmdir of a sandbox destroys it, as one piece."""

import errno
import json
import os
import shutil
import subprocess

import pytest

from support import CONFIG, Box, refused, wait_until

PYTHON = "/usr/bin/python3"

# Lists a folder first, deletes what is in it, goes on whatever fails, then the folder:
# so do the libraries of several languages.
LISTS_FIRST = """\
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <stdio.h>
#include <errno.h>

static int failures;

static void failed(const char *call, const char *name)
{
	fprintf(stderr, "%s %s: %s\\n", call, name, strerror(errno));
	failures++;
}

static void remove_all(int parent, const char *name)
{
	char *names[4096];
	int count = 0, fd;
	DIR *dir;

	if (unlinkat(parent, name, 0) == 0)
		return;
	fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
	if (fd < 0) {
		failed("open", name);
		return;
	}
	dir = fdopendir(fd);
	for (struct dirent *e; count < 4096 && (e = readdir(dir));)
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			names[count++] = strdup(e->d_name);
	for (int i = 0; i < count; i++)
		remove_all(dirfd(dir), names[i]);
	closedir(dir);
	if (unlinkat(parent, name, AT_REMOVEDIR) < 0)
		failed("rmdir", name);
}

int main(int argc, char **argv)
{
	remove_all(AT_FDCWD, argv[1]);
	return failures != 0;
}
"""


@pytest.fixture(scope="module")
def lists_first(tmp_path_factory):
    if not shutil.which("gcc"):
        pytest.skip("gcc is not installed")
    folder = tmp_path_factory.mktemp("delete")
    (folder / "all.c").write_text(LISTS_FIRST)
    subprocess.run(["gcc", "-o", folder / "all", folder / "all.c"], check=True)
    return folder / "all"


@pytest.fixture
def full(box):
    """A sandbox with something to lose, and a finished job."""
    (box.home / "precious").write_text("precious")
    os.makedirs(box.home / "folder/deep")
    (box.home / "folder/deep/file").write_text("precious")
    assert box.ask("echo done") == b"done\n"
    return box


def everything(box):
    """All names on the disk, but what comes and goes in the guest's /proc and /dev."""
    found = set()
    for where, folders, files in os.walk(box.info()["folder"]):
        found |= {os.path.join(where, name) for name in folders + files}
    return found


def deletes_nothing(box, *argv):
    before = everything(box)
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=60)
    assert everything(box) == before
    assert box.status() == "running"
    assert box.ask("cat precious") == b"precious"
    assert os.listdir(box / "jobs")
    return done


def test_rm_rf(full):
    assert deletes_nothing(full, "rm", "-rf", full).returncode != 0
    # another process, and one that means just that folder, may
    subprocess.run(["rm", "-rf", full.disk / "folder"], check=True)
    assert not (full.home / "folder").exists()


def test_rm_rf_of_all_that_is_in_it(full):
    names = sorted(os.listdir(full))
    assert deletes_nothing(full, "rm", "-rf", *(full / name for name in names)).returncode != 0


def test_find_delete(full):
    done = deletes_nothing(full, "find", full, "-delete")
    assert done.returncode != 0
    assert "Operation not permitted" in done.stderr


@pytest.mark.parametrize("script", [
    "shutil.rmtree(sys.argv[1])", "shutil.rmtree(sys.argv[1], ignore_errors=True)",
    "shutil.rmtree(sys.argv[1], onerror=lambda *a: None)",
], ids=["strict", "ignore_errors", "onerror"])
def test_rmtree_of_python(full, script):
    deletes_nothing(full, PYTHON, "-c", "import shutil, sys; " + script, full)


def test_one_that_lists_first(full, lists_first):
    done = deletes_nothing(full, lists_first, full)
    assert done.returncode != 0
    assert "rmdir" in done.stderr


@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
def test_one_that_lists_first_in_node(full):
    """As rimraf and fs-extra go about it."""
    script = """
        const fs = require('fs'), path = require('path');
        function all(p) {
            if (!fs.lstatSync(p).isDirectory()) { try { fs.unlinkSync(p) } catch {} return }
            let names = [];
            try { names = fs.readdirSync(p) } catch {}
            for (const n of names) all(path.join(p, n));
            try { fs.rmdirSync(p) } catch (e) { console.log(e.code) }
        }
        all(process.argv[1])"""
    done = deletes_nothing(full, "node", "-e", script, full)
    assert done.stdout.splitlines()[-1] == "EPERM"


@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
def test_rm_of_node_takes_it_whole(new_mount):
    """It begins with rmdir: the sandbox goes to the trash, with all that was on its disk."""
    mount = new_mount(CONFIG.replace("[limits]\ntrash = 0\n", "")).start()
    box = mount.box("web")
    (box.home / "precious").write_text("precious")
    before = everything(box)
    subprocess.run(["node", "-e", "require('fs').rmSync(process.argv[1], "
                    "{recursive: true, force: true})", box], check=True, timeout=60)
    assert os.listdir(mount) == []
    entry, = os.listdir(mount / ".sbxfs/trash")
    inside = Box(mount, ".sbxfs/trash/" + entry)
    assert everything(inside) == before
    # and from the trash as from everywhere
    subprocess.run(["rm", "-rf", inside], stderr=subprocess.DEVNULL)
    assert everything(inside) == before
    os.rename(inside.path, mount / "web")


    def again():
        """It may still be about to stop, for the trash, and is started then."""
        try:
            return (box.disk / "precious").read_text() == "precious"
        except OSError as e:
            assert e.errno == errno.EHOSTDOWN
            return False
    wait_until(again)


def test_who_was_refused_stays_so_and_may_ask_again(full):
    """From below root/ it is kept as long as it lives; its rmdir of the sandbox is refused once
    after each refusal, with a sentence."""
    refused(errno.EPERM, os.unlink, full / "status")
    refused(errno.EPERM, os.unlink, full.disk / "precious")
    refused(errno.EPERM, os.listdir, full.disk)
    refused(errno.EPERM, os.rmdir, full.disk / "folder")
    refused(errno.EPERM, os.rmdir, full)
    assert "not destroyed" in full.mount.errors().splitlines()[-1]
    assert full.status() == "running"
    # others are not concerned
    assert subprocess.check_output(["ls", full.disk]).split()
    refused(errno.EPERM, os.unlink, full / "info")
    refused(errno.EPERM, os.rmdir, full)
    os.rmdir(full)
    wait_until(lambda: not full.path.exists())


def test_rmdir_is_one_piece(full):
    subprocess.run(["rmdir", full], check=True)
    wait_until(lambda: not full.path.exists())


def test_nobody_else_is_refused(mount, full):
    """What was refused on one sandbox holds for that one, and that process, only."""
    other = mount.box()
    refused(errno.EPERM, os.unlink, full / "status")
    (other.disk / "f").write_text("text")
    os.unlink(other.disk / "f")
    subprocess.run(["rm", full.disk / "precious"], check=True)
    other.destroy()
    assert json.loads(full.read("info.json"))["status"] == "running"
