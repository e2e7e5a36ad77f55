"""The stand-in's VMs: a listener on loopback each, an `sshd -i` for each connection.

One RSA host key for all, public keys of the account only, any user name (pwshim.c). The
front, which all share, counts connections and minds bursts as the service does: too many
within a second and it answers no SYN at all for a while (the queue of the listening
socket is full, so the kernel drops them).
"""

import atexit
import functools
import os
import pwd
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections import deque
from pathlib import Path

HERE = Path(__file__).resolve().parent
SFTP_SERVER = next((p for p in ("/usr/lib/openssh/sftp-server", "/usr/libexec/sftp-server",
                                "/usr/libexec/openssh/sftp-server") if os.path.exists(p)), None)

SSHD_CONFIG = """\
HostKey {front.host_key}
AuthorizedKeysFile {front.authorized_keys}
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PidFile none
MaxAuthTries {front.max_auth_tries}
Subsystem sftp {sftp}
SetEnv HOME={disk} SBX_VM={mark} SBX_DISK={disk} PATH={front.folder}/bin:/usr/local/bin:/usr/bin:/bin
"""

# Relays the SFTP server, and ends the channel when it has been idle for so long.
SFTP_WRAPPER = """\
#!/bin/sh
[ -s "{idle}" ] && exec /usr/bin/python3 -B {here}/idle.py "$(cat {idle})" {idle}.log {server}
exec {server}
"""

# A sudo that needs no password, notes that it was used, and refuses to ask.
SUDO = """\
#!/bin/sh
[ -e "{no_sudo}" ] && { echo 'sudo: a password is required' >&2; exit 1; }
[ "$1" = -n ] || { echo 'sudo: it would ask for a password' >&2; exit 1; }
shift
echo "$@" >>"{log}"
exec "$@"
"""


def came_at(conn):
    """When it was established: accept() may come late on a loaded machine (tcp(7), TCP_INFO).

    Nothing has been sent on it from here, and then tcpi_last_data_sent counts from there; what
    the other side has sent since does not matter.
    """
    info = conn.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return time.monotonic() - struct.unpack("8B24I", info)[8 + 9] / 1000


@functools.cache
def made_once():
    """The host key and the shim of all services of this process: each takes a while."""
    folder = Path(tempfile.mkdtemp(prefix="sbxfs-exe-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(0o711)
    key, shim = folder / "host_key", folder / "pwshim.so"
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", key], check=True)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", shim, HERE / "pwshim.c", "-ldl"], check=True)
    return key, shim


