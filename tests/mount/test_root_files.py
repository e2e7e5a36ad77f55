"""root/: files, folders, links and attributes of the disk, as programs use them."""

import ctypes
import errno
import hashlib
import os
import random
import resource
import shutil
import stat
import subprocess
import time
from pathlib import Path

import pytest

from support import refused, wait_until


# --- contents ---------------------------------------------------------------------------

def test_write_is_there_and_read_back(d, h):
    (d / "f").write_text("hello\n")
    assert (h / "f").read_text() == "hello\n"
    assert (d / "f").read_text() == "hello\n"
    (h / "g").write_text("from the guest\n")
    assert (d / "g").read_text() == "from the guest\n"


def test_open_modes(d, h):
    with open(d / "f", "x") as f:
        f.write("0123456789")
    refused(errno.EEXIST, open, d / "f", "x")
    with open(d / "f", "r+") as f:
        f.seek(3)
        f.write("xyz")
        f.seek(0)
        assert f.read() == "012xyz6789"
    with open(d / "f", "w") as f:
        f.write("short")
    assert (h / "f").read_text() == "short"
    refused(errno.ENOENT, open, d / "none")
    refused(errno.EISDIR, os.open, d, os.O_WRONLY)
    refused(errno.ENOTDIR, os.open, d / "f", os.O_DIRECTORY)
    refused(errno.ENOTDIR, os.stat, d / "f/x")


def test_append_is_the_servers(d, h):
    """Two writers that append never write over each other, wherever they think the end is."""
    (h / "log").write_text("one\n")
    with open(d / "log", "a") as f:
        with open(h / "log", "a") as g:
            g.write("guest\n")
        f.write("two\n")
        f.flush()
        os.fsync(f.fileno())
        with open(h / "log", "a") as g:
            g.write("guest\n")
        f.write("three\n")
    assert (h / "log").read_text() == "one\nguest\ntwo\nguest\nthree\n"
    assert (d / "log").read_text() == (h / "log").read_text()


def test_many_appenders(d, h, spawn):
    script = "import os,sys\nfd=os.open(sys.argv[1],os.O_WRONLY|os.O_APPEND|os.O_CREAT)\n" \
             "for i in range(200): os.write(fd, b'%s %d\\n' % (sys.argv[2].encode(), i))\n"
    writers = [spawn(["/usr/bin/python3", "-c", script, d / "log", str(n)]) for n in range(4)]
    assert [w.wait(60) for w in writers] == [0] * 4
    lines = (h / "log").read_text().splitlines()
    assert len(lines) == 800
    for n in range(4):
        assert [line for line in lines if line.startswith(f"{n} ")] == \
            [f"{n} {i}" for i in range(200)]


def test_truncate(d, h):
    (d / "f").write_text("0123456789")
    os.truncate(d / "f", 4)
    assert (h / "f").read_text() == "0123"
    assert os.stat(d / "f").st_size == 4
    with open(d / "f", "r+") as f:
        f.truncate(8)
        assert os.fstat(f.fileno()).st_size == 8
        assert f.read() == "0123\0\0\0\0"
    fd = os.open(d / "f", os.O_WRONLY | os.O_TRUNC)
    assert os.fstat(fd).st_size == 0
    os.close(fd)
    assert (h / "f").read_text() == ""


def test_holes_and_big_offsets(d, h):
    with open(d / "f", "wb") as f:
        f.seek(5 << 30)
        f.write(b"end")
    assert os.stat(d / "f").st_size == (5 << 30) + 3
    with open(d / "f", "rb") as f:
        f.seek((5 << 30) - 2)
        assert f.read() == b"\0\0end"
    with open(h / "f", "rb") as f:
        f.seek(5 << 30)
        assert f.read() == b"end"


def big_file(path, size, seed):
    data, digest = random.Random(seed), hashlib.sha256()
    with open(path, "wb", buffering=0) as f:
        while size > 0:
            block = data.randbytes(min(size, random.randint(1, 3 << 20)))
            f.write(block)
            digest.update(block)
            size -= len(block)
    return digest.hexdigest()


