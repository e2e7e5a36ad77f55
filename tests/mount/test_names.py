"""mv renames a sandbox: files, jobs and what is open in it go along."""

import errno
import os

from support import Box, refused, wait_until


def test_rename(mount):
    """The name is another; the machine, its disk and its jobs are the same."""
    box = mount.box("first-name")
    box.run("echo kept > file; hostname")
    assert box.out() == "first-name\n"
    tag = box.info()["tag"]
    os.rename(mount / "first-name", mount / "second-name")
    again = Box(mount, "second-name")
    assert "first-name" not in os.listdir(mount) and "second-name" in os.listdir(mount)
    assert (again.status(), again.info()["tag"], again.out()) == ("running", tag, "first-name\n")
    assert again.info()["name"] == "second-name" and again.info()["id"] == "first-name"
    assert again.ask("cat file") == b"kept\n"
    assert "Host second-name" in again.read("ssh_config")
    again.destroy()


def test_the_old_name_is_free(mount):
    """A new one of that name has nothing of the one that had it."""
    old = mount.box("old-name")
    old.ask("echo old > file")
    os.rename(old.path, mount / "renamed")
    new = mount.box("old-name")
    renamed = Box(mount, "renamed")
    assert new.ask("ls") == b"" and renamed.ask("cat file") == b"old\n"
    assert new.info()["tag"] != renamed.info()["tag"]
    assert new.info()["id"].startswith("old-name-")
    renamed.destroy()
    assert new.ask("echo well") == b"well\n"
    new.destroy()
    mount.box("old-name").destroy()


def test_what_is_open_goes_along(mount):
    box = mount.box("open-name")
    box.run("echo one; while [ ! -e go ]; do sleep 0.02; done; echo two")
    out = os.open(box / "stdout", os.O_RDONLY)
    assert os.read(out, 100) == b"one\n"
    folder = os.open(box, os.O_RDONLY | os.O_DIRECTORY)
    os.rename(box.path, mount / "moved-name")
    (Box(mount, "moved-name").disk / "go").touch()
    assert os.read(out, 100) == b"two\n"
    os.close(os.open("status", os.O_RDONLY, dir_fd=folder))
    assert sorted(os.listdir(folder)) == sorted(os.listdir(mount / "moved-name"))
    os.close(folder)
    os.close(out)
    Box(mount, "moved-name").destroy()


def test_names_that_are_refused(mount, box):
    other = mount.box()
    refused(errno.EINVAL, os.rename, box.path, mount / "Bad_Name")
    refused(errno.ENAMETOOLONG, os.rename, box.path, mount / ("a" * 64))
    refused(errno.ENOENT, os.rename, mount / "nobody", mount / "somebody")
    refused(errno.EPERM, os.rename, box.path, mount / ".sbxfs/web")
    refused(errno.EEXIST, os.rename, box.path, other.path)
    assert "already" in mount.errors().splitlines()[-1] and "already" in box.read("error")
    assert box.ask("echo here") == b"here\n" and other.ask("echo there") == b"there\n"
    other.destroy()


def test_rename_outlives_the_daemon(own_mount):
    box = own_mount.box("before")
    box.ask("echo kept > file")
    os.rename(box.path, own_mount / "after")
    new = own_mount.box("before")
    own_mount.kill()
    own_mount.start()
    assert sorted(os.listdir(own_mount)) == ["after", "before"]
    renamed = Box(own_mount, "after")
    assert renamed.ask("cat file") == b"kept\n" and new.ask("ls") == b""
    renamed.destroy()
    new.destroy()
    assert not list((own_mount.folder / "state/sbxfs/vms").iterdir())


def test_a_record_of_an_older_version(own_mount):
    """It had no id: that is its name."""
    box = own_mount.box("older")
    own_mount.kill()
    record = own_mount.folder / "state/sbxfs/vms/older/record.json"
    text = record.read_text()
    assert '"id":\t"older",\n' in text
    record.write_text(text.replace('"id":\t"older",\n', ""))
    own_mount.start()
    wait_until(lambda: box.status() == "running")
    assert box.ask("echo up") == b"up\n"
    box.destroy()


# --- notes ---------------------------------------------------------------------

def test_tags_and_their_links(mount, box):
    other = mount.box()
    assert box.read("tags") == ""
    box.write("tags", "ci  nightly,ci\n")
    assert box.read("tags") == "ci nightly\n" and box.info()["tags"] == "ci nightly"
    with open(box / "tags", "a") as f:
        f.write("big\n")
    other.write("tags", "ci")
    by_tag = mount / ".sbxfs/by-tag"
    assert sorted(os.listdir(by_tag)) == ["big", "ci", "nightly"]
    assert sorted(os.listdir(by_tag / "ci")) == sorted([box.name, other.name])
    assert os.readlink(by_tag / "ci" / box.name) == f"../../../{box.name}"
    assert (by_tag / "big" / box.name / "status").read_text() == "running\n"
    refused(errno.ENOENT, os.listdir, by_tag / "none")
    refused(errno.ENOENT, os.readlink, by_tag / "big" / other.name)
    os.rename(other.path, mount / "other-name")
    assert sorted(os.listdir(by_tag / "ci")) == sorted([box.name, "other-name"])
    Box(mount, "other-name").destroy()
    box.write("tags", "\n")
    assert os.listdir(by_tag) == []


def test_notes_that_are_refused(box):
    for value in ("a/b", ".hidden", "a" * 64, "ümlaut", " ".join(f"tag-{n}" for n in range(99))):
        refused(errno.EINVAL, box.write, "tags", value)
    refused(errno.EINVAL, box.write, "comment", "two\nlines")
    refused(errno.EINVAL, box.write, "comment", "x" * 1024)
    for value in ("2", "yes", ""):
        refused(errno.EINVAL, box.write, "protect", value or "\n")
    assert (box.read("tags"), box.read("comment"), box.read("protect")) == ("", "", "0\n")


def test_notes_outlive_the_daemon(own_mount):
    box = own_mount.box()
    box.write("tags", "one two")
    box.write("comment", "what it is for: \"quotes\" & ümlauts")
    box.write("protect", "1")
    own_mount.kill()
    own_mount.start()
    assert box.read("tags") == "one two\n"
    assert box.read("comment") == "what it is for: \"quotes\" & ümlauts\n"
    assert box.read("protect") == "1\n"
    box.write("protect", "0")


def test_its_backend_is_told(box):
    """...of names and notes, and may refuse a name."""
    refused(errno.EINVAL, os.rename, box.path, box.mount / "refused-by-backend")
    assert box.path.exists()
    box.write("tags", "one two")
    box.write("comment", "why")
    assert (box.info()["fake_tags"], box.info()["fake_comment"]) == ("one two", "why")


def test_only_times_of_the_folder_can_be_set(box):
    os.utime(box.path)
    refused(errno.EPERM, os.chmod, box.path, 0o700)
    refused(errno.EPERM, os.chown, box.path, 1, 1)
