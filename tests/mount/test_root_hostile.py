"""A guest whose SFTP server lies (hostile.py): what it says ends the call, or its own connection,
with a sentence in `error`. Memory stays bounded, other sandboxes notice nothing."""

import contextlib
import errno
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest

from support import Mount, blocked_in, bounded, refused, wait_until

SERVER = Path(__file__).with_name("hostile.py")


CONFIG = """\
[mount]
backends = fake
[fake]
sharedkey = yes
sftp_server = test -e /habit && exec /usr/bin/python3 -S -E /hostile.py; exec %s
""" % next(path for path in ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server",
                             "/usr/lib/ssh/sftp-server", "/usr/libexec/sftp-server", "false")
           if os.path.exists(path) or path == "false")


class Hostile:
    """A sandbox with that server, and a neighbour of it that must not notice."""

    def __init__(self, mount, other):
        self.mount, self.other, self.box = mount, other, mount.box()
        self.root = self.box.path / "root"
        self.disk = Path(self.box.info()["folder"])
        shutil.copy(SERVER, self.disk / "hostile.py")
        self.before = self.look_at_other()

    def behave(self, habit):
        """When its server is started next."""
        (self.disk / "habit").write_text(habit)

    def look_at_other(self):
        assert (self.other.disk / "f").read_text() == "neighbour"
        assert self.other.error() == ""
        return self.mount.sshd_processes(self.other.name)


@pytest.fixture(scope="module")
def neighbourhood():
    """A mount, and a sandbox that behaves."""
    mount = Mount(CONFIG).start()
    other = mount.box("neighbour")
    (other.home / "f").write_text("neighbour")
    yield mount, other
    mount.clean()


@pytest.fixture
def hostile(neighbourhood):
    mount, other = neighbourhood
    hostile, seen = Hostile(mount, other), len(mount.log.lines)
    yield hostile
    assert mount.process.poll() is None, "\n".join(mount.log.lines[seen:])
    assert hostile.look_at_other() == hostile.before
    assert not mount.trouble(seen), "\n".join(mount.log.lines[seen:])
    hostile.box.destroy()