class Front:
    """What all VMs of the service share."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(mode=0o700)
        self.host_key, self.shim = made_once()
        self.authorized_keys = self.folder / "authorized_keys"
        self.authorized_keys.write_text("")
        self.idle = self.folder / "idle"
        self.idle.write_text("")
        self.sudo_log = self.folder / "sudo.log"
        self.no_sudo = self.folder / "no-sudo"
        self.max_auth_tries = 6
        self.login = None
        self.user = None            # "vm": log in as vm+NAME, and under no other name
        self.far = None             # a network of their own (far.py)
        self.burst = None           # connections that may come within burst_s
        self.burst_s = 1
        self.ban_s = 60
        self.bans = 0
        self.banned_until = 0
        self.accepted = []          # (time, VM name)
        self.recent = deque()
        self.lock = threading.Lock()
        self.guests = []
        (self.folder / "bin").mkdir()
        self.script("sftp", SFTP_WRAPPER.format(idle=self.idle, here=HERE, server=SFTP_SERVER))
        self.script("bin/sudo", SUDO.replace("{no_sudo}", str(self.no_sudo))
                    .replace("{log}", str(self.sudo_log)))

    def script(self, name, text):
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o755)

    def log_in_as(self, name):
        """Users land as this one, of this machine, who may use sudo; for tests that run as root."""
        self.login = pwd.getpwnam(name)
        for folder in (self.folder.parent, self.folder):
            folder.chmod(0o711)
        sudo = self.folder / "bin/sudo"
        sudo.unlink()
        subprocess.run(["cc", "-o", sudo, f"-DLOGIN={self.login.pw_uid}",
                        f'-DREFUSE="{self.no_sudo}"', f'-DLOG="{self.sudo_log}"',
                        HERE / "sudo.c"], check=True)
        sudo.chmod(0o4755)

    def known_hosts(self):
        """A file with the host key, for the names that the VMs have here."""
        path = self.folder / "known_hosts"
        key = " ".join(self.host_key.with_suffix(".pub").read_text().split()[:2])
        path.write_text(f"[localhost]:*,[127.0.0.1]:*,[10.213.*]:*,localhost,127.0.0.1 {key}\n")
        return path

    def allow(self, public_key):
        with open(self.authorized_keys, "a") as f:
            f.write(public_key)

    def allow_stranger(self, public_key):
        """A key that no account has: it may log in, and is asked to register."""
        self.script("register", "#!/bin/sh\necho 'Please complete registration by running: ssh "
                    "exe.dev'\necho 'Please enter your email address:'\nexec sleep 1000\n")
        self.allow(f'command="{self.folder}/register" {public_key}')

    def idle_closed(self):
        """SFTP channels that were closed since they were idle."""
        log = Path(f"{self.idle}.log")
        return len(log.read_text().splitlines()) if log.exists() else 0

    def connections(self, name=None):
        return sum(1 for _, n in self.accepted if name in (None, n))

    def note(self, guest, came):
        """A connection came, then. False: it was one too many, and all are shut out."""
        with self.lock:
            self.accepted.append((came, guest.vm.name))
            self.recent.append(came)
            while self.recent[0] < came - self.burst_s:
                self.recent.popleft()
            if self.burst is None or len(self.recent) <= self.burst:
                return True
            self.bans += 1
            self.banned_until = time.monotonic() + self.ban_s
        self.ban(True)
        timer = threading.Timer(self.ban_s, self.ban, [False])
        timer.daemon = True
        timer.start()
        return False

    def ban(self, on):
        for guest in list(self.guests):
            guest.shut(on)

    def make(self, vm):
        return Guest(self, vm)

    def close(self):
        for guest in list(self.guests):
            guest.stop()


class Guest:
    def __init__(self, front, vm):
        self.front, self.vm = front, vm
        self.mark = f"{front.folder}/{vm.name}-{len(front.accepted)}-{id(self)}"
        self.disk = Path(self.mark)
        self.disk.mkdir()
        if front.login:
            os.chown(self.disk, front.login.pw_uid, front.login.pw_gid)
        if getattr(vm, "env", None):        # of the service's image: for login shells only
            (self.disk / ".profile").write_text("".join(f"export {e}\n" for e in vm.env))
        self.config = Path(self.mark + ".conf")
        self.config.write_text(SSHD_CONFIG.format(front=front, mark=self.mark, disk=self.disk,
                                                  sftp=front.folder / "sftp"))
        self.host = front.far.host if front.far else "127.0.0.1"
        self.sock = self.bound(0)           # and not listening: it refuses
        self.port = self.sock.getsockname()[1]
        self.held = self.bound(self.port)   # nobody else gets it while the other is made anew
        self.fill = []
        self.processes = []
        self.starting = threading.Lock()    # one may serve before it stands in processes
        self.paused = self.ended = False
        self.shut_out = self.deaf = False
        front.guests.append(self)
        wait = vm.ready_at - time.monotonic()
        if wait > 0:
            timer = threading.Timer(wait, self.listen)
            timer.daemon = True
            timer.start()
        else:
            self.listen()

    def address(self):
        host = self.host if self.front.far else "localhost"
        return host, self.port, self.front.user and f"{self.front.user}+{self.vm.name}"

    def bound(self, port):
        sock = self.front.far.socket() if self.front.far else socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((self.host, port))
        return sock

    def listen(self):
        if not self.ended:
            self.sock.listen(0 if self.shut_out else 64)
            threading.Thread(target=self.serve, args=[self.sock], daemon=True).start()
            if time.monotonic() < self.front.banned_until:
                self.shut(True)

    def serve(self, sock):
        while True:
            try:
                conn, _ = sock.accept()
            except OSError:
                return
            if self.shut_out or self.paused or not self.front.note(self, came_at(conn)):
                self.fill.append(conn)      # accepted by the kernel, never answered
                continue
            env = dict(os.environ, LD_PRELOAD=str(self.front.shim))
            if self.front.user:
                env["SBX_USER"] = f"{self.front.user}+{self.vm.name}"
            if self.front.login:
                env["SBX_LOGIN"] = self.front.login.pw_name
            # Another machine, which takes no processor time from the daemon.
            with self.starting:
                self.processes.append(subprocess.Popen(
                    ["nice", "/usr/sbin/sshd", "-i", "-f", self.config, "-E",
                     str(self.config) + ".log"],
                    stdin=conn, stdout=conn, stderr=subprocess.DEVNULL, env=env))
            conn.close()

    def shut(self, on):
        """Answer no SYN (deaf, when it is so): a queue of none, and it is full."""
        if on == self.shut_out or self.ended:
            return
        self.shut_out = on
        try:
            if on:
                self.sock.shutdown(socket.SHUT_RD)      # stops the listening, ends accept
                old, self.sock = self.sock, self.bound(self.port)
                old.close()
                self.sock.listen(0)
                self.fill.append(socket.create_connection((self.host, self.port), 20))
                self.deaf = True
            else:
                self.deaf = False
                for filler in self.fill:
                    filler.close()
                self.fill = []
                self.sock.listen(64)
                threading.Thread(target=self.serve, args=[self.sock], daemon=True).start()
        except OSError:
            if not self.ended:      # else it was stopped meanwhile
                raise

    # --- processes ----------------------------------------------------------------

    def pids(self):
        mark = f"SBX_VM={self.mark}".encode() + b"\0"
        with self.starting:
            found = [p.pid for p in self.processes if p.poll() is None]
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes() + b"\0":
                    found.append(int(entry.name))
            except OSError:
                pass
        return found

    def signal(self, number):
        for pid in self.pids():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def cut(self):
        """All its connections break."""
        self.signal(signal.SIGKILL)

    def pause(self):
        self.paused = True
        self.signal(signal.SIGSTOP)

    def resume(self):
        self.paused = False
        self.signal(signal.SIGCONT)
        for conn in self.fill:
            conn.close()
        self.fill = []

    def restart(self):
        self.cut()

    def copy_from(self, other):
        shutil.copytree(other.disk, self.disk, dirs_exist_ok=True)

    def run(self, command):
        """As `ssh vm command` through /exec: both streams in one, no input."""
        env = dict(os.environ, SBX_VM=self.mark, SBX_DISK=str(self.disk))
        return subprocess.Popen(["/bin/sh", "-c", command], stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env,
                                cwd=self.disk)

    def stop(self):
        self.ended = True
        if self in self.front.guests:
            self.front.guests.remove(self)
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.sock.close()
        self.held.close()
        for conn in self.fill:
            conn.close()
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGKILL)
        for process in self.processes:
            process.wait(20)
        shutil.rmtree(self.disk, ignore_errors=True)
