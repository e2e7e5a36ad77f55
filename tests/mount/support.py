"""What tests on real mounts share: a daemon with folders of its own, its sandboxes, waiting.

A Mount runs $SBXFS in the foreground on the fake backend (backends/fake), below a
fresh temporary folder. A Box is one sandbox of it. Both behave as paths:
mount / "web", box / "stdout".
"""

import contextlib
import glob
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]


def find_sbxfs():
    """The daemon under test: $SBXFS, or what contrib/check built."""
    return os.environ.get("SBXFS") or str(TOP / "build-check" / "sbxfs")


def matches(folder, pattern):
    """As Path.glob, where things come and go: that raises when a folder goes while it looks."""
    return [Path(p) for p in glob.glob(f"{glob.escape(str(folder))}/{pattern}", recursive=True,
                                       include_hidden=True)]


def sanitized():
    """Is it built with AddressSanitizer? Then memory and times mean nothing."""
    path = Path(find_sbxfs())
    return path.exists() and b"__asan_init" in path.read_bytes()


def wait_until(condition, timeout=60, step=0.005):
    """Wait for a fact of another process that has no event; returns the condition's value.

    The patience is for a loaded machine, and costs only where a test fails."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"not so within {timeout} s"
        time.sleep(step)


def process_state(pid):
    """(state letter, name) of a process, or (None, None) when it has gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None, None
    name, rest = text[text.index("(") + 1:text.rindex(")")], text[text.rindex(")") + 2:]
    return rest.split()[0], name


def alive(pid):
    """Does it run? A zombie does not."""
    return process_state(pid)[0] not in (None, "Z", "X")


def blocked_in(pid, call):
    """Does the process sleep in read(2), write(2), open(2) or a kind of stat(2), in the kernel's
    FUSE?"""
    try:
        wchan = Path(f"/proc/{pid}/wchan").read_text()
        number = Path(f"/proc/{pid}/syscall").read_text().split()[0]
    except (OSError, IndexError):
        return False
    # x86-64, others
    numbers = {"read": ("0", "63"), "write": ("1", "64"), "open": ("257", "56"),
               "stat": ("332", "262", "4", "6", "79", "291")}
    if wchan not in ("0", "") and not re.search("fuse|request_wait", wchan):
        return False
    return process_state(pid)[0] in ("S", "D") and number in numbers[call]


def held(pid):
    """Wait until that process, or thread, waits for an answer of the file system."""
    def waits():
        wchan = Path(f"/proc/{pid}/wchan").read_text()
        return re.search("fuse|request_wait", wchan)
    wait_until(waits)


def blocked_in_read(process):
    return blocked_in(process.pid, "read")


def blocked_in_write(process):
    return blocked_in(process.pid, "write")


def refused(number, call, *args, **kwargs):
    """The call fails with that errno."""
    with pytest.raises(OSError) as caught:
        call(*args, **kwargs)
    assert caught.value.errno == number, caught.value


def write(path, text, flags=0):
    """One open, one write, one close, as `echo` does it."""
    data = text.encode() if isinstance(text, str) else text
    fd = os.open(path, os.O_WRONLY | flags)
    try:
        assert os.write(fd, data) == len(data)
    finally:
        os.close(fd)


def write_all(fd, data):
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view):]


def read_all(fd):
    """To the end of file."""
    parts = []
    while part := os.read(fd, 1 << 20):
        parts.append(part)
    return b"".join(parts)


def ask(path, command):
    """A command's output by way of one read-write handle of cmd."""
    fd = os.open(path, os.O_RDWR)
    try:
        write_all(fd, command.encode() if isinstance(command, str) else command)
        return read_all(fd)
    finally:
        os.close(fd)


CONFIG = """\
[mount]
backends = fake
[limits]
trash = 0
[fake]
sharedkey = yes
"""

# What must never stand in the log.
TROUBLE = re.compile(r"sbxfs error:|AddressSanitizer|LeakSanitizer|runtime error:|ssertion")


