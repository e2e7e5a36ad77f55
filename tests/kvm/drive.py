"""The KVM backend driven alone by tests/kvm/drive.c, and what tests look at besides."""

import hashlib
import json
import os
import queue
import re
import shlex
import subprocess
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "mount"))
from support import alive, find_sbxfs, matches, wait_until     # noqa: E402

MIB = 1 << 20
GIB = 1 << 30
BOOT = 180      # seconds that a boot may take under emulation on a busy machine


def build_folder():
    return Path(find_sbxfs()).resolve().parent


def find_image_tool():
    return os.environ.get("SBXFS_IMAGE") or str(build_folder() / "sbxfs-image")


def images_folder():
    data = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local/share")
    return Path(data) / "sbxfs/images"


TEMPLATE_FILES = ("disk.qcow2", "ram", "state")


def template_sum(path):
    """SHA-256 over the place and the bytes of each page that is not all zeros."""
    found, at = hashlib.sha256(), 0
    with open(path, "rb") as f:
        while page := f.read(4096):
            if page.strip(b"\0"):
                found.update(at.to_bytes(8, "big") + page)
            at += len(page)
    return found.hexdigest()


def describe_template(folder, known={}, **about):
    """Its template.json, as sbxfs writes it; known: entries of files that are as they were."""
    about["files"] = {}
    for name in TEMPLATE_FILES:
        stat = (folder / name).stat()
        about["files"][name] = known.get(name) or {
            "size": stat.st_size, "sha256": template_sum(folder / name),
            "changed": f"{stat.st_mtime_ns // 10 ** 9}.{stat.st_mtime_ns % 10 ** 9:09d}"}
    (folder / "template.json").write_text(json.dumps(about))


class Drive:
    """One run of drive.c. Events are kept in order; answers come back from ask()."""

    def __init__(self, place, prefix=(), env=None, **keys):
        self.place = place
        command = [*prefix, str(build_folder() / "tests/kvm/drive"), place.state, place.run,
                   place.data, *(f"{key}={value}" for key, value in keys.items())]
        self.log = open(place.folder / "drive.log", "ab")
        self.process = subprocess.Popen([str(c) for c in command], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=self.log, text=True,
                                        env=dict(os.environ, **(env or {})), errors="replace")
        self.events, self.answers = queue.Queue(), queue.Queue()
        self.seen = []
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            line = line.rstrip("\n")
            event = re.match("(state|gone|ready|trouble|changed|still) ", line)
            (self.events if event else self.answers).put(line)
        self.events.put(None)
        self.answers.put(None)

    def ask(self, command):
        """The text before "ok"; an error is raised as RuntimeError("CODE SENTENCE")."""
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        text = []
        while True:
            line = self.answers.get(timeout=30)
            assert line is not None, "drive ended"
            if line == "ok":
                return "\n".join(text)
            if line.startswith("error "):
                raise RuntimeError(line[6:])
            text.append(line)

    def wait(self, pattern, timeout=BOOT):
        """The next event that matches; those before it are passed over into self.seen."""
        while True:
            line = self.events.get(timeout=timeout)
            assert line is not None, f"drive ended before {pattern!r}: {self.seen}"
            self.seen.append(line)
            if re.search(pattern, line):
                return line
            assert " failed " not in line or "failed" in pattern, line

    def up(self, name):
        return Endpoint(self.wait(f"^state {name} up "), self.place)

    def info(self, name):
        return dict(line.split(" ", 1) for line in self.ask(f"info {name}").splitlines() if line)

    def quit(self):
        """An orderly end of the daemon; VMs stay."""
        self.process.stdin.close()
        assert self.process.wait(30) == 0
        self.reader.join(10)

    def kill(self):
        self.process.kill()
        self.process.wait(30)
        self.reader.join(10)

    def close(self):
        if self.process.poll() is None:
            self.kill()
        self.process.stdin.close()
        self.process.stdout.close()
        self.log.close()


