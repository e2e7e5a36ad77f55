"""root/ and the commands of the guest are two writers of one disk: each sees what the other did."""

import contextlib
import errno
import itertools
import os
import random
import re
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support import refused, wait_until


def do(box, command):
    """Run a command in the folder d and wait for its end."""
    box.run("cd d; " + command)
    assert box.exit() == "0", box.err()


def test_a_command_sees_what_was_written(box, d):
    for n in range(20):
        (d / "f").write_text(f"{n}\n")
        assert box.ask("cat d/f") == b"%d\n" % n


def test_what_a_command_wrote_is_seen_by_the_next_cat(box, d):
    """Longer, shorter, and as long as before within one second: always the new text."""
    (d / "f").write_text("first\n")
    rng = random.Random(1)
    for n in range(30):
        text = f"{n} " + "x" * rng.choice([0, 5, 5, 5, 100, 9000])
        do(box, f"echo '{text}' > f")
        assert (d / "f").read_text() == text + "\n", n
        assert os.stat(d / "f").st_size == len(text) + 1


def test_an_editor_and_a_command(box, d):
    (d / "hosts").write_text("127.0.0.1 localhost\n")
    with open(d / "hosts", "a") as f:
        f.write("10.0.0.1 db\n")
    assert box.ask("tail -1 d/hosts") == b"10.0.0.1 db\n"
    do(box, "sed -i s/db/web/ hosts")
    assert (d / "hosts").read_text() == "127.0.0.1 localhost\n10.0.0.1 web\n"


def test_what_is_set_is_set_whatever_it_was(d, h):
    """In the guest it was changed behind our back a moment ago."""
    (d / "f").write_text("text")
    (d / "folder").mkdir()
    for name, mode in ("f", 0o644), ("folder", 0o755):
        os.chmod(d / name, mode)
        assert stat.S_IMODE(os.stat(d / name).st_mode) == mode
        os.chmod(h / name, 0o700)
        os.chmod(d / name, mode)
        assert stat.S_IMODE(os.stat(h / name).st_mode) == mode


def test_what_is_not_set_stays_as_the_guest_has_it(d, h):
    """The protocol sets both times together, and owner and group."""
    (d / "f").write_text("text")
    os.utime(d / "f", (1000000000, 1000000000))
    assert os.stat(d / "f").st_mtime == 1000000000
    os.utime(h / "f", (1500000000, 1500000000))
    subprocess.run(["touch", "-a", "-d", "@1600000000", d / "f"], check=True)
    assert os.stat(h / "f").st_mtime == 1500000000
    assert os.stat(h / "f").st_atime == 1600000000
    if os.geteuid() == 0:
        assert os.stat(d / "f").st_gid == 0
        os.chown(h / "f", -1, 65534)
        os.chown(d / "f", 65534, -1)
        assert (os.stat(h / "f").st_uid, os.stat(h / "f").st_gid) == (65534, 65534)


def test_names_that_a_command_made_and_removed(box, d):
    assert not (d / "f").exists()
    do(box, "echo 1 > f")
    assert (d / "f").exists()
    do(box, "rm f")
    assert not (d / "f").exists()
    do(box, "mkdir f")
    assert (d / "f").is_dir()
    do(box, "rmdir f; ln -s /etc f")
    assert os.path.islink(d / "f")
    do(box, "rm f; echo file > f")
    assert (d / "f").read_text() == "file\n"
    do(box, "mv f g")
    assert os.listdir(d) == ["g"]
    refused(errno.ENOENT, open, d / "f")
    do(box, "chmod 600 g; touch -d @1000000000 g")
    assert os.stat(d / "g").st_mtime == 1000000000
    assert os.stat(d / "g").st_mode & 0o777 == 0o600


def test_folders_are_checked_again_too(box, d):
    do(box, "mkdir -p a/b; echo 1 > a/b/f")
    assert (d / "a/b/f").read_text() == "1\n"
    do(box, "mv a x; mkdir -p a/b; echo 2 > a/b/f")
    assert (d / "a/b/f").read_text() == "2\n"
    assert (d / "x/b/f").read_text() == "1\n"
    do(box, "rm -r a")
    refused(errno.ENOENT, os.stat, d / "a")


def test_an_open_sees_what_is_written_at_this_moment(d, h):
    """No command ends here: somebody in the guest just writes. Each open sees the latest."""
    for n in range(50):
        text = "x" * (n * 37 % 1000) + f"{n}\n"
        (h / "f").write_text(text)
        assert (d / "f").read_text() == text