def checksum(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def test_64_mib_both_ways(d, h):
    size = (64 << 20) + 4711
    digest = big_file(d / "in", size, 1)
    assert os.stat(h / "in").st_size == size
    assert checksum(h / "in") == digest
    assert checksum(d / "in") == digest
    digest = big_file(h / "out", size, 2)
    assert checksum(d / "out") == digest
    shutil.copyfile(d / "out", d / "copy")
    assert checksum(h / "copy") == digest


def test_random_reads_and_writes(d, h):
    """The same random operations on the mount and in memory; the seed is in the failure."""
    seed = random.randrange(1 << 30)
    rng, model = random.Random(seed), bytearray()
    fd = os.open(d / "f", os.O_RDWR | os.O_CREAT)
    for step in range(1500):
        off, size = rng.randrange(1 << 20), rng.choice([1, 100, 4096, 70000, 300000])
        what = rng.random()
        if what < 0.4:
            data = rng.randbytes(size)
            if off > len(model):
                model.extend(bytes(off - len(model)))
            model[off:off + size] = data
            assert os.pwrite(fd, data, off) == size
        elif what < 0.9:
            assert os.pread(fd, size, off) == bytes(model[off:off + size]), (seed, step)
        elif what < 0.95:
            os.ftruncate(fd, off)
            model = model[:off] + bytes(max(0, off - len(model)))
        else:
            assert os.fstat(fd).st_size == len(model), (seed, step)
            os.fsync(fd)
    os.close(fd)
    assert (h / "f").read_bytes() == bytes(model), seed


def test_mmap(d, h):
    import mmap
    (h / "f").write_bytes(b"x" * 10000)
    with open(d / "f", "r+b") as f, mmap.mmap(f.fileno(), 0) as m:
        assert m[5000:5003] == b"xxx"
        m[5000:5003] = b"new"
        m.flush()
    assert (h / "f").read_bytes()[4999:5004] == b"xnewx"


def test_files_of_proc_are_read_whole(box):
    root = box.path / "root"
    assert "processor" in (root / "proc/cpuinfo").read_text()
    wait_until(lambda: subprocess.check_output(["cat", root / "proc/filesystems"]) ==
               Path("/proc/filesystems").read_bytes())
    assert (root / "proc/self/maps").read_text().endswith("\n")


# --- names --------------------------------------------------------------------------------

def test_folders(d, h):
    os.makedirs(d / "a/b/c")
    assert (h / "a/b/c").is_dir()
    refused(errno.EEXIST, os.mkdir, d / "a")
    refused(errno.ENOTEMPTY, os.rmdir, d / "a")
    refused(errno.ENOENT, os.rmdir, d / "none")
    refused(errno.ENOENT, os.mkdir, d / "none/x")
    (d / "f").touch()
    refused(errno.ENOTDIR, os.rmdir, d / "f")
    refused(errno.EISDIR, os.unlink, d / "a")
    for path in ("a/b/c", "a/b", "a"):
        os.rmdir(d / path)
    assert not (h / "a").exists()


@pytest.mark.parametrize("name", [
    b"a b", b" ", b"\xff\xfe", b"new\nline", b"tab\t", b"-rf", b"...", b"..x", b".hidden", b"*?[",
    b"'\"`$(x)", "grüße".encode(), "漢字".encode(), b"\x01\x7f", b"x" * 255,
])
def test_odd_names(d, h, name):
    path, real = os.fsencode(d) + b"/" + name, os.fsencode(h) + b"/" + name
    with open(path, "w") as f:
        f.write("text")
    with open(real) as f:
        assert f.read() == "text"
    assert os.listdir(os.fsencode(d)) == [name]
    os.rename(path, path[:-1] + b"Z")
    assert os.listdir(os.fsencode(h)) == [name[:-1] + b"Z"]
    os.unlink(path[:-1] + b"Z")
    os.mkdir(path)
    os.rmdir(path)


def test_names_that_are_too_long(d):
    refused(errno.ENAMETOOLONG, os.stat, d / ("x" * 256))
    refused(errno.ENAMETOOLONG, os.mkdir, d / ("x" * 256))
    refused(errno.ENAMETOOLONG, open, d / ("x" * 256), "w")
    refused(errno.ENAMETOOLONG, os.symlink, "x", d / ("x" * 256))


def test_deep_folders(d, h):
    """Down to what a path of the guest may have; beyond it there is one errno."""
    before = os.getcwd()
    os.chdir(d)
    try:
        depth = 0
        with pytest.raises(OSError) as caught:
            while depth < 50:
                os.mkdir("n" * 200)
                os.chdir("n" * 200)
                depth += 1
        assert caught.value.errno == errno.ENAMETOOLONG
        assert depth >= 17
        for _ in range(depth):
            os.chdir("..")
            os.rmdir("n" * 200)
    finally:
        os.chdir(before)


def test_listing(d, h):
    names = {f"file-{n}" for n in range(700)} | {f"dir-{n}" for n in range(20)}
    for name in names:
        (h / name).mkdir() if name.startswith("dir") else (h / name).write_text(name)
    os.symlink("file-1", h / "link")
    with os.scandir(d) as entries:
        found = {e.name: e for e in entries}
    assert set(found) == names | {"link"}
    # the types come with the listing
    assert found["dir-1"].is_dir(follow_symlinks=False)
    assert found["file-1"].is_file(follow_symlinks=False)
    assert found["link"].is_symlink()
    assert found["file-123"].stat().st_size == len("file-123")
    listing = subprocess.check_output(["ls", "-l", d], text=True).splitlines()
    assert len(listing) == 722


def test_rewinddir(d, h):
    (h / "a").touch()
    fd = os.open(d, os.O_RDONLY)
    assert os.listdir(fd) == ["a"]
    (h / "b").touch()
    wait_until(lambda: sorted(os.listdir(fd)) == ["a", "b"])
    os.close(fd)


def test_listing_while_it_is_emptied(d, h):
    for n in range(1000):
        (h / str(n)).touch()
    with os.scandir(d) as entries:
        for e in entries:
            os.unlink(e.path)
    assert os.listdir(h) == []
    assert os.listdir(d) == []


def test_rename(d, h):
    (d / "a").write_text("a")
    (d / "b").write_text("b")
    os.rename(d / "a", d / "c")
    assert sorted(os.listdir(h)) == ["b", "c"]
    os.rename(d / "c", d / "b")
    assert (h / "b").read_text() == "a"
    assert (d / "b").read_text() == "a"
    assert os.listdir(d) == ["b"]
    os.mkdir(d / "sub")
    os.rename(d / "b", d / "sub/b")
    assert (d / "sub/b").read_text() == "a"
    os.rename(d / "sub", d / "moved")
    assert (d / "moved/b").read_text() == "a"
    refused(errno.ENOENT, os.stat, d / "sub/b")
    refused(errno.ENOENT, os.rename, d / "none", d / "x")
    os.makedirs(d / "full/x")
    os.mkdir(d / "empty")
    refused(errno.ENOTEMPTY, os.rename, d / "empty", d / "full")
    os.rename(d / "full", d / "empty")
    refused(errno.EINVAL, os.rename, d / "empty", d / "empty/x/y")
    (d / "f").touch()
    refused(errno.ENOTDIR, os.rename, d / "empty", d / "f")
    refused(errno.EISDIR, os.rename, d / "f", d / "empty")


def test_rename_from_and_to_the_top(box):
    root = box.path / "root"
    (box.disk / "f").write_text("text")
    os.rename(box.disk / "f", root / "tmp/f")
    os.rename(root / "tmp/f", box.disk / "g")
    assert (box.home / "g").read_text() == "text"
    os.mkdir(root / "top")
    os.rename(root / "top", box.disk / "top")
    os.rename(box.disk / "top", root / "top")
    os.rmdir(root / "top")


def rename2(old, new, flags):
    libc = ctypes.CDLL(None, use_errno=True)
    r = libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags)
    return 0 if r == 0 else ctypes.get_errno()