class Endpoint:
    """Where a guest is reached; ssh() believes the pinned key and nothing else."""

    def __init__(self, event, place):
        (self.name, self.host, port, self.user, self.identity, self.host_key) = re.fullmatch(
            r"state (\S+) up (\S+) (\d+) (\S+) (.*) (ssh-ed25519 \S+)", event).groups()
        self.port = int(port)
        self.known = place.folder / f"known-{self.name}"
        self.known.write_text(f"[{self.host}]:{self.port} {self.host_key}\n")

    def command(self, command):
        return ["ssh", "-F", "/dev/null", "-i", self.identity, "-p", str(self.port),
                "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "ConnectTimeout=30",
                "-o", "StrictHostKeyChecking=yes", "-o", f"UserKnownHostsFile={self.known}",
                "-o", "GlobalKnownHostsFile=/dev/null", f"{self.user}@{self.host}", command]

    def ssh(self, command, check=True, timeout=60):
        done = subprocess.run(self.command(command), stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=timeout)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout


class Place:
    """Folders for one backend. What still runs there at the end of a test is killed."""

    def __init__(self, folder, state="state", run="run"):
        self.folder = folder
        self.state, self.run, self.data = folder / state, folder / run, folder / "data"
        for path in (self.state, self.run, self.data):
            path.mkdir(mode=0o700, parents=True)
        self.drives = []

    def drive(self, **more):
        more.setdefault("images", images_folder())
        more.setdefault("templates", "off")     # but where they are what is tested
        self.drives.append(Drive(self, **more))
        return self.drives[-1]

    def image(self, name, **files):
        """A copy of the image debian with other files in it; use with images=place.images."""
        source = (images_folder() / "debian").resolve()
        folder = self.images / name
        folder.mkdir(parents=True)
        for path in source.iterdir():
            if path.name in files:
                (folder / path.name).write_bytes(files[path.name])
            else:
                (folder / path.name).symlink_to(path)
        return name

    @property
    def images(self):
        return self.folder / "images"

    def record(self, name):
        return self.state / name / "vm.json"

    def processes(self, word=None, option=b""):
        """Pids of the QEMUs, and of all else, that have a path of this place in their argv."""
        word = (word or str(self.folder)).encode()
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if not entry.name.isdigit() or int(entry.name) == os.getpid():
                    continue
                argv = (entry / "cmdline").read_bytes()
                if word in argv and option in argv and b"/drive\0" not in argv \
                        and alive(int(entry.name)):
                    found.append(int(entry.name))
            except OSError:
                pass        # it has just ended
        return found

    def qemus(self):
        # escaped as QEMU wants it: a comma in a path is written twice
        return self.processes(str(self.state).replace(",", ",,"), b"-nodefaults")

    def kill_qemu(self, name):
        """kill -9 of its QEMU; returns when the kernel has taken all from it."""
        for pid in self.qemus():
            os.kill(pid, 9)
        lock = self.state / name / "lock"
        subprocess.run(["flock", "-w", "20", lock, "true"], check=True)

    def leftovers(self, name):
        """Files, sockets and processes of that VM."""
        left = matches(self.run, f"{name}.*") + self.processes(str(self.state / name))
        return left + ([self.state / name] if (self.state / name).exists() else [])

    def wrapper(self, program, script):
        """A folder for the front of PATH in which program is that shell script first."""
        real = subprocess.run(["sh", "-c", f"command -v {program}"], capture_output=True,
                              text=True, check=True).stdout.strip()
        folder = self.folder / "wrappers"
        folder.mkdir(exist_ok=True)
        path = folder / program
        path.write_text(f"#!/bin/sh\nREAL={shlex.quote(real)}\n{script}\n")
        path.chmod(0o755)
        return path

    def wrapped_path(self):
        return f"{self.folder / 'wrappers'}:{os.environ['PATH']}"

    def close(self):
        for drive in self.drives:
            drive.close()
        for pid in self.qemus():
            os.kill(pid, 9)
            wait_until(lambda: not alive(pid))