def test_who_comes_back_to_a_file_is_not_given_what_was_fetched_ahead(d, h):
    """Of the same size, in the same second: each file of a folder read, then changed and read."""
    names = [f"f{n}" for n in range(8)]
    for folder in range(40):
        (h / str(folder)).mkdir()
        for name in names:
            (h / str(folder) / name).write_bytes(b"first")
    for folder in range(40):
        os.listdir(d / str(folder))
        for name in names:
            (d / str(folder) / name).read_bytes()
        for name in names:
            (h / str(folder) / name).write_bytes(b"other")
            assert (d / str(folder) / name).read_bytes() == b"other", (folder, name)


def test_changes_in_the_background_are_seen_within_a_second(d, h):
    (h / "f").write_text("one")
    assert os.stat(d / "f").st_size == 3
    (h / "f").write_text("three")
    wait_until(lambda: os.stat(d / "f").st_size == 5)
    with open(d / "f") as f:
        assert f.read() == "three"
        with open(h / "f", "a") as g:
            g.write("four")
        wait_until(lambda: f.read() == "four")


def test_an_open_file_is_read_anew_after_a_command(box, d):
    with open(d / "f", "w+") as f:
        f.write("old text")
        f.flush()
        f.seek(0)
        assert f.read() == "old text"
        do(box, "printf 'new text and more' > f")
        # (What an open file may show is a second old.)
        wait_until(lambda: f.seek(0) or f.read() == "new text and more")


def test_never_a_mixture_cut_at_the_wrong_size(d, h):
    """A file that is replaced all the time: each read is one of its versions, whole.

    No two versions are of one size: a file is known by its size and its time in seconds."""
    def version(n):
        return f"{n:08}".encode() * (1 + n * 7919 % 20011)

    stop = threading.Event()
    (h / "f").write_bytes(version(0))

    def replace():
        n = 0
        while not stop.is_set():
            n += 1
            (h / "new").write_bytes(version(n))
            os.rename(h / "new", h / "f")

    writer = threading.Thread(target=replace)
    writer.start()
    try:
        for _ in range(300):
            content = (d / "f").read_bytes()
            assert content == version(int(content[:8])), len(content)
    finally:
        stop.set()
        writer.join()


def test_what_is_replaced_through_the_mount_is_read_whole(d, h):
    """No new file is cut at the old one's size, and none ends with ESTALE."""
    def version(n):
        return b"%08d" % n * (1 + n * 7919 % 2003)

    def look():
        while not done.is_set():
            content = (d / "f").read_bytes()
            assert content == version(int(content[:8])), len(content)

    for n in range(1, 400):
        (h / str(n)).write_bytes(version(n))
    (d / "f").write_bytes(version(0))
    done = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(look) for _ in range(2)]
        try:
            for n in range(1, 400):
                os.rename(d / str(n), d / "f")
        finally:
            done.set()
        for reader in readers:
            reader.result()


def test_pages_are_kept_where_nothing_changed(box, d, h):
    """The same file again costs no traffic, once it is known to rest."""
    (h / "f").write_bytes(b"x" * (4 << 20))
    os.utime(h / "f", (1000000000, 1000000000))
    for _ in range(2):
        assert len((d / "f").read_bytes()) == 4 << 20
        time.sleep(2.2)    # the rule of fs/disk/entry.c: an mtime has whole seconds
    (d / "f").read_bytes()
    before = int(box.info()["received_bytes"])
    assert (d / "f").read_bytes() == b"x" * (4 << 20)
    assert int(box.info()["received_bytes"]) - before < 100000
    # same size, same time, but a command that ended: it is looked at again, and is the same
    do(box, "printf y | dd of=f conv=notrunc status=none; touch -d @1000000001 f")
    assert (d / "f").read_bytes()[:2] == b"yx"


def test_names_that_a_walk_has_just_brought(box, d, h):
    """They are asked for again as soon as a job could have changed them."""
    for n in range(20):
        (h / f"f{n}").write_text("old")
    for turn in range(10):
        assert len([os.lstat(d / name) for name in os.listdir(d)]) == 20
        new = "x" * (turn + 4)
        do(box, f"rm f{turn + 10}; for f in f?; do printf {new} > $f; done; mkdir f{turn + 10}")
        assert all(os.stat(d / f"f{n}").st_size == turn + 4 for n in range(10))
        assert (d / f"f{turn + 10}").is_dir()
        do(box, f"rmdir f{turn + 10}")
        assert not (d / f"f{turn + 10}").exists()
        do(box, f"echo back > f{turn + 10}")
        assert (d / f"f{turn + 10}").read_text() == "back\n"