def test_rename_without_replacing(d, h):
    (d / "a").write_text("a")
    (d / "b").write_text("b")
    assert rename2(d / "a", d / "b", 1) == errno.EEXIST
    assert (h / "b").read_text() == "b"
    assert rename2(d / "a", d / "c", 1) == 0
    assert (h / "c").read_text() == "a"
    # not supported: told so, nothing done
    assert rename2(d / "b", d / "c", 2) == errno.EINVAL


def test_between_sandboxes_and_control_files_is_exdev(mount, box, d):
    other = mount.box()
    (d / "f").write_text("text")
    refused(errno.EXDEV, os.rename, d / "f", other.disk / "f")
    refused(errno.EXDEV, os.link, d / "f", other.disk / "f")
    refused(errno.EXDEV, os.link, box / "status", d / "s")
    shutil.move(d / "f", other.disk / "f")
    assert (other.home / "f").read_text() == "text"
    other.destroy()


def test_other_file_system_of_the_guest_is_exdev(box, d):
    shm = box.path / "root/dev/shm"
    if not shm.is_dir() or os.stat(box.home).st_dev == os.stat("/dev/shm").st_dev:
        pytest.skip("the guest has one file system only")
    (d / "f").write_text("text")
    refused(errno.EXDEV, os.rename, d / "f", shm / f"{box.name}-f")
    refused(errno.EXDEV, os.link, d / "f", shm / f"{box.name}-f")
    subprocess.run(["mv", d / "f", shm / f"{box.name}-f"], check=True)
    assert (shm / f"{box.name}-f").read_text() == "text"
    os.unlink(shm / f"{box.name}-f")