def list_once(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.listdir(fd)
    finally:
        os.close(fd)


def look(root):
    """Everything that the disk has to offer, whatever comes of it."""
    for call in (os.listdir, os.stat, lambda p: os.stat(p / "f"), lambda p: (p / "f").read_bytes(),
                 lambda p: os.readlink(p / "link"), lambda p: os.statvfs(p / "sub"),
                 lambda p: (p / "g").write_bytes(b"hello"), lambda p: os.listdir(p / "sub"),
                 lambda p: os.rename(p / "f", p / "h"), lambda p: os.mkdir(p / "new"),
                 lambda p: os.unlink(p / "g"), lambda p: os.utime(p / "f")):
        with contextlib.suppress(OSError):
            call(root)


def breaks(hostile, habit, call, *args, words):
    """The call fails with EPROTO, and the sentence is there."""
    hostile.behave(habit)
    refused(errno.EPROTO, call, *args)
    assert re.search(words, hostile.box.error()), hostile.box.error()
    assert hostile.box.error() in hostile.mount.errors()
    assert hostile.box.status() == "running"


@pytest.mark.parametrize("habit, words", [
    ("greeting-text", "before the greeting"), ("greeting-version", "version 6"),
    ("greeting-cut", "cannot be read"), ("greeting-pairs-cut", "cannot be read"),
    ("greeting-empty-packet", "empty or longer"), ("greeting-huge-packet", "empty or longer"),
    ("greeting-answer", "not made"), ("limits-cut", "cut short"),
])
def test_bad_greetings(hostile, habit, words):
    breaks(hostile, habit, os.listdir, hostile.root, words=words)


def test_a_server_that_ends_at_once(hostile):
    hostile.behave("greeting-ends")
    refused(errno.EIO, os.listdir, hostile.root)
    assert "status 3" in hostile.box.error()


@pytest.mark.parametrize("habit", ["limits-tiny", "limits-huge", "greeting-twice"])
def test_odd_greetings_that_do_no_harm(hostile, habit):
    hostile.behave(habit)
    look(hostile.root)


@pytest.mark.parametrize("habit, words", [
    ("answer-wrong-id", "not made"), ("answer-unasked", "not made"),
    ("answer-ok", "does not fit"), ("answer-name", "does not fit"),
    ("answer-handle", "does not fit"), ("answer-request", "cannot be read"),
    ("answer-unknown-type", "cannot be read"), ("answer-status-cut", "cannot be read"),
    ("answer-empty-packet", "empty or longer"), ("answer-huge-packet", "empty or longer"),
    ("attrs-cut", "cannot be read"), ("attrs-flags-only", "cannot be read"),
    ("attrs-none", "cannot be read"), ("attrs-extended-cut", "cannot be read"),
])
def test_answers_that_break_the_protocol(hostile, habit, words):
    breaks(hostile, habit, os.stat, hostile.root / "f", words=words)


def test_an_answer_that_comes_twice(hostile):
    """The first one was good; the second one ends the connection, and calls that wait."""
    hostile.behave("answer-twice")
    # (It is told for a moment; behind that a look at f begins it all again.)
    wait_until(lambda: not try_stat(hostile.root / "f") or not try_stat(hostile.root / "sub/f"))
    assert "not made" in hostile.box.error()


def try_stat(path):
    try:
        return os.stat(path)
    except OSError as e:
        assert e.errno == errno.EPROTO
        return None


def test_an_answer_that_is_cut_by_the_end(hostile):
    hostile.behave("answer-half-and-end")
    refused(errno.EIO, os.stat, hostile.root / "f")


@pytest.mark.parametrize("habit, number", [
    ("answer-unknown-status", errno.EIO), ("answer-eof", errno.EIO),
    ("answer-quota", errno.EDQUOT), ("answer-quota-text", errno.EDQUOT),
])
def test_errors_with_odd_codes(hostile, habit, number):
    hostile.behave(habit)
    refused(number, os.stat, hostile.root / "f")
    assert len(hostile.box.error()) < 1000


# --- attributes -----------------------------------------------------------------------

def test_attributes_with_every_flag(hostile):
    hostile.behave("attrs-every-flag")
    st = os.stat(hostile.root / "f")
    assert (st.st_size, st.st_mode, st.st_mtime) == (5, 0o100644, 1000000000)


def test_attributes_of_which_nothing_is_told(hostile):
    hostile.behave("attrs-no-flags")
    assert os.stat(hostile.root / "f").st_size == 0


def test_extreme_attributes(hostile):
    hostile.behave("attrs-extreme")
    st = os.stat(hostile.root / "f")
    assert st.st_size == (1 << 63) - 1
    assert st.st_mtime == 0xffffffff
    with open(hostile.root / "f", "rb", buffering=0) as f:
        assert f.read(100) == b"hello"


@pytest.mark.parametrize("habit", ["attrs-no-type", "attrs-impossible-type", "types-change"])
def test_types_that_cannot_be(hostile, habit):
    hostile.behave(habit)
    for _ in range(20):
        look(hostile.root)


def test_what_becomes_something_else(hostile):
    """It is that then: no errno tells that anything is broken, and no open file of it stays."""
    hostile.behave("becomes-another")
    refused(errno.EISDIR, os.open, hostile.root / "new", os.O_WRONLY | os.O_CREAT)
    refused(errno.EEXIST, os.open, hostile.root / "newer", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    for name in ("f", "g"):
        assert stat.S_ISREG(os.stat(hostile.root / name).st_mode)
        os.chmod(hostile.root / name, 0o600)
        assert stat.S_ISDIR(os.stat(hostile.root / name).st_mode)
    refused(errno.EEXIST, os.mkdir, hostile.root / "made")
    assert stat.S_ISREG(os.stat(hostile.root / "made").st_mode)
    assert stat.S_ISLNK(os.lstat(hostile.root / "link").st_mode)
    assert stat.S_ISREG(os.stat(hostile.root / "link").st_mode)


def test_what_is_made_where_another_comes_and_goes(hostile):
    hostile.behave("comes-and-goes")
    os.close(os.open(hostile.root / "new", os.O_WRONLY | os.O_CREAT))


def test_what_was_a_folder_for_a_moment(hostile):
    """What it is now is opened and removed; what cannot be removed for long is told."""
    hostile.behave("was-a-folder")
    os.close(os.open(hostile.root / "f", os.O_RDWR))
    os.unlink(hostile.root / "f")
    refused(errno.EBUSY, os.unlink, hostile.root / "g")


def test_no_device_of_a_guest_works(hostile):
    hostile.behave("attrs-device")
    assert stat.S_ISCHR(os.stat(hostile.root / "f").st_mode)
    refused(errno.EACCES, open, hostile.root / "f")
    assert {"nosuid", "nodev"} <= set(next(hostile.mount.mountinfo())[5].split(","))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_no_set_uid_of_a_guest_works(neighbourhood):
    mount, box = neighbourhood
    shutil.copy("/usr/bin/id", box.home / "id")
    os.chown(box.home / "id", 65534, 65534)
    os.chmod(box.home / "id", 0o6755)
    os.chmod(box.home, 0o711)
    assert os.stat(box.disk / "id").st_mode == 0o106755
    assert subprocess.check_output([box.home / "id", "-u"]) == b"65534\n"    # without the mount it does
    assert subprocess.check_output([box.disk / "id", "-u"]) == b"0\n"
    assert subprocess.check_output([box.disk / "id", "-g"]) == b"0\n"


# --- handles, contents --------------------------------------------------------------------

@pytest.mark.parametrize("size", [0, 1, 256])
def test_handles_of_any_legal_length(hostile, size):
    hostile.behave(f"handle-{size}")
    assert (hostile.root / "f").read_text() == "hello"
    assert "f" in os.listdir(hostile.root)


@pytest.mark.parametrize("habit", ["handle-257", "handle-100000", "handle-cut"])
def test_handles_that_are_too_long(hostile, habit):
    breaks(hostile, habit, open, hostile.root / "f", words="does not fit|cannot be read")


@pytest.mark.parametrize("habit, words", [
    ("read-long", "does not fit"), ("read-cut", "cannot be read"), ("read-handle", "does not fit"),
])
def test_contents_that_break_the_protocol(hostile, habit, words):
    breaks(hostile, habit, (hostile.root / "f").read_bytes, words=words)


def test_contents_by_single_bytes(hostile):
    hostile.behave("read-by-bytes")
    with open(hostile.root / "big", "rb", buffering=0) as f:
        assert f.read(200) == b"x" * 200


def test_contents_that_are_less_than_told(hostile):
    hostile.behave("read-empty")
    assert (hostile.root / "big").read_bytes() in (b"", bytes(1 << 30))


def test_a_file_without_an_end(hostile, spawn):
    """Read for ever, it costs no memory, and a signal ends it."""
    hostile.behave("read-endless")
    with bounded(hostile.mount, 64 << 20):
        readers = [spawn(["cat", hostile.root / name], stdout=subprocess.DEVNULL)
                   for name in ("f", "big", "big")]
        time.sleep(1.5)     # it has no end: this long, then
        for r in readers:
            r.send_signal(signal.SIGINT)
        for r in readers:
            r.wait(30)


@pytest.fixture
def silent_reader(hostile, spawn):
    """It reads `f`, and will get no answer."""
    hostile.behave("read-silent")
    reader = spawn(["cat", hostile.root / "f"], stdout=subprocess.DEVNULL)
    wait_until((hostile.disk / "asked").exists)
    return reader


def test_a_read_without_an_answer_dies_with_its_reader(hostile, silent_reader, spawn):
    """The kernel has locked the page that it is to fill: nobody else could open the file."""
    silent_reader.kill()
    silent_reader.wait(5)
    opener = spawn(["sh", "-c", ': < "$1"', "sh", hostile.root / "f"])
    assert opener.wait(20) == 0     # the server is given up after 60 s


def test_who_opens_what_another_waits_for_can_be_interrupted(hostile, silent_reader, spawn):
    opener = spawn(["cat", hostile.root / "f"])
    wait_until(lambda: blocked_in(opener.pid, "open"))
    opener.send_signal(signal.SIGINT)
    assert opener.wait(5) == -signal.SIGINT
    opener = spawn(["cat", hostile.root / "f"])
    wait_until(lambda: blocked_in(opener.pid, "open"))
    opener.kill()
    opener.wait(5)
    assert silent_reader.poll() is None
    silent_reader.kill()
    silent_reader.wait(5)


def test_a_writer_that_is_killed_waits_for_no_verdict(hostile, spawn):
    hostile.behave("write-silent")
    writer = spawn(["/usr/bin/python3", "-c", "import os, sys\n"
                    "os.write(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_EXCL), b'text')\n"
                    "os.kill(os.getpid(), 9)", hostile.root / "new"])
    assert writer.wait(20) == -signal.SIGKILL   # the server is given up after 60 s


# --- listings ------------------------------------------------------------------------------

@pytest.mark.parametrize("habit", [
    "names-empty", "names-slash", "names-nul", "names-up", "names-root", "names-long", "names-huge",
])
def test_names_that_cannot_be(hostile, habit):
    breaks(hostile, habit, list_once, hostile.root / "sub", words="name that cannot be")


@pytest.mark.parametrize("habit", ["count-too-many", "count-absurd", "count-cut",
                                   "count-entry-cut"])
def test_counts_that_are_wrong(hostile, habit):
    breaks(hostile, habit, list_once, hostile.root / "sub", words="cannot be read|name that cannot")


def test_more_names_than_were_counted(hostile):
    hostile.behave("count-too-few")
    assert list_once(hostile.root / "sub") == ["f"]


def test_answers_without_names(hostile):
    hostile.behave("names-nothing")
    assert list_once(hostile.root / "sub") == []


@pytest.mark.deadline(300)
def test_a_folder_without_an_end(hostile, spawn):
    """It is given up at a bound. (An error that tells so, for ls goes on for ever at EOVERFLOW.)"""
    hostile.behave("names-endless")
    with bounded(hostile.mount, 112 << 20):
        with pytest.raises(OSError) as caught:
            list_once(hostile.root / "sub")
        assert caught.value.errno in (errno.EFBIG, errno.ENOMEM)
        assert re.search("names|without an end", hostile.box.error())
        assert spawn(["ls", hostile.root / "sub"], stdout=subprocess.DEVNULL,
                     stderr=subprocess.DEVNULL).wait() == 2


@pytest.mark.deadline(300)
def test_many_folders_without_an_end(hostile, spawn):
    """They share one bound, and a short folder of somebody else can be listed meanwhile."""
    hostile.behave("names-endless")
    with bounded(hostile.mount, 144 << 20):
        listers = [spawn(["ls", hostile.root / "sub"], stdout=subprocess.DEVNULL,
                         stderr=subprocess.DEVNULL) for _ in range(4)]
        while any(p.poll() is None for p in listers):
            assert "f" in os.listdir(hostile.other.disk)
        assert [p.returncode for p in listers] == [2] * 4


# --- links ---------------------------------------------------------------------------------

def inside(text, depth):
    """A link's text, as link.c promises it: not more ".."s than there are folders, then names."""
    parts = text.split("/")
    ups = parts.count("..")
    return ups <= depth and parts[:ups] == [".."] * ups and parts[0] != ""


@pytest.mark.parametrize("habit", [f"link-{how}" for how in
                                   ("absolute", "up", "nested", "changes", "long", "nul", "empty")])
def test_links_never_lead_out(hostile, habit):
    hostile.behave(habit)
    top = os.path.realpath(hostile.root)
    for _ in range(30):
        try:
            text = os.readlink(hostile.root / "link")
        except OSError as e:
            assert e.errno in (errno.EIO, errno.ENAMETOOLONG)
            continue
        assert inside(text, 0), text
        try:
            fd = os.open(hostile.root / "link", os.O_PATH)
        except OSError:
            continue
        try:
            assert (os.readlink(f"/proc/self/fd/{fd}") + "/").startswith(top + "/")
        finally:
            os.close(fd)


# --- floods, chaos ----------------------------------------------------------------------------

@pytest.mark.parametrize("habit", ["flood-stderr", "flood-status", "flood-trickle"])
def test_floods(hostile, habit, spawn):
    """Who asked can be interrupted; the neighbour is served meanwhile; memory stays bounded."""
    hostile.behave(habit)
    with bounded(hostile.mount, 64 << 20):
        asker = spawn(["stat", hostile.root / "f"], stdout=subprocess.DEVNULL,
                      stderr=subprocess.DEVNULL)
        # (A flood that the protocol knows for one ends its connection.)
        wait_until(lambda: asker.poll() is not None or blocked_in(asker.pid, "stat"))
        end, looks = time.monotonic() + 1, 0
        while time.monotonic() < end or looks < 5:
            assert hostile.look_at_other() == hostile.before
            looks += 1
        asker.send_signal(signal.SIGINT)
        asker.wait(30)


def walk(spawn, root):
    """Look at everything, in a process that can be interrupted."""
    return spawn(["/usr/bin/python3", "-B", "-c", "import sys; from pathlib import Path\n"
                  "from test_root_hostile import look\n"
                  "for _ in range(3): look(Path(sys.argv[1]))", root],
                 cwd=Path(__file__).parent, stderr=subprocess.DEVNULL)


@pytest.mark.deadline(600)
def test_chaos(neighbourhood, spawn):
    """Answers spoilt at random. Calls fail or wait for what will never come, and can be interrupted
    then; nothing breaks but that sandbox's connection."""
    seed = int(os.environ.get("SBXFS_TEST_SEED") or random.randrange(1 << 20))
    mount, other = neighbourhood
    seen = len(mount.log.lines)
    with bounded(mount, 96 << 20):
        # (1: a channel that ends between the answers of one call)
        for n in (1, *range(seed, seed + 8)):
            hostile = Hostile(mount, other)
            hostile.behave(f"chaos-{n}")
            walkers = [walk(spawn, hostile.root) for _ in range(2)]
            for w in walkers:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    w.wait(2)
            # (All of them: one may hold the folder that the kernel lets another wait for.)
            for w in walkers:
                w.kill()
            for w in walkers:
                w.wait(20)
            assert mount.process.poll() is None, (f"SBXFS_TEST_SEED={n}", mount.log.lines[seen:])
            assert hostile.look_at_other() == hostile.before
            hostile.box.destroy()
    assert not mount.trouble(seen), f"SBXFS_TEST_SEED={seed}"


def test_it_can_be_used_again_once_it_behaves(hostile):
    breaks(hostile, "attrs-cut", os.stat, hostile.root / "f", words="cannot be read")
    hostile.behave("good")
    wait_until(lambda: try_stat(hostile.root / "f"))
    assert sorted(os.listdir(hostile.root)) == ["big", "f", "g", "link", "sub"]
    assert (hostile.root / "f").read_text() == "hello"