def test_what_a_running_job_has_announced_is_there(box, d):
    """A job that goes on says that it has written: whoever reads that finds it."""
    assert not (d / "f0").exists() and os.listdir(d) == []
    fd = os.open(box / "cmd", os.O_RDWR)
    try:
        # (It says something only so often: what follows sooner may be seen a tenth of a second late.)
        os.write(fd, b"cd d; for n in 0 1 2 3; do until test -e ../go$n; do sleep 0.02; done; "
                     b"sleep 0.3; echo $n > f$n; echo $n; done")
        for n in range(4):
            assert not (d / f"f{n}").exists()
            (box.home / f"go{n}").touch()
            assert os.read(fd, 10) == b"%d\n" % n
            assert (d / f"f{n}").read_text() == f"{n}\n"
            assert len(os.listdir(d)) == n + 1
    finally:
        os.close(fd)


def test_a_walk_that_reads_sees_what_the_last_job_wrote(box, d):
    """grep -r has everything fetched ahead of it; what a job changes in between is not given."""
    do(box, "mkdir 1 2 3 4; for a in ?; do for b in 1 2 3 4 5 6 7 8; do echo one > $a/$b; done; done")

    def contents():
        return {path.read_text() for path in sorted(d.glob("*/*"))}

    for word in ("one", "two", "three", "six"):
        do(box, f"for f in */*; do echo {word} > $f; done")
        assert contents() == {word + "\n"}


def lookups(mount):
    found = re.search(r'_count\{operation="lookup"\} (\d+)', (mount / ".sbxfs/metrics").read_text())
    return int(found[1])


def kernel_recalls_names():
    return tuple(int(n) for n in re.findall(r"\d+", os.uname().release)[:2]) >= (6, 16)


@pytest.mark.skipif(not kernel_recalls_names(), reason="the kernel cannot forget all names at once")
def test_names_are_lent_to_the_kernel_and_called_back(own_mount):
    """A walk costs few lookups; a job's changes are seen behind it all the same, at once."""
    box = own_mount.box("web")
    box.ask("mkdir -p walk; cd walk; for i in $(seq 500); do echo old > f$i; done")
    folder = box.disk / "walk"

    def walk():
        before = lookups(own_mount)
        assert len([os.stat(name).st_size for name in os.listdir(".")]) == 500
        return lookups(own_mount) - before

    def by_path():
        before = lookups(own_mount)
        for _ in range(200):
            os.stat(folder / "f1")
        return lookups(own_mount) - before

    # (Names are lent for a second: what goes on for longer asks for some of them again.)
    wait_until(lambda: by_path() < 50)
    os.chdir(folder)
    try:
        wait_until(lambda: walk() < 250)
        for turn in range(20):
            assert os.stat("f1").st_size == 4 + turn and os.path.exists("f2") == (turn % 2 == 0)
            box.ask(f"cd walk; printf x >> f1; {'rm f2' if turn % 2 == 0 else 'echo old > f2'}")
        assert os.getcwd() == str(folder)
    finally:
        os.chdir("/")


def test_a_folder_that_is_renamed_while_it_is_listed(d, h):
    """sftp-server leaves out what it does not find by the old path: nothing is missing all the same."""
    names = {f"name{n}" for n in range(2000)}
    (h / "one/folder").mkdir(parents=True)
    for name in names:
        (h / "one/folder" / name).touch()
    folder, done = os.open(d / "one/folder", os.O_RDONLY), threading.Event()
    seen = []

    def look():
        while not seen or not done.is_set():
            fd = os.open(".", os.O_RDONLY, dir_fd=folder)
            seen.append(set(os.listdir(fd)))
            os.close(fd)

    with ThreadPoolExecutor(1) as pool:
        lister = pool.submit(look)
        try:
            for _ in range(50):
                os.rename(d / "one", d / "two")
                os.rename(d / "two", d / "one")
        finally:
            done.set()
            lister.result()
            os.close(folder)
    assert all(one == names for one in seen)


RENAMER = """
import os
while True:
    os.rename("one", "two")
    os.rename("two", "one")
    print()
"""


