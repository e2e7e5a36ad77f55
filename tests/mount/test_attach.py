"""sbx-attach: a terminal for a job, left and come back to, over nothing but files."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from pathlib import Path

import pytest

from support import find_sbxfs

ATTACH = Path(find_sbxfs()).parent / "contrib/sbx-attach"
SHELL = "PS1='ready> ' exec bash --norc -i"
LEAVE = b"\x1d"

pytestmark = pytest.mark.skipif(not ATTACH.exists(), reason=f"{ATTACH} has not been built")


class Terminal:
    """A terminal with sbx-attach on it; text is all it has shown."""

    def __init__(self, *argv, size=(24, 80), **env):
        self.master, slave = pty.openpty()
        self.set_size(*size)
        self.before = termios.tcgetattr(slave)
        self.process = subprocess.Popen(
            [ATTACH, *argv], stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env=dict(os.environ, TERM="xterm", **env))
        self.slave = slave
        self.text = b""

    def set_size(self, rows, cols):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def type(self, data):
        os.write(self.master, data)

    def read(self, timeout):
        if select.select([self.master], [], [], timeout)[0]:
            self.text += os.read(self.master, 65536)
            return True
        return False

    def wait(self, text):
        """Until it has shown that; then all before it is forgotten."""
        end = time.monotonic() + 30
        while text not in self.text:
            assert self.read(end - time.monotonic()), self.text
        self.text = self.text[self.text.index(text) + len(text):]

    def exit(self):
        """Its status; the terminal is as it was."""
        while self.process.poll() is None:      # a terminal that nobody reads holds it up
            self.read(0.01)
        while self.read(0):
            pass
        assert termios.tcgetattr(self.slave) == self.before
        return self.process.returncode

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for fd in (self.master, self.slave):
            if fd >= 0:
                os.close(fd)


@pytest.fixture
def terminal():
    all_of_them = []

    def make(*argv, **kwargs):
        all_of_them.append(Terminal(*argv, **kwargs))
        return all_of_them[-1]

    yield make
    for one in all_of_them:
        one.close()


def test_a_shell_of_its_own(box, terminal):
    """The login shell, on a terminal of this size and type; its exit status is ours."""
    t = terminal(box)
    t.type(b"tty; echo size $(stty size) $TERM; exit 7\n")
    t.wait(b"/dev/pts/")
    t.wait(b"size 24 80 xterm\r\n")
    assert t.exit() == 7
    assert box.read("jobs/shell/status") == "exited 7\n"


def test_keys_and_job_control(box, terminal):
    """^C ends what runs, not the shell; every byte but the key to leave arrives."""
    t = terminal("-c", SHELL, box)
    t.wait(b"ready> ")
    t.type(b"sh -c 'echo up; exec sleep 1000'\n")
    t.wait(b"\rup\r\n")
    t.type(b"\3")
    t.wait(b"^C")
    t.wait(b"ready> ")
    t.type(b"sh -c 'echo up; exec cat -v'\n")
    t.wait(b"\rup\r\n")
    t.type("käse\t\x1b[A".encode() + b"\x16\x03\n")
    t.wait(b"kM-CM-$se\t^[[A^C\r\n")
    t.type(b"\4")
    t.wait(b"ready> ")
    t.type(b"\4")
    assert t.exit() == 0


def test_resize(box, terminal):
    t = terminal("-c", "trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done", box)
    t.wait(b"ready")
    t.set_size(50, 132)
    t.wait(b"50 132\r\n")
    assert box.read("jobs/shell/tty").split()[0] == "132x50"


def test_leave_and_come_back(box, terminal):
    """The job goes on, and another terminal shows the screen and takes over."""
    t = terminal("-c", SHELL, box)
    t.wait(b"ready> ")
    t.type(b"x=kept; echo before\n")
    t.wait(b"\rbefore\r\n")
    t.wait(b"ready> ")
    t.type(LEAVE)
    t.wait(b"[job shell goes on; sbx-attach " + str(box.path).encode() + b" shell comes back")
    assert t.exit() == 0
    assert box.read("jobs/shell/status") == "running\n"

    again = terminal(box, size=(30, 100))
    again.wait(b"\rbefore\r\n")
    again.type(b"echo $x $(stty size)\n")
    again.wait(b"\rkept 30 100\r\n")
    third = terminal(box, "shell")
    third.wait(b"\rkept 30 100\r\n")
    third.type(b"exit 9\n")
    assert (again.exit(), third.exit()) == (9, 9)


def test_the_screen_of_a_program(box, terminal):
    """Modes are left with the terminal and found again; questions are not asked twice."""
    draw = r"printf '\033[?1049h\033[?25l\033[c\033]11;?\007screen\n'"
    t = terminal("-c", draw + "; exec cat", box)
    t.wait(b"\x1b[?1049h\x1b[?25l\x1b[c\x1b]11;?\7screen\r\n")
    t.type(LEAVE)
    t.wait(b"\x1b[?1049l\x1b[?25h")
    assert t.exit() == 0
    again = terminal(box)
    again.wait(b"\x1b[?1049h\x1b[?25lscreen\r\n")


def test_a_long_output_is_shown_from_near_its_end(box, terminal):
    t = terminal("-c", r"printf '\033[?2004h'; seq 100000; " + SHELL, box)
    t.wait(b"ready> ")
    t.type(LEAVE)
    t.exit()
    again = terminal(box)
    again.wait(b"ready> ")
    again.type(b"echo on\n")
    again.wait(b"\ron\r\n")
    again.type(LEAVE)
    again.exit()
    last = terminal(box)
    last.wait(b"100000\r\n")
    assert b"\n50000\r\n" not in last.text


def test_a_terminal_that_goes_leaves_the_job(box, terminal):
    t = terminal("-c", SHELL, box)
    t.wait(b"ready> ")
    os.close(t.slave)
    os.close(t.master)
    t.master = t.slave = -1
    t.process.wait(60)
    assert box.read("jobs/shell/status") == "running\n"
    again = terminal(box)
    again.type(b"exit\n")
    assert again.exit() == 0


def test_which_job(box, terminal):
    """A name of one's own, a new one, and those that are over."""
    t = terminal("-c", SHELL, box, "mine")
    t.wait(b"ready> ")
    assert box.read("jobs/mine/status") == "running\n"
    first, second = terminal("-n", "-c", SHELL, box), None
    first.wait(b"ready> ")
    second = terminal("-n", "-c", SHELL, box)
    second.wait(b"ready> ")
    assert box.latest() == "shell-2"
    for one in (t, first, second):
        one.type(b"exit 3\n")
        assert one.exit() == 3
    over = terminal(box, "mine")
    over.wait(b"exit")
    assert over.exit() == 3
    third = terminal("-c", SHELL, box)
    third.wait(b"ready> ")
    assert box.latest() == "shell-3"


