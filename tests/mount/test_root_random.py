"""root/ against a local folder: the same random operations, the same results.

	SBXFS_TEST_SEED=N	repeats a run: a failure tells its N
	SBXFS_TEST_STEPS=N	how many operations, 4000 unless told
"""

import contextlib
import errno
import itertools
import math
import mmap
import os
import random
import stat
import time

import pytest

from support import wait_until

STEPS = int(os.environ.get("SBXFS_TEST_STEPS", "4000"))
NAMES = ("a", "b", "c", "dir", "grüße", "x y")
SIZES = (0, 1, 100, 4095, 4096, 4097, 32768, 70000, 131072, 300000)


def new_seed():
    return int(os.environ.get("SBXFS_TEST_SEED") or random.randrange(1 << 30))


class Player:
    """Does what it is told in its folder, and tells what came of it."""

    def __init__(self, base):
        self.base, self.fds = os.fspath(base), {}

    def path(self, name):
        return os.path.join(self.base, name)

    def do(self, call, *args):
        """(result, None), or (None, the errno's name)."""
        try:
            return getattr(self, call)(*args), None
        except OSError as e:
            return None, errno.errorcode[e.errno]

    # --- by name ------------------------------------------------------------------

    def create(self, name, flags, mode, data):
        fd = os.open(self.path(name), os.O_WRONLY | os.O_CREAT | flags, mode)
        try:
            return os.write(fd, data)
        finally:
            os.close(fd)

    def read(self, name):
        with open(self.path(name), "rb", buffering=0) as f:
            return f.readall()

    def replace(self, name, data):
        """As editors and package managers save."""
        beside = self.path(name) + ".new"
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            os.write(fd, data)
            os.fsync(fd)
        finally:
            os.close(fd)
        try:
            os.rename(beside, self.path(name))
        except OSError:
            os.unlink(beside)
            raise

    def copy(self, name, new):
        """As cp does it."""
        with open(self.path(name), "rb") as a, open(self.path(new), "wb") as b:
            while os.copy_file_range(a.fileno(), b.fileno(), 1 << 20):
                pass

    def truncate(self, name, size):
        os.truncate(self.path(name), size)

    def mkdir(self, name, mode):
        os.mkdir(self.path(name), mode)

    def rmdir(self, name):
        os.rmdir(self.path(name))

    def unlink(self, name):
        os.unlink(self.path(name))

    def rename(self, name, new):
        os.rename(self.path(name), self.path(new))

    def link(self, name, new):
        os.link(self.path(name), self.path(new), follow_symlinks=False)

    def symlink(self, text, name):
        os.symlink(text, self.path(name))

    def readlink(self, name):
        return os.readlink(self.path(name))

    def chmod(self, name, mode):
        os.chmod(self.path(name), mode)

    def utime(self, name, atime, mtime):
        os.utime(self.path(name), (atime, mtime), follow_symlinks=False)

    def stat(self, name):
        return self.shown(os.stat(self.path(name)))

    def lstat(self, name):
        return self.shown(os.lstat(self.path(name)))

    def list(self, name):
        with os.scandir(self.path(name)) as entries:
            return sorted((e.name, e.is_dir(follow_symlinks=False), e.is_symlink())
                          for e in entries)

    def mapped(self, name, off, data):
        with open(self.path(name), "r+b") as f:
            if os.fstat(f.fileno()).st_size <= off + len(data):
                return None
            with mmap.mmap(f.fileno(), 0) as m:
                before = m[off:off + len(data)]
                m[off:off + len(data)] = data
                m.flush()
            return before

    @staticmethod
    def shown(st):
        size = st.st_size if stat.S_ISREG(st.st_mode) else None
        return st.st_mode if not stat.S_ISLNK(st.st_mode) else stat.S_IFLNK, size

    # --- by descriptor --------------------------------------------------------------

    def open(self, key, name, flags):
        self.fds[key] = os.open(self.path(name), flags, 0o640)

    def close(self, key):
        os.close(self.fds.pop(key))

    def pread(self, key, size, off):
        return os.pread(self.fds[key], size, off)

    def pwrite(self, key, data, off):
        return os.pwrite(self.fds[key], data, off)

    def ftruncate(self, key, size):
        os.ftruncate(self.fds[key], size)

    def fstat(self, key):
        return self.shown(os.fstat(self.fds[key]))

    def fsync(self, key):
        os.fsync(self.fds[key])

    def finish(self):
        for key in list(self.fds):
            self.close(key)