@pytest.mark.deadline(300)
def test_folders_that_are_renamed_hold_up_no_other(d, h, spawn):
    """What is not there is not there, and a listing comes to its end."""
    for folder in range(20):
        (h / str(folder)).mkdir()
        for name in range(500):
            (h / str(folder) / str(name)).touch()
    for n in range(6):
        (h / f"busy-{n}" / "one").mkdir(parents=True)
    wait_until(lambda: len(os.listdir(d)) == 26)
    for n in range(6):
        renamer = spawn([sys.executable, "-uc", RENAMER], cwd=d / f"busy-{n}", stdout=-1)
        assert renamer.stdout.readline() == b"\n"
        threading.Thread(target=renamer.stdout.read).start()
    for folder in range(20):
        refused(errno.ENOENT, os.stat, d / str(folder) / "none")
        assert len(os.listdir(d / str(folder))) == 500


@contextlib.contextmanager
def all_the_while(call):
    """Another thread calls it with 1, 2, 3 and so on."""
    done = threading.Event()
    failed = []

    def run():
        try:
            for n in itertools.count(1):
                if done.is_set():
                    break
                call(n)
        except OSError as e:
            failed.append(e)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    assert not failed


def there_and_back(one, other):
    return all_the_while(lambda n: os.rename(*((one, other) if n % 2 else (other, one))))


def test_names_that_are_moved_between_folders_that_are_renamed(d):
    """Who holds the folder never hears that the name is not there."""
    (d / "above" / "one").mkdir(parents=True)
    (d / "file").touch()
    folder, here = (os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (d / "above/one", d))
    with there_and_back(d / "above/one", d / "above/two"):
        for _ in range(150):
            os.rename("file", "moved", src_dir_fd=here, dst_dir_fd=folder)
            os.rename("moved", "file", src_dir_fd=folder, dst_dir_fd=here)
            os.link("file", "linked", src_dir_fd=here, dst_dir_fd=folder)
            os.unlink("linked", dir_fd=folder)
    os.close(folder)
    os.close(here)
    assert sorted(os.listdir(d)) == ["above", "file"]


def test_a_file_that_is_renamed_is_there(d):
    """Who holds it opens it, whatever its name is."""
    (d / "one").write_text("text")
    held = os.open(d / "one", os.O_PATH)
    with there_and_back(d / "one", d / "two"):
        for _ in range(500):
            assert Path(f"/proc/self/fd/{held}").read_text() == "text"
    os.close(held)


@pytest.fixture(params=["here", "by a command"])
def side(request, d, h):
    return d if request.param == "here" else h


@pytest.fixture
def during():
    """Call this, again and again, while another thread calls that once."""
    with ThreadPoolExecutor(1) as pool:
        def both(that, this):
            other = pool.submit(that)
            while not other.done():
                this()
            other.result()

        yield both


@pytest.mark.deadline(300)
def test_a_file_that_is_replaced_is_always_there(d, side, during):
    def look():
        text = (d / "f").read_text()
        assert len(text) == 1000 and len(set(text)) == 1

    def change():
        os.close(os.open(d / "f", os.O_RDWR))
        os.chmod(d / "f", 0o600)
        os.utime(d / "f")

    (d / "f").write_text("0" * 1000)
    for n in range(1000):
        (side / "new").write_text(str(n % 10) * 1000)
        during(lambda: os.rename(side / "new", side / "f"), change if n % 3 == 0 else look)


def test_a_link_that_is_replaced_is_always_there(d, side, during):
    def look():
        assert os.readlink(d / "current") in ("a", "b")
        assert (d / "current/f").read_text() in ("a", "b")
        assert os.listdir(d / "current") == ["f"]

    for name in "ab":
        (d / name).mkdir()
        (d / name / "f").write_text(name)
    os.symlink("a", d / "current")
    for n in range(300):
        os.symlink("ab"[n % 2], side / "new")
        during(lambda: os.rename(side / "new", side / "current"), look)


def test_a_folder_that_is_replaced_is_always_there(d, side, during):
    def look():
        assert os.listdir(d / "folder") == []
        assert (d / "folder").is_dir()

    (d / "folder").mkdir()
    for _ in range(300):
        (side / "new").mkdir()
        during(lambda: os.rename(side / "new", side / "folder"), look)