def test_another_key_to_leave(box, terminal):
    t = terminal("-e", "^a", "-c", "cat -v", box)
    t.type(LEAVE + b"\n")
    t.wait(b"\r\n^]\r\n")
    t.type(b"\1")
    assert t.exit() == 0
    assert box.read("jobs/shell/status") == "running\n"


def test_a_sandbox_that_boots(mount, terminal):
    box = mount.box(None, "boot 3600000", wait=False)
    t = terminal(box)
    t.wait(b"is booting; ^C gives up]")
    t.type(b"\3")
    assert t.exit() == 130
    assert box.read("jobs/shell/exit") == "cancelled\n"
    again = terminal("-c", "echo started; exit 4", box)
    again.wait(b"is booting")
    box.control("boot 0")
    again.wait(b"started")
    assert again.exit() == 4
    box.destroy()


def test_lost_is_255_with_a_sentence(box, terminal):
    t = terminal("-c", SHELL, box)
    t.wait(b"ready> ")
    box.control("cut")
    t.wait(b"sbx-attach: job shell is lost")
    assert t.exit() == 255


def test_a_sandbox_that_is_renamed(mount, terminal):
    box = mount.box()
    t = terminal("-c", SHELL, box)
    t.wait(b"ready> ")
    os.rename(box, mount / f"{box.name}-renamed")
    t.set_size(31, 101)
    t.type(b"stty size; exit 6\n")
    t.wait(b"31 101\r\n")
    assert t.exit() == 6
    os.rmdir(mount / f"{box.name}-renamed")


def test_a_lot_at_once(box, terminal):
    """More than the job takes waits; nothing is lost of what a slow program is given."""
    t = terminal("-c", "stty raw -echo; echo ready; head -c 200000 | cksum; cksum --version >&2", box)
    t.wait(b"ready")
    data = bytes(range(32, 127)) * 2200
    view = memoryview(data[:200000])
    while view:
        if select.select([], [t.master], [], 10)[1]:
            view = view[os.write(t.master, view[:4000]):]
    want = subprocess.run(["cksum"], input=data[:200000], capture_output=True).stdout.split()
    t.wait(b" ".join(want))


def test_refusals(box, terminal, tmp_path):
    def says(*argv, **env):
        t = terminal(*argv, **env)
        assert t.exit() == 255
        return t.text.decode()

    box.run("sleep 1000")
    assert "has no terminal: read its stdout" in says(box, box.latest())
    assert "no sandbox no-such-box: give its path" in says("no-such-box")
    assert "usage:" in says()
    assert "-e takes a control key" in says("-e", "x", box)
    assert "a job's name is made of" in says(box, "bad name")
    done = subprocess.run([ATTACH, box], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 255 and "this is no terminal; sbx-run(1)" in done.stderr
    box.write("jobs/latest/ctl", "kill\n")


def test_found_by_name(box, terminal):
    t = terminal("-c", "echo here", box.name, SBXFS_ROOT=str(box.mount.path))
    t.wait(b"here")
    assert t.exit() == 0
