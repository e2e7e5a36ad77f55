"""What the measurements of root/ share: one sshd a round trip, and the ways to reach its disk.

A Lab is a daemon on the fake backend with a sandbox for each round trip time. All systems
go to that sandbox's sshd, on the same port: straight at 0 ms, through a relay
(relay.c) otherwise. A system gives a path (or, as plain sftp, commands) to the folder WORK of the
login user, mounted anew each time, so that nothing of it is cached on this side.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "mount"))

from support import CONFIG, Mount, find_sbxfs, wait_until     # noqa: E402

WORK = "work"
HIDDEN = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}


def memory_folder(need):
    """Where the sandboxes' disks live: in memory, so that no disk is measured, if there is room."""
    shm = Path("/dev/shm")
    if shm.is_dir() and os.access(shm, os.W_OK):
        room = os.statvfs(shm)
        available = int(re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())[1])
        if min(room.f_bavail * room.f_frsize, available * 1024) > need:
            return str(shm)
    return tempfile.gettempdir()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Relay:
    """relay.c: a port for each of these, with that round trip in between."""

    def __init__(self, rtt, *ports):
        program = Path(find_sbxfs()).parent / "tests/bench/relay"
        self.process = subprocess.Popen([program, str(rtt), *map(str, ports)], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.ports = [int(self.process.stdout.readline().split()[1]) for _ in ports]

    def stop(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(10)


def memory_peak(pid):
    """In MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024


def cpu_seconds(pid):
    stat = Path(f"/proc/{pid}/stat").read_text()
    fields = stat[stat.rindex(")") + 2:].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Site:
    """A sandbox of the lab: what is there, seen from the server's side."""

    def __init__(self, lab, name, rtt):
        self.lab, self.name, self.rtt = lab, name, rtt
        self.port = self.via = free_port()
        self.relay = None
        if rtt:
            self.relay = Relay(rtt, self.port)
            self.via = self.relay.ports[0]
        self.orders = [f"port {self.port}", f"via {self.via}"]
        self.box = lab.mount.box(name, *self.orders)
        self.home = self.box.guest_home
        self.disk = self.box.home / WORK        # on the host's disk, without any mount
        self.disk.mkdir()

    def ssh_options(self):
        return ["-F", "none", "-o", f"IdentityFile={self.lab.mount.fake}/client_key",
                "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no",
                "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]

    def login(self):
        return self.box.read("ssh_config").split("User ")[1].split()[0]


class Lab:
    """A daemon, a sandbox (or copies of it) a round trip; the stock of files that sites link to."""

    def __init__(self, rtts, need, config=CONFIG, copies=1):
        tempfile.tempdir = memory_folder(need)
        # Who is told to end leaves no mount and no sshd behind.
        signal.signal(signal.SIGTERM, lambda signo, frame: sys.exit(128 + signo))
        self.mount = Mount(config).start()
        self.stock = self.mount.folder / "stock"
        self.stock.mkdir()
        self.sites, self.peak = [], 0
        try:
            for rtt in rtts:
                for n in range(copies):
                    self.sites.append(Site(self, f"rtt{rtt}-{n}", rtt))
        except BaseException:
            self.close()
            raise

    def restart(self):
        """The daemon anew: nothing is cached, every connection is fresh."""
        self.note_memory()
        self.mount.stop()
        control = self.mount.fake / "control"
        for site in self.sites:         # the fake backend reads its letters when it starts
            (control / site.name).write_text("".join(order + "\n" for order in site.orders))
        self.mount.start()

    def note_memory(self):
        self.peak = max(self.peak, memory_peak(self.mount.process.pid))

    def close(self):
        with contextlib.suppress(OSError, AttributeError):
            self.note_memory()
        try:
            self.mount.clean()
        finally:
            for site in self.sites:
                if site.relay:
                    site.relay.stop()


# --- the systems ----------------------------------------------------------------

class Sbxfs:
    """root/ of the sandbox, by a daemon that has just started."""

    name = "sbxfs"
    mounts, late = True, False

    @contextlib.contextmanager
    def open(self, site):
        site.lab.restart()
        site.box.wait_status("running")
        path = Path(f"{site.box.path}/root{site.home}/{WORK}")
        wait_until(path.is_dir)
        yield path
        site.lab.note_memory()

    @staticmethod
    def version():
        return subprocess.check_output([find_sbxfs(), "--version"], text=True).split()[-1]


class MountedBy:
    """A mount of another program, in a folder of its own."""

    mounts, late = True, False

    @contextlib.contextmanager
    def open(self, site):
        folder = Path(tempfile.mkdtemp(prefix=f"bench-{self.name}-"))
        path = folder / "mnt"
        path.mkdir()
        process = self.start(site, path, folder)
        try:
            wait_until(lambda: os.path.ismount(path) or process.poll() is not None)
            if process.poll() is not None:
                raise RuntimeError(f"{self.name} did not mount: {process.returncode}")
            os.listdir(path)
            yield path
        finally:
            subprocess.run(["fusermount3", "-u", "-z", path], stderr=subprocess.DEVNULL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            if process.poll() is None:
                process.kill()
                process.wait()
            shutil.rmtree(folder)


class Sshfs(MountedBy):
    """sshfs as it comes."""

    name = "sshfs"

    def start(self, site, path, folder):
        return subprocess.Popen(
            ["sshfs", "-f", "-p", str(site.via), *site.ssh_options(),
             f"{site.login()}@127.0.0.1:{WORK}", path], **HIDDEN)

    @staticmethod
    def version():
        said = subprocess.run(["sshfs", "--version"], text=True, capture_output=True)
        return re.search(r"SSHFS version (\S+)", said.stdout + said.stderr)[1]


class Rclone(MountedBy):
    """
    rclone mount with the cache that programs which save files need. It answers a close
    before it has sent the file: what it writes counts when the server has it.
    """

    name = "rclone"
    late = True

    def start(self, site, path, folder):
        remote = (f":sftp,host=127.0.0.1,port={site.via},user={site.login()},"
                  f"key_file={site.lab.mount.fake}/client_key,shell_type=none:{WORK}")
        env = dict(os.environ, RCLONE_CONFIG=str(folder / "none"))
        return subprocess.Popen(["rclone", "mount", "--vfs-cache-mode", "writes", "--vfs-write-back", "0s",
                                 "--cache-dir", str(folder / "cache"), remote, path],
                                env=env, stderr=subprocess.DEVNULL, **HIDDEN)

    @staticmethod
    def version():
        return subprocess.check_output(["rclone", "--version"], text=True).split()[1]


class Sftp:
    """OpenSSH's sftp: no mount, only what it has a command for."""

    name = "sftp"
    mounts, late = False, False

    @contextlib.contextmanager
    def open(self, site):
        yield lambda commands, **kwargs: subprocess.run(
            ["sftp", "-q", "-b", "-", "-P", str(site.via), *site.ssh_options(),
             f"{site.login()}@127.0.0.1"], input=f"cd {WORK}\n{commands}\n".encode(),
            stdout=subprocess.DEVNULL, check=True, **kwargs)

    @staticmethod
    def version():
        said = subprocess.run(["ssh", "-V"], text=True, capture_output=True).stderr
        return re.search(r"OpenSSH_([^ ,]+)", said)[1]


SYSTEMS = {system.name: system for system in (Sbxfs(), Sshfs(), Rclone(), Sftp())}


# --- a run -----------------------------------------------------------------------

class Overdue(Exception):
    """A run took longer than it may."""


@contextlib.contextmanager
def limit(seconds):
    """Whatever runs inside is given up after so long; its children are told to end."""
    def overdue(signo, frame):
        raise Overdue

    before = signal.signal(signal.SIGALRM, overdue)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def timed(call, *args):
    start = time.perf_counter()
    call(*args)
    return time.perf_counter() - start


def versions(names):
    found = {name: SYSTEMS[name].version() for name in names}
    found["sshd"] = Sftp.version()
    found["kernel"] = os.uname().release
    found["cpus"] = str(os.cpu_count())
    return found