class Log(threading.Thread):
    """Collects what a daemon says, and lets others wait for a line of it."""

    def __init__(self, pipe):
        super().__init__(daemon=True)
        self.pipe, self.lines, self.ended = pipe, [], False
        self.news = threading.Condition()
        self.start()

    def run(self):
        for line in self.pipe:
            with self.news:
                self.lines.append(line.rstrip("\n"))
                self.news.notify_all()
        with self.news:
            self.ended = True
            self.news.notify_all()

    def wait(self, pattern, timeout=100):
        """The first line that matches; fails when the daemon ended without it."""
        def found():
            return next((line for line in self.lines if re.search(pattern, line)), None)
        with self.news:
            self.news.wait_for(lambda: found() or self.ended, timeout)
            assert found(), f"the daemon never said {pattern!r}:\n" + "\n".join(self.lines)
            return found()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """For each conftest.py: what the daemons said last stands below a failure."""
    report = (yield).get_result()
    for mount in Mount.running if report.failed else ():
        report.sections.append((f"log of {mount.path}", "\n".join(mount.log.lines[-40:])))


class Mount(os.PathLike):
    """A daemon and its mount point. All Mounts that run are in Mount.running."""

    running = []

    def __init__(self, config=CONFIG):
        self.folder = Path(tempfile.mkdtemp(prefix="sbxfs-test-"))
        self.path = self.folder / "sandboxes"
        self.path.mkdir()
        for name in ("config", "state", "data", "run"):
            (self.folder / name).mkdir(mode=0o700)
        self.config = self.folder / "config" / "sbxfs.conf"
        self.config.write_text(config)
        self.fake = self.folder / "state" / "sbxfs" / "fake"
        self.allowed = []
        self.process = self.log = None
        self.count = 0

    def __fspath__(self):
        return str(self.path)

    def __truediv__(self, name):
        return self.path / name

    @property
    def env(self):
        return dict(os.environ,
                    HOME=str(self.folder),
                    XDG_CONFIG_HOME=str(self.folder / "config"),
                    XDG_STATE_HOME=str(self.folder / "state"),
                    XDG_DATA_HOME=str(self.folder / "data"),
                    XDG_RUNTIME_DIR=str(self.folder / "run"))

    def command(self, *options):
        return [find_sbxfs(), *options, "-c", str(self.config), str(self.path)]

    # --- the daemon --------------------------------------------------------------

    def launch(self):
        """Start the daemon; it may not have mounted yet."""
        self.process = subprocess.Popen(self.command("-f"), env=self.env, text=True,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.PIPE, errors="replace")
        self.log = Log(self.process.stderr)
        Mount.running.append(self)

    def start(self):
        self.launch()
        try:
            self.log.wait("mounted on")
        except AssertionError:
            self.kill()
            if any("no backend fake" in line for line in self.log.lines):
                pytest.skip(f"{find_sbxfs()} was built without the fake backend (-Dfake=true)")
            raise
        backends = (self / ".sbxfs/backends").read_text()
        if "fake unavailable" in backends:
            pytest.skip(backends)
        return self

    def expect(self, pattern):
        """This trouble in the log is what the test is about."""
        self.allowed.append(re.compile(pattern))

    def trouble(self, since=0):
        return [line for line in self.log.lines[since:] if TROUBLE.search(line)
                and not any(p.search(line) for p in self.allowed)]

    def unmount(self):
        """By hand, as users do. It is busy while anybody on the machine looks at it."""
        def done():
            return not subprocess.run(["fusermount3", "-u", self.path], timeout=60,
                                      stderr=subprocess.DEVNULL).returncode
        wait_until(done, step=0.1)

    def stop(self):
        """Unmount, as users do; the daemon must end well, having said nothing bad."""
        if self.mounted():
            self.unmount()
        status = self.process.wait(60)
        self.ended()
        assert status == 0, f"the daemon ended with {status}:\n" + "\n".join(self.log.lines)
        assert not self.trouble(), "\n".join(self.log.lines)

    def kill(self):
        """kill -9, and the wait for it. The dead mount stays."""
        self.process.kill()
        self.process.wait(60)
        self.ended()

    def ended(self):
        Mount.running.remove(self)
        self.log.join(60)
        assert not self.log.is_alive(), "somebody else holds the daemon's standard error"
        self.process.stderr.close()

    def mountinfo(self):
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            fields = line.split()
            if fields[4] == str(self.path):
                yield fields

    def mounted(self):
        return any(self.mountinfo())

    def abort(self):
        """Free whoever hangs in the mount, whatever the daemon does."""
        for fields in self.mountinfo():
            abort = Path("/sys/fs/fuse/connections") / fields[2].split(":")[1] / "abort"
            if abort.exists():
                abort.write_text("1")

    def clean(self):
        """After a test, however it ended: nothing is left but a verdict."""
        failure = None
        self.close_leaked()
        if self in Mount.running:
            try:
                self.stop()
            except (subprocess.SubprocessError, OSError, AssertionError) as e:
                failure = e
        if self in Mount.running:       # it hangs
            self.abort()
            self.kill()
        while self.mounted():
            subprocess.run(["fusermount3", "-u", "-z", self.path], check=True, timeout=20)
        self.sweep()
        shutil.rmtree(self.folder)
        assert not failure, f"{failure}\n" + "\n".join(self.log.lines)

    def close_leaked(self):
        """Close what a test that failed has left open in the mount."""
        for fd in os.listdir("/proc/self/fd"):
            try:
                if os.readlink(f"/proc/self/fd/{fd}").startswith(f"{self.path}/"):
                    os.close(int(fd))
            except OSError:
                pass

    def guest_processes(self, name=None):
        """Pids of what runs in the sandboxes (in that one)."""
        mark = f"SBXFS_FAKE={self.fake}/boxes/{name or ''}".encode() + (b"\0" if name else b"")
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes() + b"\0" \
                        and alive(int(entry.name)):
                    found.append(int(entry.name))
            except OSError:
                pass
        return found

    def job_processes(self, name=None):
        """
        Those of them that are a job's: with the token in their environment or, as its shell, on
        the command line. Not what the daemon itself runs there, such as a look at the guest.
        """
        found = []
        for pid in self.guest_processes(name):
            try:
                texts = [Path(f"/proc/{pid}/{text}").read_bytes() for text in ("environ", "cmdline")]
            except OSError:
                continue
            if b"SBXFS_JOB=" in b"\0".join(texts) and alive(pid):
                found.append(pid)
        return found

    def sshd_processes(self, name="*"):
        """Pids of the sshds whose sessions the fake backend has noted."""
        sessions = set()
        for path in matches(self.fake, f"boxes/{name}/sessions"):
            sessions |= set(path.read_text().split())
        found = []
        for entry in Path("/proc").iterdir():
            state, comm = process_state(entry.name) if entry.name.isdigit() else (None, None)
            if comm and comm.startswith("sshd") and state != "Z":
                try:
                    stat = (entry / "stat").read_text()
                except (FileNotFoundError, ProcessLookupError):
                    continue
                if stat[stat.rindex(")") + 2:].split()[3] in sessions:
                    found.append(int(entry.name))
        return found

    def sweep(self):
        """VMs outlive the daemon: end them here."""
        for pid in self.sshd_processes() + self.guest_processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    # --- sandboxes ---------------------------------------------------------------------

    def control(self, name, *orders):
        """Tell the fake backend how the sandbox shall behave; done when this returns."""
        letter = self.fake / "control" / name
        beside = letter.with_name("." + name)
        beside.write_text("".join(order + "\n" for order in orders))
        beside.rename(letter)
        wait_until(lambda: not letter.exists(), step=0.001)

    def new_name(self):
        self.count += 1
        return f"box-{self.count}"

    def box(self, name=None, *orders, wait=True):
        """A new sandbox, running unless told otherwise; orders apply from its creation on."""
        box = Box(self, name or self.new_name())
        if orders:
            self.control(box.name, *orders)
        box.path.mkdir()
        if wait:
            box.wait_status("running")
        return box

    def errors(self):
        return (self / ".sbxfs/errors").read_text()

    def events(self):
        """All events that are kept now."""
        fd = os.open(self / ".sbxfs/events", os.O_RDONLY | os.O_NONBLOCK)
        data = b""
        try:
            while part := os.read(fd, 65536):
                data += part
        except BlockingIOError:
            pass
        finally:
            os.close(fd)
        return [json.loads(line) for line in data.splitlines()]