def test_hard_links(d, h):
    (d / "a").write_text("one")
    os.link(d / "a", d / "b")
    assert os.path.samefile(h / "a", h / "b")
    refused(errno.EEXIST, os.link, d / "a", d / "b")
    with open(d / "b", "a") as f:
        f.write(" two")
    assert (d / "a").read_text() == "one two"
    os.unlink(d / "a")
    assert (d / "b").read_text() == "one two"


def test_open_files_outlive_their_names(d, h):
    f = open(d / "f", "w+")
    f.write("hello")
    f.flush()
    os.rename(d / "f", d / "g")
    f.write(" world")
    f.flush()
    os.fsync(f.fileno())
    assert (h / "g").read_text() == "hello world"
    os.unlink(d / "g")
    (d / "g").write_text("another")
    f.seek(0)
    assert f.read() == "hello world"
    f.write("!")
    f.flush()
    assert os.fstat(f.fileno()).st_size == 12
    os.ftruncate(f.fileno(), 5)
    os.fchmod(f.fileno(), 0o600)
    assert os.fstat(f.fileno()).st_size == 5
    f.close()
    assert (d / "g").read_text() == "another"
    # replaced by a rename
    f = open(d / "g")
    (d / "new").write_text("new")
    os.rename(d / "new", d / "g")
    assert f.read() == "another"
    f.close()


def test_mknod_and_what_the_protocol_has_not(d, h):
    os.mknod(d / "f", 0o640 | stat.S_IFREG)
    assert stat.S_IMODE(os.stat(h / "f").st_mode) == 0o640
    refused(errno.EPERM, os.mkfifo, d / "p")
    with open(d / "f", "w") as f:
        refused(errno.EOPNOTSUPP, fallocate, f.fileno(), 4096)
        # the library's own way works: it writes
        os.posix_fallocate(f.fileno(), 0, 10000)
    assert os.stat(d / "f").st_size == 10000


def fallocate(fd, size):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.fallocate(fd, 0, ctypes.c_long(0), ctypes.c_long(size)):
        raise OSError(ctypes.get_errno(), "fallocate")


def test_seek_data_and_hole(d):
    (d / "f").write_bytes(b"x" * 5000)
    with open(d / "f", "rb") as f:
        assert os.lseek(f.fileno(), 100, os.SEEK_DATA) == 100
        assert os.lseek(f.fileno(), 100, os.SEEK_HOLE) == 5000


# --- symbolic links --------------------------------------------------------------------------

def test_links_read_and_resolve_inside(box, d, h):
    (box.home / "target").write_text("target")
    guest = box.guest_home
    depth = len(guest.strip("/").split("/")) + 1
    for text, shown in [
        ("plain", "plain"), ("../target", "../target"),
        (f"{guest}/target", "../" * depth + f"{guest[1:]}/target"),
        ("/etc/hostname", "../" * depth + "etc/hostname"),
        ("../" * 40 + "etc", "../" * depth + "etc"),
        ("/", ("../" * depth)[:-1]), ("a/../b", "b"), ("./x//y/.", "x/y"),
    ]:
        os.symlink(text, h / "l")
        box.look_anew()
        assert os.readlink(d / "l") == shown, text
        os.unlink(h / "l")
    os.symlink(f"{guest}/target", h / "abs")
    box.look_anew()
    assert (d / "abs").read_text() == "target"
    os.symlink("../target", d / "rel")
    assert os.readlink(h / "rel") == "../target"
    assert (d / "rel").read_text() == "target"


