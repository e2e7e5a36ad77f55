"""root/ when the link or the guest's SFTP server is lost, stops, or comes back."""

import errno
import hashlib
import os
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from support import blocked_in, bounded, held, refused, sftp_servers, wait_until


@pytest.fixture
def server(box, d):
    """The pid of the guest's sftp-server, once it runs; it is let run on at the end."""
    os.stat(d)
    pid, = sftp_servers(box)
    yield pid
    try:
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        pass


def test_root_is_known_without_a_network(box):
    box.control("silent")
    start = time.monotonic()
    assert os.stat(box.path / "root").st_mode == 0o40755
    assert "root" in os.listdir(box)
    subprocess.run(["ls", "-ld", box / "root"], check=True, stdout=subprocess.DEVNULL)
    assert time.monotonic() - start < 10    # who waits for it waits for 15 s


def test_root_waits_for_a_boot(mount, spawn):
    """Whoever looks into a sandbox that boots waits for it, and ^C ends the wait."""
    box = mount.box(None, "boot 600000", wait=False)
    box.wait_status("booting")
    assert os.stat(box.path / "root").st_mode == 0o40755
    impatient = [spawn(argv, stdout=subprocess.DEVNULL) for argv in
                 (["ls", box / "root"], ["cat", box / "root/etc/hostname"])]
    patient = spawn(["ls", box / "root"], stdout=subprocess.PIPE, text=True)
    for p in (*impatient, patient):
        held(p.pid)
    # the figures of a disk that is not there yet are none
    assert os.statvfs(box.path / "root").f_blocks == 0
    for p in impatient:
        p.send_signal(signal.SIGINT)
        assert p.wait(60) == -signal.SIGINT     # (and the boot takes 600)
    box.control("boot 0")
    assert "etc\n" in patient.communicate()[0]
    box.destroy()


def test_a_server_that_ends_in_the_middle_of_reads(box, d, spawn):
    """Whatever was on its way is asked of the next one: nobody waits for ever, no byte is wrong."""
    data = os.urandom(1 << 20) * 64
    (box.home / "big").write_bytes(data)
    big = d / os.path.relpath(box.disk / "big", d)
    for _ in range(5):
        box.look_anew()
        reader = spawn(["cat", big], stdout=subprocess.PIPE)
        got = reader.stdout.read(1 << 20)
        for pid in sftp_servers(box):
            os.kill(pid, signal.SIGKILL)
        rest, _ = reader.communicate()
        assert reader.returncode == 0 and got + rest == data


class Worker(threading.Thread):
    """Does something over and over. What the end of a server may cost it is counted, all else kept."""

    def __init__(self, work, allowed):
        super().__init__(daemon=True)
        self.work, self.allowed = work, allowed
        self.done = self.failed = 0
        self.wrong = None
        self.over = False

    def run(self):
        while not self.over and not self.wrong:
            try:
                self.work()
                self.done += 1
            except OSError as e:
                self.failed += 1
                if e.errno not in self.allowed:
                    self.wrong = repr(e)
            except AssertionError as e:
                self.wrong = repr(e)

    def turns(self):
        return self.done + self.failed