class Box(os.PathLike):
    """One sandbox of a mount."""

    def __init__(self, mount, name):
        self.mount, self.name, self.path = mount, name, mount / name

    def __fspath__(self):
        return str(self.path)

    def __truediv__(self, name):
        return self.path / name

    def read(self, name):
        return (self.path / name).read_text()

    def read_bytes(self, name):
        return (self.path / name).read_bytes()

    def write(self, name, text):
        write(self.path / name, text)

    def run(self, command):
        """Write a command to cmd and close: it runs."""
        self.write("cmd", command if isinstance(command, bytes) else command + "\n")

    def out(self):
        """What the latest job prints, to its end."""
        return self.read("stdout")

    def err(self):
        return self.read("stderr")

    def exit(self):
        """Wait for the latest job's result."""
        return self.read("exit").rstrip("\n")

    def ask(self, command):
        """A command's whole output as bytes, however many others use the sandbox."""
        return ask(self.path / "cmd", command)

    def look_anew(self):
        """What happened in the guest in this very second is seen at once after any command."""
        self.ask(":")

    def status(self):
        return self.read("status").rstrip("\n")

    def error(self):
        return self.read("error").rstrip("\n")

    def job_status(self):
        return self.read("jobs/latest/status").rstrip("\n")

    def latest(self):
        return os.readlink(self / "jobs/latest")

    def info(self):
        lines = self.read("info").splitlines()
        return dict(line.split(" ", 1) for line in lines)

    def wait_status(self, *wanted, timeout=60):
        try:
            wait_until(lambda: self.status() in wanted, timeout)
        except AssertionError as e:
            raise AssertionError(f"{self.name} is {self.status()}, not {wanted}: {e}; its error: "
                                 f"{self.error()}") from e

    def wait_job(self, status, timeout=60):
        wait_until(lambda: self.job_status() == status, timeout)

    def control(self, *orders):
        self.mount.control(self.name, *orders)

    def reconnected(self, *orders):
        """These cut its connection: done when there is another one."""
        def count():
            return sum(f"vm={self.name} connected" in line for line in self.mount.log.lines)
        before = count()
        self.control(*orders)
        wait_until(lambda: count() > before, 60)

    @property
    def guest_home(self):
        """The home of commands, as the guest names it: their current folder."""
        return self.info()["home"]

    @property
    def home(self):
        """The same folder on the host's disk, without the mount."""
        return Path(self.info()["folder"] + self.guest_home)

    @property
    def disk(self):
        """The same folder in the mount, below root/."""
        return Path(f"{self.path}/root{self.guest_home}")

    def destroy(self):
        try:
            os.rmdir(self.path)
        except PermissionError:     # we were refused on a file of it: who means it asks again
            os.rmdir(self.path)
        wait_until(lambda: not self.path.exists())