def test_no_link_leads_outside(box, mount, d, h):
    """Whatever a guest makes, following it ends inside root/ or nowhere."""
    inside = os.path.realpath(box.path / "root")
    # of the host, not of the guest
    secret = mount.folder / "secret"
    secret.write_text("secret")
    os.symlink("/", h / "top")
    os.symlink("top/..", h / "above")
    os.symlink("above/../..", h / "higher")
    texts = [str(secret), "../" * 30 + str(secret), "top/../../../" + str(secret), "top/..",
             "above/../..", "higher/..", "/..", "/../..", "top/top/../../..", "./top/.././..",
             f"/proc/self/root{secret}", f"top/{secret}", "../" * 30]
    for n, text in enumerate(texts):
        os.symlink(text, h / f"l{n}")
    box.look_anew()
    for n, text in enumerate(texts):
        for path in (d / f"l{n}", d / f"l{n}" / "..", d / f"l{n}" / "../.."):
            target = os.path.realpath(d / f"l{n}")
            assert target == inside or target.startswith(inside + "/"), (text, target)
        shown = os.readlink(d / f"l{n}").split("/")
        ups = shown.count("..")
        assert shown[:ups] == [".."] * ups, text
        try:
            assert (d / f"l{n}").read_bytes() != b"secret", text
        except OSError:
            pass
    loop = h / "loop"
    os.symlink("loop", loop)
    box.look_anew()
    refused(errno.ELOOP, os.stat, d / "loop")


def test_links_to_nothing_and_their_attributes(d, h):
    os.symlink("nowhere", d / "l")
    refused(errno.ENOENT, os.stat, d / "l")
    refused(errno.EEXIST, os.symlink, "x", d / "l")
    assert stat.S_ISLNK(os.lstat(d / "l").st_mode)
    os.utime(d / "l", (1000000000, 1100000000), follow_symlinks=False)
    assert os.lstat(h / "l").st_mtime == 1100000000
    assert os.lstat(d / "l").st_mtime == 1100000000
    refused(errno.EINVAL, os.readlink, d)
    # creating through a link that leads nowhere makes what it leads to
    (d / "l").write_text("made")
    assert (h / "nowhere").read_text() == "made"


# --- attributes -------------------------------------------------------------------------------

def test_modes(d, h):
    before = os.umask(0)
    try:
        fd = os.open(d / "f", os.O_CREAT | os.O_WRONLY, 0o666)
        os.close(fd)
        os.mkdir(d / "e", 0o777)
        assert stat.S_IMODE(os.stat(h / "f").st_mode) == 0o666
        assert stat.S_IMODE(os.stat(h / "e").st_mode) == 0o777
        os.umask(0o027)
        fd = os.open(d / "g", os.O_CREAT | os.O_WRONLY, 0o777)
        os.close(fd)
        assert stat.S_IMODE(os.stat(h / "g").st_mode) == 0o750
    finally:
        os.umask(before)
    os.chmod(d / "f", 0o4711)
    assert stat.S_IMODE(os.stat(h / "f").st_mode) == 0o4711
    assert stat.S_IMODE(os.stat(d / "f").st_mode) == 0o4711
    # a new file that cannot be written by anybody can be written by who made it
    fd = os.open(d / "ro", os.O_CREAT | os.O_WRONLY, 0o444)
    os.write(fd, b"x")
    os.close(fd)


def test_the_login_user_is_the_owner_of_the_mount(d, h):
    (d / "f").touch()
    st = os.stat(d / "f")
    assert (st.st_uid, st.st_gid) == (os.getuid(), os.getgid())
    os.chown(d / "f", os.getuid(), os.getgid())
    os.chown(d / "f", -1, os.getgid())
    if os.geteuid() == 0:
        os.chown(h / "f", 4711, 4712)
        wait_until(lambda: os.stat(d / "f").st_uid == 4711)
        assert os.stat(d / "f").st_gid == 4712
        os.chown(d / "f", 5000, -1)
        assert os.stat(h / "f").st_uid == 5000
        assert os.stat(h / "f").st_gid == 4712