@pytest.mark.deadline(300)
def test_servers_that_end_in_the_middle_of_everything(box, d, h):
    """Readers, writers, copies and listings: no byte is wrong, no close says so falsely."""
    data = os.urandom(1 << 20) * 8
    (h / "big").write_bytes(data)
    (h / "many").mkdir()
    names = {f"name-{n}" for n in range(300)}
    for name in names:
        (h / "many" / name).touch()

    def read():
        with open(d / "big", "rb", buffering=0) as f:
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            got = b"".join(iter(lambda: f.read(1 << 20), b""))
        assert got == data

    def write(name):
        fd = os.open(d / name, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
        try:
            for at in range(0, len(data), 1 << 20):
                os.write(fd, data[at:at + (1 << 20)])
            os.fsync(fd)
        finally:
            os.close(fd)
        assert (h / name).read_bytes() == data

    def copy():
        with open(d / "big", "rb") as source, open(d / "copy", "wb") as target:
            left = len(data)
            while left:
                left -= os.copy_file_range(source.fileno(), target.fileno(), left)
        assert (h / "copy").read_bytes() == data

    def listing():
        assert set(os.listdir(d / "many")) == names

    # A call that met two ends, or whose effect nobody knows: EIO. A file whose size was not
    # known when it was to be opened again: ESTALE.
    workers = [Worker(read, {errno.EIO}), Worker(read, {errno.EIO}),
               Worker(lambda: write("one"), {errno.EIO, errno.ESTALE}),
               Worker(lambda: write("two"), {errno.EIO, errno.ESTALE}),
               Worker(copy, {errno.EIO, errno.ESTALE}), Worker(listing, {errno.EIO})]
    for w in workers:
        w.start()
    for _ in range(12):
        turns = [w.turns() for w in workers]
        wait_until(lambda: any(w.wrong for w in workers) or
                   (sftp_servers(box) and sum(w.turns() > t for w, t in zip(workers, turns)) > 2), 60)
        for pid in sftp_servers(box):
            os.kill(pid, signal.SIGKILL)
    for w in workers:
        w.over = True
    for w in workers:
        w.join(60)
    assert [w.wrong for w in workers if w.wrong or w.is_alive()] == []
    assert all(w.turns() for w in workers)
    read()
    write("one")
    copy()
    listing()


def test_a_server_that_ends_is_not_noticed(box, d, server):
    (d / "f").write_text("one")
    with open(d / "f") as f, open(d / "g", "w") as g:
        g.write("half ")
        g.flush()
        os.fsync(g.fileno())
        os.kill(server, signal.SIGKILL)
        wait_until(lambda: server not in sftp_servers(box))
        assert (d / "f").read_text() == "one"
        assert f.read() == "one"
        g.write("whole")
    assert (d / "g").read_text() == "half whole"
    assert sftp_servers(box) != [server]


def test_open_files_go_on_after_a_cut(box, d, h):
    (h / "same").write_text("x" * 300000)
    (h / "other").write_text("y" * 300000)
    (h / "gone").write_text("z" * 300000)
    files = {name: open(d / name, "rb", buffering=0) for name in ("same", "other", "gone")}
    for f in files.values():
        assert len(f.read(10)) == 10
        # nothing of it in the page cache
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    (h / "other").write_text("longer" * 100000)
    os.unlink(h / "gone")
    box.reconnected("cut")
    box.wait_status("running")
    assert files["same"].read(100) == b"x" * 100
    refused(errno.ESTALE, os.pread, files["other"].fileno(), 100, 200000)
    refused(errno.ESTALE, os.pread, files["gone"].fileno(), 100, 200000)
    for f in files.values():
        f.close()


def test_the_close_tells_what_became_of_the_writes(box, d, server):
    """A write is answered when it is on its way; whether it arrived is known at the close."""
    fd = os.open(d / "f", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    os.kill(server, signal.SIGSTOP)
    os.write(fd, b"first")
    os.write(fd, b"second")
    with ThreadPoolExecutor(1) as pool:
        thread = pool.submit(threading.get_native_id).result()
        closer = pool.submit(refused, errno.EHOSTDOWN, os.close, fd)
        held(thread)
        assert not closer.done()
        box.control("cut")
        closer.result()


def test_a_writer_hears_of_a_lost_link(box, d, server):
    failures = []

    def write_on():
        try:
            while True:
                os.write(fd, bytes(1 << 20))
        except OSError as e:
            failures.append(e.errno)

    fd = os.open(d / "f", os.O_CREAT | os.O_WRONLY)
    os.write(fd, b"first")
    os.kill(server, signal.SIGSTOP)
    writer = threading.Thread(target=write_on)
    writer.start()
    wait_until(lambda: blocked_in(writer.native_id, "write"))
    box.control("cut")
    writer.join()
    assert failures == [errno.EHOSTDOWN]
    # and once more for who looks only at the close
    refused(errno.EHOSTDOWN, os.close, fd)


def test_calls_wait_no_longer_than_the_link_lives(box, d, server, spawn):
    os.kill(server, signal.SIGSTOP)
    readers = [spawn(["cat", d / name], stderr=subprocess.PIPE) for name in "abc"]
    wait_until(lambda: all(blocked_in(r.pid, "open") for r in readers))
    box.control("dead")
    for r in readers:
        assert b"Host is down" in r.communicate()[1]
    box.wait_status("unreachable")
    refused(errno.EHOSTDOWN, os.stat, d)


def interrupted(*argv):
    """The program is held by the server, which is stopped; ^C ends it all the same."""
    p = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    held(p.pid)
    p.send_signal(signal.SIGINT)
    assert p.wait(30) == -signal.SIGINT     # (the daemon gives it up after 60 s)


def test_interrupts(box, d, h, server):
    (h / "f").write_text("text")
    (h / "g").write_bytes(b"x" * 1000000)
    reader = open(d / "g", "rb", buffering=0)
    reader.read(10)
    os.kill(server, signal.SIGSTOP)
    interrupted("cat", d / "f")
    interrupted("ls", d)
    interrupted("mkdir", d / "new")
    interrupted("rm", d / "f")
    interrupted("stat", d / "none")
    interrupted("dd", f"if={d}/g", "of=/dev/null", "bs=1M")
    os.kill(server, signal.SIGCONT)
    # what was on its way has happened, and everything goes on
    assert sorted(os.listdir(d)) in (["g", "new"], ["f", "g", "new"], ["f", "g"], ["g"])
    assert len(reader.read(1000000)) == 999990
    reader.close()


def test_interrupted_opens_leak_no_handles(box, d, h, server):
    (h / "f").write_text("text")

    def handles():
        return len(os.listdir(f"/proc/{server}/fd"))

    (d / "f").read_text()
    if not os.access(f"/proc/{server}/fd", os.R_OK):
        pytest.skip("only root sees the descriptors of sftp-server")
    before = handles()
    for _ in range(5):
        os.kill(server, signal.SIGSTOP)
        openers = [subprocess.Popen(["cat", d / "f"], stdout=subprocess.DEVNULL,
                                    stderr=subprocess.DEVNULL) for _ in range(10)]
        for p in openers:
            held(p.pid)
        for p in openers:
            p.send_signal(signal.SIGINT)
        for p in openers:
            p.wait(30)
        os.kill(server, signal.SIGCONT)
    assert (d / "f").read_text() == "text"
    wait_until(lambda: handles() <= before)


def test_a_busy_transfer_does_not_hold_others(box, d, h, spawn):
    """A listing in between a big read comes soon, and the daemon stays small."""
    size = 200 << 20
    digest = hashlib.sha256()
    with open(h / "big", "wb") as f:
        for n in range(size >> 20):
            block = hashlib.sha256(b"%d" % n).digest() * (1 << 15)
            digest.update(block)
            f.write(block)
    with bounded(box.mount, 48 << 20):
        begun, times = time.monotonic(), []
        reader = spawn(["sha256sum", d / "big"], stdout=subprocess.PIPE, text=True)
        while reader.poll() is None:
            start = time.monotonic()
            os.listdir(box.path / "root/etc")
            times.append(time.monotonic() - start)
        took = time.monotonic() - begun
    assert reader.communicate()[0].split()[0] == digest.hexdigest()
    # Most of them are there long before the end of it, however slow the machine is.
    assert sorted(times)[len(times) // 2] < max(0.5, took / 4)
