"""Fixtures for the exe.dev backend: the stand-in of the service, and mounts on it.

cloud	a stand-in of the test's own, with VMs that are private sshds
paper	the same, but its VMs cannot be reached: for tests of the control side
exe_mount	exe_mount(cloud, "key = value" lines): a mount on it, running
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "mount")]

from conftest_mount import deadline, pytest_collection_modifyitems, pytest_configure  # noqa: E402,F401
from conftest_mount import spawn  # noqa: E402,F401
from guests import Front, SFTP_SERVER  # noqa: E402
from server import Service  # noqa: E402
from support import Box, Mount, pytest_runtest_makereport, wait_until  # noqa: E402,F401
from tokens import sign  # noqa: E402

ACCOUNT = "ann@example.org"
ALL = ["new", "ls", "rm", "restart", "pause", "resume", "rename", "cp", "tag", "comment", "resize",
       "stat", "share port", "share set-public", "share set-private", "whoami"]


def missing():
    for program in ("/usr/sbin/sshd", "ssh-keygen", "openssl", "cc"):
        if not shutil.which(program):
            return f"{program} is not installed"
    return None if SFTP_SERVER else "there is no sftp-server"


@pytest.fixture(autouse=True, scope="session")
def programs():
    if missing():
        pytest.skip(missing())
    if os.getuid() == 0:
        os.makedirs("/run/sshd", exist_ok=True)


class Cloud:
    """A stand-in with one account, its key, and what a mount needs to use it."""

    def __init__(self, guests=True, tls=True):
        self.folder = Path(tempfile.mkdtemp(prefix="sbxfs-exe-"))
        self.front = Front(self.folder / "front") if guests else None
        self.service = Service(self.front.make if guests else None, tls)
        self.lobby = self.service.lobby
        self.key = self.new_key("id")
        self.service.tokens.register(self.public(self.key), ACCOUNT)
        if guests:
            self.front.allow(self.public(self.key))
        self.token_file = self.folder / "token"
        self.set_token(sign(self.key, {"cmds": ALL}))

    def new_key(self, name, kind="ed25519", *args):
        path = self.folder / name
        subprocess.run(["ssh-keygen", "-q", "-t", kind, *(args or ("-N", "")), "-C", name,
                        "-f", path], check=True)
        return path

    @staticmethod
    def public(key):
        return Path(f"{key}.pub").read_text()

    def set_token(self, token):
        self.token_file.touch(mode=0o600)
        self.token_file.write_text(token + "\n")

    def config(self, extra="", **without):
        lines = {
            "api": self.service.url, "token_file": self.token_file, "identity": self.key,
            "ssh_gap": "20ms", "settle": "2s",
        }
        if self.service.ca:
            lines["ca_file"] = self.service.ca
        if self.front:
            lines["known_hosts"] = self.front.known_hosts()
        for key, value in without.items():
            lines[key] = value
        text = "".join(f"{k} = {v}\n" for k, v in lines.items() if v is not None)
        return ("[mount]\nbackends = exe.dev\n[defaults]\nimage = exeuntu\nmemory = 4G\ndisk = 20G\n"
                f"[exe.dev]\n{text}{extra}")

    def count(self, *paths):
        counts = self.service.counts()
        return sum(counts.get(p, 0) for p in paths)

    def close(self):
        self.service.close()
        if self.front:
            self.front.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class ExeMount(Mount):
    def __init__(self, config, variables):
        super().__init__(config)
        self.variables = variables

    @property
    def env(self):
        env = {k: v for k, v in super().env.items()
               if k not in ("EXE_TOKEN", "EXE_API_TOKEN", "EXE_VM_HOST", "SSH_AUTH_SOCK",
                            "CURL_CA_BUNDLE", "SSL_CERT_FILE")
               and not k.lower().endswith("_proxy")}
        return {**env, **self.variables}

    def command(self, *options):
        return super().command("-d" if "-f" in options else "", *options)

    def names(self):
        return sorted(os.listdir(self.path))

    def new(self, name, wait=True):
        os.mkdir(self / name)
        box = Box(self, name)
        if wait:
            box.wait_status("running", "failed")
            assert box.status() == "running", box.error()
        return box

    def status(self, name):
        """None when it has gone: it may go at any time."""
        try:
            return (self / name / "status").read_text().strip()
        except FileNotFoundError:
            return None

    def made(self, *names):
        """Has the service said that it has made them? There may be no way to them from here."""
        return all(self.status(n) in ("booting", "running", "unreachable") for n in names)

    def make(self, *names):
        """mkdir, and the service has made them."""
        for name in names:
            os.mkdir(self / name)
        wait_until(lambda: self.made(*names))

    def backends(self):
        return (self / ".sbxfs/backends").read_text()

    def wait_ready(self):
        wait_until(lambda: "exe.dev ready" in self.backends() and "vms=" in self.backends())
        return self


@pytest.fixture
def cloud():
    cloud = Cloud()
    yield cloud
    cloud.close()


@pytest.fixture
def paper():
    cloud = Cloud(guests=False)
    yield cloud
    cloud.close()


@pytest.fixture
def exe_mount():
    mounts = []

    def make(cloud, extra="", start=True, variables=None, **without):
        mount = ExeMount(cloud.config(extra, **without), variables or {})
        mounts.append(mount)
        if start:
            requests = cloud.service.requests
            mount.start()
            wait_until(lambda: cloud.service.requests > requests or "unavail" in mount.backends())
        return mount

    yield make
    for mount in mounts:
        mount.clean()


def pytest_report_header():
    return missing() or "exe.dev stand-in: sshd, ssh-keygen, openssl and cc are there"