def test_times(d, h):
    (d / "f").touch()
    os.utime(d / "f", (1000000000, 1100000000))
    st = os.stat(h / "f")
    assert (st.st_atime, st.st_mtime) == (1000000000, 1100000000)
    # one of them only
    subprocess.run(["touch", "-m", "-d", "@1200000000", d / "f"], check=True)
    st = os.stat(h / "f")
    assert (st.st_atime, st.st_mtime) == (1000000000, 1200000000)
    subprocess.run(["touch", "-a", "-d", "@1300000000", d / "f"], check=True)
    assert os.stat(d / "f").st_atime == 1300000000
    assert os.stat(d / "f").st_mtime == 1200000000
    before = int(time.time()) - 1       # (the clock of files is a little behind)
    subprocess.run(["touch", d / "f"], check=True)
    assert before <= os.stat(h / "f").st_mtime <= time.time()
    with open(d / "f", "w") as f:
        os.utime(f.fileno(), (1, 2))
    assert os.stat(h / "f").st_mtime == 2


def test_statfs(d, h):
    mine, real = os.statvfs(d), os.statvfs(h)
    assert mine.f_blocks == real.f_blocks
    assert mine.f_frsize == real.f_frsize
    assert subprocess.run(["df", d], stdout=subprocess.DEVNULL).returncode == 0


def test_sizes_on_disk(d):
    (d / "f").write_bytes(b"x" * 10000)
    assert os.stat(d / "f").st_blocks == 20
    assert subprocess.check_output(["du", "-s", "--apparent-size", "-B1", d / "f"]).startswith(b"10000")


def test_fsync(d, h):
    with open(d / "f", "w") as f:
        f.write("text")
        f.flush()
        os.fsync(f.fileno())
        os.fdatasync(f.fileno())
    fd = os.open(d, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def test_denied(box, d, h):
    """What the server denies is EACCES; a chmod of somebody else's file is EPERM."""
    if os.geteuid() == 0:
        pytest.skip("the login user is root")
    (h / "f").write_text("x")
    (h / "f").chmod(0)
    refused(errno.EACCES, open, d / "f")
    refused(errno.EPERM, os.chmod, box.path / "root/proc/cpuinfo", 0o777)


def test_the_sentence_of_an_error(box):
    """Errors of the disk itself leave a sentence."""
    try:
        (box.path / "root/usr/new").mkdir()
    except OSError as e:
        if e.errno != errno.EROFS:
            pytest.skip("this guest's /usr is not on a read-only file system")
        assert "read-only" in box.error()
        assert any(box.name in line and "root/usr/new" in line
                   for line in box.mount.errors().splitlines())
        refused(errno.EROFS, open, box.path / "root/usr/new", "w")
        refused(errno.EROFS, os.unlink, box.path / "root/usr/bin/env")
    else:
        os.rmdir(box.path / "root/usr/new")
        pytest.skip("this guest's /usr can be written")


def test_root_itself(box):
    root = box.path / "root"
    assert stat.S_IMODE(os.stat(root).st_mode) == 0o755
    refused(errno.EPERM, os.chmod, root, 0o700)
    refused(errno.EPERM, os.rmdir, root)
    assert {"etc", "tmp", "usr"} <= set(os.listdir(root))


def test_many_open_files(d):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        files = []
        for n in range(400):
            files.append(open(d / f"{n}", "w+"))
            files[-1].write(str(n))
        for n, f in enumerate(files):
            f.seek(0)
            assert f.read() == str(n)
            f.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_rename_over_another_name_of_the_file(d, h):
    """It does nothing, and both names stay: for links that were made here and in the guest."""
    (d / "a").write_text("text")
    os.link(d / "a", d / "b")
    assert sorted(os.listdir(d)) == ["a", "b"]
    os.rename(d / "a", d / "b")
    assert sorted(os.listdir(d)) == ["a", "b"]
    assert (d / "a").read_text() == (d / "b").read_text() == "text"
    os.link(h / "a", h / "c")
    wait_until(lambda: (d / "c").exists())
    os.rename(d / "c", d / "b")
    assert sorted(os.listdir(h)) == ["a", "b", "c"]
    assert os.stat(d / "c").st_size == 4
    # another file that looks the same is replaced
    (d / "x").write_text("text")
    (d / "y").write_text("next")
    os.rename(d / "x", d / "y")
    assert (d / "y").read_text() == "text"
    assert not (d / "x").exists()