class Dice:
    """Chooses operations; the same seed chooses the same ones."""

    def __init__(self, seed, links=False):
        self.rng, self.links = random.Random(seed), links
        self.keys = []
        self.count = itertools.count()

    def name(self):
        depth = self.rng.choice((1, 1, 1, 2, 2, 3))
        return "/".join(self.rng.choice(NAMES) for _ in range(depth))

    def data(self):
        return self.rng.randbytes(self.rng.choice(SIZES))

    def time(self):
        return self.rng.randrange(1000000000, 2000000000)

    def descriptor(self):
        rng = self.rng
        if not self.keys or (len(self.keys) < 5 and rng.random() < 0.3):
            self.keys.append(next(self.count))
            flags = rng.choice((os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_CREAT,
                                os.O_RDWR | os.O_TRUNC, os.O_RDWR | os.O_APPEND,
                                os.O_WRONLY, os.O_WRONLY | os.O_APPEND | os.O_CREAT))
            return "open", self.keys[-1], self.name(), flags
        key = rng.choice(self.keys)
        off = rng.randrange(400000)
        return rng.choice((
            ("pread", key, rng.choice(SIZES), off), ("pread", key, 400000, 0),
            ("pwrite", key, self.data(), off), ("pwrite", key, self.data(), 0),
            ("ftruncate", key, off), ("fstat", key), ("fsync", key), ("close", key)))

    def operation(self):
        rng, name = self.rng, self.name()
        if rng.random() < (0.3 if not self.links else 0):
            return self.descriptor()
        if self.links and rng.random() < 0.1:
            return "link", name, self.name()
        mode = rng.choice((0o600, 0o640, 0o644, 0o755, 0o444, 0o700))
        # (The owner may always look: a user without rights is told of names that are not there
        # where the host's kernel, which asks for rights first, would refuse to look.)
        folder_mode = rng.choice((0o700, 0o755, 0o711 | 0o400))
        return rng.choice((
            ("create", name, rng.choice((0, os.O_TRUNC, os.O_EXCL, os.O_APPEND)), mode,
             self.data()),
            ("read", name), ("read", name), ("replace", name, self.data()),
            ("copy", name, self.name()), ("truncate", name, rng.choice(SIZES)),
            ("mkdir", name, folder_mode), ("mkdir", name, folder_mode), ("rmdir", name),
            ("unlink", name), ("rename", name, self.name()), ("rename", name, self.name()),
            ("symlink", rng.choice(("a", "dir/b", "../c", "none", "../../x y", "dir")), name),
            ("readlink", name), ("chmod", name, mode | rng.choice((0o700, 0o711))),
            ("utime", name, self.time(), self.time()), ("stat", name), ("lstat", name),
            ("list", name), ("list", ""), ("mapped", name, rng.randrange(70000), self.data()[:9])))

    def answered(self, op, error):
        """A descriptor that could not be opened, or was closed, is no more."""
        if op[0] == "open" and error or op[0] == "close":
            self.keys.remove(op[1])


def shown(outcome):
    result, error = outcome
    return error or (f"{len(result)} bytes {hash(result):x}" if isinstance(result, bytes)
                     else str(result))


def told(op):
    """An operation as it is shown to people: no contents."""
    return " ".join(f"{len(a)} bytes" if isinstance(a, bytes) else str(a) for a in op)


def tree(base):
    """All of a folder: path -> (type and mode, contents or link text, mtime)."""
    found = {}
    for where, folders, files in os.walk(base):
        for name in folders + files:
            path = os.path.join(where, name)
            st = os.lstat(path)
            if stat.S_ISLNK(st.st_mode):
                what = os.readlink(path)
            elif stat.S_ISREG(st.st_mode):
                with open(path, "rb") as f:
                    what = f.read()
            else:
                what = sorted(os.listdir(path))
            mode = stat.S_IFLNK if stat.S_ISLNK(st.st_mode) else st.st_mode
            found[os.path.relpath(path, base)] = mode, what, int(st.st_mtime)
    return found


def differences(one, two, seconds=0):
    """How two trees differ, in words; times may differ by so many seconds."""
    def describe(item):
        mode, what, mtime = item
        return f"{mode:o} {mtime} " + (f"{len(what)} bytes" if isinstance(what, bytes) else str(what))

    for path in sorted(one.keys() | two.keys()):
        a, b = one.get(path), two.get(path)
        if a is None or b is None:
            yield f"{path}: only in the {'second' if a is None else 'first'}"
        elif a[:2] != b[:2] or abs(a[2] - b[2]) > seconds:
            yield f"{path}: {describe(a)} / {describe(b)}" + \
                (", other contents" if a[1] != b[1] else "")


@pytest.mark.deadline(300)
@pytest.mark.parametrize("links", [False, True], ids=["descriptors", "links"])
def test_the_same_operations_have_the_same_results(d, h, tmp_path, links):
    """Every result and errno; then contents, modes, times and link texts of all.

    Files that are open under two names at once are left out: there root/ is no local disk."""
    seed = new_seed()
    dice, log = Dice(seed, links), []
    # (deep enough that no link text leads out)
    remote, local = Player(d / "top/in"), Player(tmp_path / "top/in")
    for player in (remote, local):
        os.makedirs(player.base)
    before, longest = os.umask(0o022), 0
    try:
        for _ in range(STEPS):
            op = dice.operation()
            log.append(told(op))
            start = time.monotonic()
            there, here = remote.do(*op), local.do(*op)
            longest = max(longest, time.monotonic() - start)
            same = there == here        # (pytest would show all of what was read)
            assert same, f"SBXFS_TEST_SEED={seed} step {len(log)}: {shown(there)}, not " \
                f"{shown(here)}, of\n" + "\n".join(log[-12:])
            dice.answered(op, here[1])
        remote.finish()
        local.finish()
    finally:
        os.umask(before)
    wanted = tree(tmp_path)
    # What was done in one of them was done in the other so much later.
    apart = 1 + math.ceil(longest)
    assert not list(differences(tree(d), wanted, apart)), f"SBXFS_TEST_SEED={seed}"
    assert not list(differences(tree(h), wanted, apart)), f"SBXFS_TEST_SEED={seed}"