def sftp_servers(box):
    """Their environment cannot be read, but they descend from the sandbox's sshds."""
    sshds = set(box.mount.sshd_processes(box.name))
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        state, name = process_state(pid)
        parent = pid
        while name == "sftp-server" and state != "Z" and int(parent) > 1:
            try:
                stat = open(f"/proc/{parent}/stat").read()
            except OSError:
                break
            parent = stat[stat.rindex(")") + 2:].split()[1]
            if int(parent) in sshds:
                found.append(int(pid))
                break
    return found


# --- what the daemon takes -----------------------------------------------------------

def memory(mount, name):
    """VmRSS, or VmHWM, its peak: in bytes."""
    status = Path(f"/proc/{mount.process.pid}/status").read_text()
    return int(re.search(rf"{name}:\s*(\d+) kB", status).group(1)) << 10


@contextlib.contextmanager
def bounded(mount, most):
    """What is done here costs the daemon no more than that much memory at any time."""
    Path(f"/proc/{mount.process.pid}/clear_refs").write_text("5")   # forget the peak
    before = memory(mount, "VmRSS")
    yield
    grown = memory(mount, "VmHWM") - before
    assert sanitized() or grown < most, f"{grown >> 20} MiB"


def sftp_requests(mount):
    """So many requests were sent to SFTP servers until now."""
    text = (mount / ".sbxfs/metrics").read_text()
    return int(re.search(r"^sbxfs_sftp_requests_total (\d+)", text, re.M).group(1))


def free_port():
    """A port of the loopback that is free, and that the kernel gives to nobody by itself."""
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in random.sample(range(low // 2, low), 100):
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


# --- programs below root/ ------------------------------------------------------------

def needs(program):
    return pytest.mark.skipif(not shutil.which(program), reason=f"{program} is not installed")


def run(*argv, **kwargs):
    """The program works and says nothing on standard error."""
    r = subprocess.run(argv, capture_output=True, text=True, **kwargs)
    assert r.returncode == 0 and r.stderr == "", (argv, r.returncode, r.stderr, r.stdout)
    return r.stdout
