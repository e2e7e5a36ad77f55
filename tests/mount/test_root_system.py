"""root/ and the system calls that programs live by: locks, inotify, mmap, big and odd files."""

import ctypes
import errno
import fcntl
import mmap
import os
import select
import shutil
import stat
import struct
import subprocess
import time

import pytest

from support import needs, refused, run, sftp_requests, wait_until

PYTHON = "/usr/bin/python3"


# --- locks: among the programs of the host ------------------------------------------------

def locked(path, how):
    """Can another process not have that lock? Names what refused it."""
    script = f"import fcntl, sys\nf = open(sys.argv[1], 'r+b')\ntry: {how}\n" \
             "except OSError as e: print('locked')\nelse: print('free')"
    return subprocess.check_output([PYTHON, "-c", script, path], text=True).strip() == "locked"


def test_flock(d):
    (d / "f").touch()
    with open(d / "f") as a, open(d / "f") as b:
        fcntl.flock(a, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            fcntl.flock(b, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert locked(d / "f", "fcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)")
        fcntl.flock(a, fcntl.LOCK_SH)
        fcntl.flock(b, fcntl.LOCK_SH | fcntl.LOCK_NB)
        assert locked(d / "f", "fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)")
    assert not locked(d / "f", "fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)")


def test_flock_of_the_shell(d, spawn):
    """flock(1) waits for who has it, and has it when that one ends."""
    (d / "lock").touch()
    holder = spawn(["flock", d / "lock", "sh", "-c", "echo have; read x; echo done >> $0",
                    d / "out"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"have\n"
    assert subprocess.run(["flock", "-n", d / "lock", "true"]).returncode == 1
    waiter = spawn(["flock", d / "lock", "sh", "-c", "echo after >> $0", d / "out"])
    holder.communicate(b"\n", timeout=20)
    assert waiter.wait(20) == 0
    assert (d / "out").read_text() == "done\nafter\n"


def test_fcntl_locks_of_ranges(d):
    with open(d / "f", "w+b") as f:
        f.write(bytes(1000))
        f.flush()
        fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 100, 200)
        one = "fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, {})"
        assert locked(d / "f", one.format(250))
        assert not locked(d / "f", one.format(300))
        fcntl.lockf(f, fcntl.LOCK_UN, 50, 250)
        assert not locked(d / "f", one.format(250))
        assert locked(d / "f", one.format(240))


# --- inotify: of changes that are made in the mount -----------------------------------------

IN = {"modify": 2, "close_write": 8, "moved_from": 0x40, "moved_to": 0x80, "create": 0x100,
      "delete": 0x200}


def events(fd):
    """All that happened so far: (what, name)."""
    found = []
    while select.select([fd], [], [], 0)[0]:
        data = os.read(fd, 65536)
        while data:
            _, mask, _, n = struct.unpack("iIII", data[:16])
            name = data[16:16 + n].rstrip(b"\0").decode()
            found += [(what, name) for what, bit in IN.items() if mask & bit]
            data = data[16 + n:]
    return found


def test_inotify_of_changes_within_the_mount(d, h):
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(os.O_CLOEXEC)
    assert fd >= 0 and libc.inotify_add_watch(fd, os.fsencode(d), sum(IN.values())) >= 0
    try:
        run(PYTHON, "-c", "import os, sys\nos.chdir(sys.argv[1])\nopen('a', 'w').write('text')\n"
            "os.rename('a', 'b')\nos.mkdir('c')\nos.unlink('b')\nos.rmdir('c')", d)
        assert events(fd) == [
            ("create", "a"), ("modify", "a"), ("close_write", "a"), ("moved_from", "a"),
            ("moved_to", "b"), ("create", "c"), ("delete", "b"), ("delete", "c")]
        # changes in the guest raise none: the man page says so
        (h / "guest").write_text("x")
        wait_until(lambda: (d / "guest").exists())
        assert events(fd) == []
    finally:
        os.close(fd)


@needs("tail")
def test_tail_follows_what_the_mount_and_the_guest_write(d, h, spawn):
    (d / "log").write_text("one\n")
    tail = spawn(["tail", "-s", "0.1", "-n", "+1", "-F", d / "log"], stdout=subprocess.PIPE, text=True)
    assert tail.stdout.readline() == "one\n"
    with open(d / "log", "a") as f:
        f.write("two\n")
    assert tail.stdout.readline() == "two\n"
    with open(h / "log", "a") as f:
        f.write("three\n")
    assert tail.stdout.readline() == "three\n"


# --- mmap -------------------------------------------------------------------------------------

def test_mmap_is_written_through(d, h):
    (h / "f").write_bytes(bytes(300000))
    with open(d / "f", "r+b") as f, mmap.mmap(f.fileno(), 0) as m:
        for at in range(0, 300000, 5000):
            m[at:at + 4] = b"%04d" % (at // 5000)
        m.flush()
        data = (h / "f").read_bytes()
        assert all(data[at:at + 4] == b"%04d" % (at // 5000) for at in range(0, 300000, 5000))
        assert len(data) == 300000
        # read and mapped are one
        os.pwrite(f.fileno(), b"pwrite", 1000)
        assert m[1000:1006] == b"pwrite"
        m[2000:2006] = b"mapped"
        assert os.pread(f.fileno(), 6, 2000) == b"mapped"
    assert (h / "f").read_bytes()[2000:2006] == b"mapped"


def test_mmap_outlives_its_descriptor_and_is_shared(d, h):
    (h / "f").write_bytes(b"x" * 8192)
    f = open(d / "f", "r+b")
    m = mmap.mmap(f.fileno(), 0)
    f.close()
    m[:5] = b"first"
    run(PYTHON, "-c", "import mmap, sys\nf = open(sys.argv[1], 'r+b')\n"
        "m = mmap.mmap(f.fileno(), 0)\nassert m[:5] == b'first'\nm[4096:4102] = b'second'\n"
        "m.flush()", d / "f")
    assert m[4096:4102] == b"second"
    m.flush()
    m.close()
    assert (h / "f").read_bytes()[:5] == b"first"


def test_programs_are_run_from_it(d, h):
    """A private mapping of the kernel: executables, libraries, scripts."""
    shutil.copy(shutil.which("true"), d / "prog")
    assert subprocess.run([d / "prog"]).returncode == 0
    (d / "script").write_text("#!/bin/sh\necho $0 $1\n")
    os.chmod(d / "script", 0o755)
    assert run(d / "script", "x") == f"{d}/script x\n"
    os.chmod(d / "script", 0o644)
    refused(errno.EACCES, subprocess.run, [d / "script"])


# --- sizes ------------------------------------------------------------------------------------

def test_a_file_over_4_gib(d, h):
    """Sparse where the guest's file system is: both ends and the borders of 2 and 4 GiB."""
    size = (5 << 30) + 12345
    marks = [0, (2 << 30) - 3, (4 << 30) - 3, size - 6]
    with open(d / "big", "w+b", buffering=0) as f:
        f.truncate(size)
        for at in marks:
            f.seek(at)
            f.write(b"mark%02d" % marks.index(at))
        assert f.seek(0, os.SEEK_END) == size
    assert os.stat(h / "big").st_size == os.stat(d / "big").st_size == size
    with open(h / "big", "rb", buffering=0) as f, open(d / "big", "rb", buffering=0) as g:
        for at in marks:
            assert os.pread(f.fileno(), 6, at) == os.pread(g.fileno(), 6, at) == \
                b"mark%02d" % marks.index(at)
        assert os.pread(g.fileno(), 100, 3 << 30) == bytes(100)
        assert os.pread(g.fileno(), 100, size) == b""
    assert os.stat(h / "big").st_blocks * 512 < 1 << 20
    assert run("stat", "-c", "%s", d / "big") == f"{size}\n"
    os.truncate(d / "big", 1)
    assert (h / "big").read_bytes() == b"m"


def test_cp_of_a_sparse_file(d, h):
    with open(d / "hole", "wb") as f:
        f.truncate(3 << 20)
        f.seek(1 << 20)
        f.write(b"data")
    run("cp", "--sparse=always", d / "hole", d / "copy")
    assert (h / "copy").read_bytes() == (h / "hole").read_bytes()
    run("tar", "-C", d, "-cSf", d / "t.tar", "hole")
    os.unlink(d / "hole")
    run("tar", "-C", d, "-xf", d / "t.tar")
    assert (h / "hole").read_bytes() == (h / "copy").read_bytes()


def test_df_and_du(d, h):
    for n in range(10):
        (d / f"f{n}").write_bytes(bytes(n * 10000))
    apparent = sum(n * 10000 for n in range(10))
    assert run("du", "-sb", d).split()[0] == str(apparent + os.stat(d).st_size)
    # blocks are those that the size fills
    blocks = sum(-(-n * 10000 // 512) for n in range(10))
    assert sum(os.stat(d / f"f{n}").st_blocks for n in range(10)) == blocks
    real = os.statvfs(h)
    shown = run("df", "-B", str(real.f_frsize), "--output=size", d).split()[1]
    assert shown == str(real.f_blocks)


@pytest.mark.deadline(200)
def test_a_folder_of_50_000_entries(mount, d, h):
    for n in range(50000):
        os.close(os.open(h / f"file-with-a-name-{n:06}", os.O_CREAT | os.O_WRONLY))
    with os.scandir(d) as entries:
        names = [e.name for e in entries]
    assert len(names) == len(set(names)) == 50000
    assert sorted(names) == sorted(os.listdir(h))
    assert len(run("ls", "-f", d).splitlines()) == 50002
    assert run("sh", "-c", "find . -type f -size 0 | wc -l", cwd=d).strip() == "50000"
    # one of them is not looked for among all, which takes hundreds of requests a time
    before = sftp_requests(mount)
    for n in range(0, 50000, 2500):
        assert os.stat(d / f"file-with-a-name-{n:06}").st_size == 0
        refused(errno.ENOENT, os.stat, d / f"file-with-a-name-{n:06}-not")
    assert sftp_requests(mount) - before < 2500
    os.unlink(d / names[777])
    assert len(os.listdir(d)) == 49999


# --- names --------------------------------------------------------------------------------------

def test_paths_up_to_path_max(d, h):
    """As long as the kernel lets a path be, and as the guest's server takes it: both 4095 bytes."""
    inside = len(os.fsencode(d)) + 1
    guest = len(os.fsencode(d).split(b"/root/", 1)[1]) + 2      # as the guest names the folder
    room = 4095 - max(inside, guest)
    parts = [b"n" * 199] * (room // 200)
    path = b"/".join(parts)
    rest = room - len(path) - 1
    path += b"/" + b"x" * rest if rest > 0 else b""
    folder, name = path.rsplit(b"/", 1)
    os.makedirs(os.fsencode(d) + b"/" + folder)
    full = os.fsencode(d) + b"/" + folder + b"/" + name
    assert len(full) == 4095
    with open(full, "w") as f:
        f.write("deep")
    assert os.stat(full).st_size == 4
    os.rename(full, full[:-1] + b"y")
    os.symlink("x", full)
    assert os.readlink(full) == b"x"
    refused(errno.ENAMETOOLONG, os.stat, full + b"z")
    assert run("find", d, "-type", "f").count("n" * 199) == len(folder.split(b"/"))
    run("rm", "-r", d / ("n" * 199))
    assert os.listdir(h) == []


def test_names_are_bytes(d, h):
    """Whatever a file system takes: both forms of an accent are two names, upper and lower case too."""
    names = ["\u00e9".encode(), "e\u0301".encode(), b"\xe9", b"E", b"e", "日本語".encode(), b"\xff\xfe\xfd",
             "👩‍💻".encode(), b"a\\b", b"-", b"~", b"#x#", b"x ", b" x", b"%2f", b"\xc0\xaf"]
    for n, name in enumerate(names):
        with open(os.fsencode(d) + b"/" + name, "wb") as f:
            f.write(b"%d" % n)
    assert sorted(os.listdir(os.fsencode(d))) == sorted(names)
    assert sorted(os.listdir(os.fsencode(h))) == sorted(names)
    for n, name in enumerate(names):
        with open(os.fsencode(d) + b"/" + name, "rb") as f:
            assert f.read() == b"%d" % n
    assert run("sh", "-c", "ls -b | wc -l", cwd=d).strip() == str(len(names))


def test_hard_links_have_one_number(box, d, h):
    """Those that were made in the mount: tar, rsync and du count them once."""
    (d / "a").write_bytes(bytes(100000))
    os.link(d / "a", d / "b")
    assert os.stat(d / "a").st_ino == os.stat(d / "b").st_ino
    assert os.path.samefile(d / "a", d / "b")
    (d / "b").write_text("through b")
    assert (d / "a").read_text() == "through b"
    os.unlink(d / "a")
    assert (d / "b").read_text() == "through b"
    (d / "a").write_text("another")
    assert not os.path.samefile(d / "a", d / "b")
    # the server does not tell which names are one file: each is shown as one of its own
    os.link(h / "b", h / "c")
    box.look_anew()
    assert (d / "c").read_text() == "through b"
    assert os.stat(d / "c").st_nlink == 1


# --- files whose size says nothing ------------------------------------------------------------

@pytest.mark.parametrize("path", ["proc/cpuinfo", "proc/self/mountinfo", "proc/filesystems",
                                  "proc/mounts", "proc/self/limits"])
def test_files_of_proc(box, path):
    """Size 0, and read whole: by cat, by one big read, by small ones, by tail and by cp."""
    file = box.path / "root" / path
    assert os.stat(file).st_size == 0
    whole = file.read_bytes()
    assert len(whole) > 100
    assert subprocess.check_output(["cat", file]) == whole or path == "proc/cpuinfo"
    with open(file, "rb", buffering=0) as f:
        parts = []
        while part := f.read(100):
            parts.append(part)
    pieces = b"".join(parts)
    assert len(pieces) == len(whole) or path == "proc/cpuinfo"      # (clock rates change)
    last = subprocess.check_output(["tail", "-n", "1", file])
    assert last.split()[:1] == whole.splitlines(keepends=True)[-1].split()[:1]
    count, _ = subprocess.check_output(["wc", "-l", file]).split()
    assert int(count) == whole.count(b"\n")


def test_files_of_sys(box, d):
    """They claim 4096 bytes and have fewer."""
    sys = box.path / "root/sys/kernel"
    if not (box.path / "root/sys").is_dir() or not sys.is_dir():
        pytest.skip("this guest has no /sys")
    names = [n for n in ("fscaps", "kexec_loaded", "cpu_byteorder") if (sys / n).exists()]
    assert names
    for name in names:      # (of what does not change by itself)
        text = (sys / name).read_text()
        assert text.endswith("\n") and len(text) < 100
        assert subprocess.check_output(["tail", "-n", "1", sys / name], text=True) == text
        shutil.copy(sys / name, d / name)
        assert (d / name).read_text() == text


# --- times ---------------------------------------------------------------------------------------

def test_times_are_kept_to_the_second(d, h, tmp_path):
    """utimes, touch -r, cp -p, tar and rsync; what is finer than a second is cut."""
    (tmp_path / "f").write_text("text")
    os.utime(tmp_path / "f", ns=(1234567890_987654321, 1234567891_123456789))
    run("cp", "-p", tmp_path / "f", d / "f")
    assert os.stat(d / "f").st_mtime_ns == os.stat(h / "f").st_mtime_ns == 1234567891_000000000
    os.utime(d / "f", ns=(1_999999999, 4294967295_000000001))
    assert (os.stat(h / "f").st_atime_ns, os.stat(h / "f").st_mtime_ns) == \
        (1_000000000, 4294967295_000000000)
    run("touch", "-r", tmp_path / "f", d / "f")
    assert int(os.stat(h / "f").st_mtime) == 1234567891
    # a write gives it the time of now, and reading does not change it
    before = int(time.time()) - 1       # (the clock of files is a little behind)
    (d / "f").write_text("new")
    assert before <= os.stat(d / "f").st_mtime <= time.time()
    os.utime(d / "f", (1, 1000000000))
    (d / "f").read_text()
    assert os.stat(d / "f").st_mtime == 1000000000
    # make and git rely on it: a folder's time changes with what is in it
    os.utime(d, (1, 1))
    before = int(time.time()) - 1
    (d / "g").touch()
    assert before <= os.stat(d).st_mtime <= time.time()


def test_times_that_the_protocol_has_not(d, h):
    """Before 1970 and after 2106 there is the nearest that it has."""
    (d / "f").touch()
    os.utime(d / "f", (-1000, -1000))
    assert os.stat(d / "f").st_mtime == 0
    os.utime(d / "f", (1 << 33, 1 << 33))
    assert os.stat(d / "f").st_mtime == (1 << 32) - 1


def test_umask_and_modes_of_a_folder_with_sgid(d, h):
    os.chmod(h, 0o2775)
    before = os.umask(0o002)
    try:
        (d / "f").touch()
        os.mkdir(d / "e")
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(h / "f").st_mode) == 0o664
    assert stat.S_IMODE(os.stat(h / "e").st_mode) & 0o777 == 0o775
    assert stat.S_IMODE(os.stat(d / "e").st_mode) == stat.S_IMODE(os.stat(h / "e").st_mode)
    wait_until(lambda: stat.S_IMODE(os.stat(d).st_mode) == 0o2775)