# --- two writers ---------------------------------------------------------------------------

SCRIPT = """\
import os
os.chdir('d')
for op in {ops!r}:
    try:
        if op[0] == 'create':
            with open(op[1], 'wb') as f: f.write(op[2])
        elif op[0] == 'append':
            with open(op[1], 'ab') as f: f.write(op[2])
        elif op[0] == 'replace':
            with open('.beside', 'wb') as f: f.write(op[2])
            os.rename('.beside', op[1])
        else:
            getattr(os, op[0])(*op[1:])
    except OSError:
        pass
"""


def change(base, op):
    """One change below base; those that cannot be made are not."""
    path = os.path.join(base, op[1])
    with contextlib.suppress(OSError):
        if op[0] in ("create", "append"):
            with open(path, "wb" if op[0] == "create" else "ab") as f:
                f.write(op[2])
        elif op[0] == "replace":
            beside = os.path.join(base, ".beside")
            with open(beside, "wb") as f:
                f.write(op[2])
            os.rename(beside, path)
        elif op[0] in ("rename", "link"):
            getattr(os, op[0])(path, os.path.join(base, op[2]))
        else:
            getattr(os, op[0])(path, *op[2:])


def some_change(dice):
    rng, name = dice.rng, dice.name()
    return rng.choice((
        ("create", name, dice.data()), ("create", name, dice.data()), ("append", name, dice.data()),
        ("replace", name, dice.data()), ("mkdir", name), ("rmdir", name), ("unlink", name),
        ("rename", name, dice.name()), ("truncate", name, rng.choice(SIZES)),
        ("chmod", name, rng.choice((0o700, 0o740, 0o755)))))


def peek(rng, d):
    """Look around, so that there is something to be remembered wrongly."""
    for _ in range(rng.randrange(12)):
        path = os.path.join(d, "/".join(rng.choice(NAMES) for _ in range(rng.choice((1, 2)))))
        with contextlib.suppress(OSError):
            rng.choice((os.stat, os.listdir, os.lstat, lambda p: open(p, "rb").read()))(path)
    tree(d)


def settled(d, h):
    """Is all seen as it is? What is seen was true at most a second ago."""
    try:
        return not list(differences(tree(d), tree(h)))
    except OSError:         # it was gone when it was looked for
        return False


@pytest.mark.deadline(300)
def test_two_writers(box, d, h):
    """The mount and the guest change the same folder in turns. The guest sees at once what was
    changed in the mount; the mount sees at once what a job changed, and after at most a second
    what was changed behind everybody's back."""
    seed = new_seed()
    dice, log = Dice(seed), []
    rng, h = dice.rng, os.fspath(h)
    for turn in range(40):
        who = "guest" if turn % 7 == 3 else rng.choice(("mount", "job"))
        ops = [some_change(dice) for _ in range(rng.choice((1, 3, 20)))]
        log += [f"{who}: {told(op)}" for op in ops]
        peek(rng, d)
        if who == "mount":
            for op in ops:
                change(d, op)
        elif who == "job":
            box.run("#!/usr/bin/python3\n" + SCRIPT.format(ops=ops))
            assert box.exit() == "0", box.err()
        else:
            for op in ops:
                change(h, op)
            wait_until(lambda: settled(d, h), step=0.3)
        bad = list(differences(tree(d), tree(h)))
        assert not bad, f"SBXFS_TEST_SEED={seed} turn {turn}: {bad}\n" + "\n".join(log[-25:])


def test_an_open_sees_the_latest(d, h):
    """Files change in the guest, longer, shorter and as long as before, and are replaced: whoever
    opens one reads what it is now, whatever was seen of it just before."""
    seed = new_seed()
    rng = random.Random(seed)
    for name in NAMES:
        (h / name).write_bytes(b"first")
    time.sleep(1.01)
    # Who reads many files of a folder, each for the first time, is given what was fetched
    # ahead of that, in the last second; who comes back to a file is not.
    for name in NAMES:
        (d / name).read_bytes()
    for step in range(400):
        name, data = rng.choice(NAMES), rng.randbytes(rng.choice((5, 5, 5, 0, 100, 70000)))
        if rng.random() < 0.5:
            rng.choice((os.stat, lambda p: p.read_bytes()))(d / name)
        change(h, (rng.choice(("create", "replace")), name, data))
        assert (d / name).read_bytes() == data, f"SBXFS_TEST_SEED={seed} step {step}"