def test_a_name_that_is_now_this_and_now_that(d, side):
    """Each call finds one of them, or nothing: no errno tells of anything else."""
    name = side / "name"
    makers = [lambda: name.write_text("a"), name.unlink, name.mkdir, name.rmdir]

    def change(n):
        with contextlib.suppress(OSError):      # the other has removed it
            makers[n % 4]()

    calls = [(d / "name").read_text, (d / "name").stat, (d / "name").unlink,
             lambda: os.listdir(d / "name"), lambda: os.close(os.open(d / "name", os.O_RDWR))]
    with all_the_while(change):
        for _ in range(500):
            for call in calls:
                try:
                    call()
                except OSError as e:
                    # ESTALE: it changed between two looks of the kernel, which takes no third one.
                    assert e.errno in (errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ESTALE)


def test_what_is_made_where_names_come_and_go(d, h):
    """Who opens a file that is to be made has one, or is told what else is there."""
    name = h / "name"
    makers = [lambda: name.write_text("a"), name.unlink, name.mkdir, name.rmdir,
              lambda: name.symlink_to("other"), name.unlink]

    def change(n):
        with contextlib.suppress(OSError):      # the other has made it
            makers[(n - 1) % 6]()

    with all_the_while(change):
        for _ in range(500):
            try:
                os.close(os.open(d / "name", os.O_WRONLY | os.O_CREAT))
            except OSError as e:
                # ENOENT: it was a link, which has gone when it is to be followed.
                assert e.errno in (errno.EISDIR, errno.ENOENT, errno.ESTALE)


def test_a_listing_that_the_kernel_keeps(d, h):
    """It is given again while it is true: to who opens the folder, and to who rewinds."""
    folder, there = d / "folder", h / "folder"
    there.mkdir()
    names = {f"{n}-{'x' * 100}" for n in range(300)}
    for name in names:
        (there / name).touch()
    os.utime(there, (10**9, 10**9))
    wait_until(lambda: folder.is_dir() and len(os.listdir(folder)) == 300)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    dice = random.Random(1)
    walkers = []
    for n in range(100):
        for _ in range(3):
            assert set(os.listdir(folder)) == names
        assert set(os.listdir(fd)) == names
        walker = os.scandir(folder)     # it has read a part
        next(walker)
        walkers = [walker, *walkers[:3]]
        one = dice.choice(sorted(names))
        if n % 3 == 0:
            (folder / f"new-{n}").touch()
            names.add(f"new-{n}")
        elif n % 3 == 1:
            (folder / one).unlink()
            names.remove(one)
        else:
            (folder / one).rename(folder / f"moved-{n}")
            names = names - {one} | {f"moved-{n}"}
        assert os.listdir(folder).count(f"new-{n}") == (n % 3 == 0)
        assert set(os.listdir(fd)) == names
        os.utime(folder, (10**9 + n, 10**9 + n))
    for n in range(3):
        (there / f"guest-{n}").touch()
        wait_until(lambda name=f"guest-{n}": name in os.listdir(folder))
        wait_until(lambda name=f"guest-{n}": name in os.listdir(fd))
        os.utime(there, (10**9, 10**9))
    names |= {f"guest-{n}" for n in range(3)}
    assert set(os.listdir(folder)) == names and set(os.listdir(fd)) == names
    os.close(fd)


@pytest.fixture
def names(d):
    """Two names of one file, and what each of them was seen to be."""
    (d / "one").write_text("text")
    os.chmod(d / "one", 0o644)
    assert (d / "one").stat().st_mode & 0o777 == 0o644
    os.link(d / "one", d / "two")
    return d / "one", d / "two"


def test_two_names_of_a_file_change_together(names):
    """Whatever the kernel was told of a name before there was another one."""
    one, two = names
    os.chmod(two, 0o755)
    assert one.stat().st_mode & 0o777 == 0o755
    two.write_text("longer text")
    assert one.stat().st_size == 11 and one.read_text() == "longer text"


def test_a_name_renamed_to_another_one_of_the_file(names):
    """POSIX: nothing happens, and both stay."""
    one, two = names
    os.rename(one, two)
    assert one.stat().st_ino == two.stat().st_ino
    os.chmod(two, 0o755)
    assert one.stat().st_mode & 0o777 == 0o755 == two.stat().st_mode & 0o777
    two.unlink()
    assert one.read_text() == "text"


@pytest.mark.skipif(os.getuid() != 0, reason="only root makes the kernel forget")
def test_two_names_that_the_kernel_forgot(names):
    one, two = names
    Path("/proc/sys/vm/drop_caches").write_text("2")
    assert one.stat().st_mode & 0o777 == 0o644 and one.stat().st_ino == two.stat().st_ino
    os.chmod(two, 0o755)
    assert one.stat().st_mode & 0o777 == 0o755
