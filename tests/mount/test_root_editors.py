"""Editors and what else saves files, working below root/."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

import pytest

from support import needs, run


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, *argv):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update(TERM="xterm", HOME="/nonexistent")
            os.execvp(argv[0], argv)
        # wide: no message is broken over lines
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("4H", 50, 400, 0, 0))
        self.seen = b""

    def wait_for(self, pattern, timeout=60):
        end = time.monotonic() + timeout
        while not re.search(pattern, self.seen):
            ready, _, _ = select.select([self.fd], [], [], max(0, end - time.monotonic()))
            assert ready, self.seen
            self.seen += os.read(self.fd, 65536)

    def type(self, keys):
        self.seen = b""
        os.write(self.fd, keys)

    def end(self, timeout=60):
        """Wait for the program's end: its status."""
        end = time.monotonic() + timeout
        try:
            while select.select([self.fd], [], [], max(0, end - time.monotonic()))[0]:
                os.read(self.fd, 65536)
        except OSError:     # the program has gone
            pass
        else:
            os.kill(self.pid, signal.SIGKILL)
        return self.reap()

    def reap(self):
        os.close(self.fd)
        self.fd = -1
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def terminal():
    started = []

    def start(*argv):
        started.append(Terminal(*map(str, argv)))
        return started[-1]

    yield start
    for t in started:
        if t.fd >= 0:
            os.kill(t.pid, signal.SIGKILL)
            t.reap()


@needs("vim")
@pytest.mark.parametrize("options", [
    "set nobackup nowritebackup noswapfile", "set backup backupcopy=no undofile swapfile",
    "set writebackup backupcopy=yes", "set writebackup backupcopy=auto",
])
def test_vim(d, h, options):
    (h / "motd").write_text("line one\nline two\n")
    os.chmod(h / "motd", 0o640)
    for word in ("uno", "eins"):
        r = subprocess.run(["vim", "-u", "NONE", "-es", "--cmd", options, "-c", "set nocp",
                            "-c", f"%s/line \\S*/line {word}/", "-c", "wq", d / "motd"],
                           capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert r.returncode == 0, r.stdout + r.stderr
        assert (h / "motd").read_text() == f"line {word}\nline {word}\n"
        assert (d / "motd").read_text() == f"line {word}\nline {word}\n"
    assert os.stat(h / "motd").st_mode & 0o777 == 0o640
    left = set(os.listdir(h)) - {"motd", "motd~", ".motd.un~"}
    assert not left


@needs("vim")
def test_vim_on_a_terminal_with_swap_file(d, h, terminal):
    (h / "f").write_text("text\n")
    vim = terminal("vim", "-u", "NONE", d / "f")
    vim.wait_for(rb"text")
    assert (h / ".f.swp").exists()
    vim.type(b"ihello \x1b:w\r")
    vim.wait_for(rb"written")
    assert (h / "f").read_text() == "hello text\n"
    vim.type(b":q\r")
    assert vim.end() == 0
    assert os.listdir(h) == ["f"]


@needs("nano")
def test_nano(d, h, terminal):
    (h / "f").write_text("text\n")
    nano = terminal("nano", "-I", d / "f")
    nano.wait_for(rb"text")
    nano.type(b"hello ")
    nano.wait_for(rb"hello ")
    nano.type(b"\x0f\r")            # ^O, Enter
    nano.wait_for(rb"Wrote")
    assert (h / "f").read_text() == "hello text\n"
    nano.type(b"\x18")              # ^X
    assert nano.end() == 0


@needs("emacs")
def test_emacs(d, h, terminal):
    (h / "f").write_text("text\n")
    os.symlink("f", h / "link")
    for name, text in (("f", "text\n"), ("link", "hello text\n"), ("new", "")):
        # (below /tmp it makes no backups by itself)
        emacs = terminal("emacs", "-Q", "-nw", "--eval", "(setq backup-enable-predicate 'identity)",
                         d / name)
        emacs.wait_for(rb"All|Top")
        emacs.type(b"hello \x18\x13")  # C-x C-s
        emacs.wait_for(rb"Wrote")
        assert (h / name).read_text() == "hello " + text
        emacs.type(b"\x18\x03")
        assert emacs.end() == 0
    assert os.path.islink(h / "link")
    assert (h / "f~").read_text() == "hello text\n"
    assert not [n for n in os.listdir(h) if n.startswith((".#", "#"))]


def test_sed_and_mv_and_redirections(d, h):
    (h / "f").write_text("one\ntwo\n")
    run("sed", "-i", "s/two/three/", d / "f")
    assert (h / "f").read_text() == "one\nthree\n"
    run("sed", "-i.bak", "1d", d / "f")
    assert (h / "f.bak").read_text() == "one\nthree\n"
    run("mv", d / "f", d / "f.bak")
    assert (h / "f.bak").read_text() == "three\n"
    run("sh", "-c", "echo a > x; echo b >> x; cat < x > y; : > x; cp y z; cmp y z; tee x < y",
        cwd=d)
    assert (h / "y").read_text() == (h / "x").read_text() == "a\nb\n"


# --- saving by programs: a new file beside, renamed over the old one ---------------------------

def test_atomic_writes_of_python(d, h):
    """tempfile in the same folder, fsync of file and folder, os.replace."""
    (h / "f.json").write_text("old")
    os.chmod(h / "f.json", 0o600)
    run("/usr/bin/python3", "-c", """if True:
        import json, os, shutil, sys, tempfile
        path = sys.argv[1]
        for n in range(20):
            with tempfile.NamedTemporaryFile("w", dir=os.path.dirname(path), delete=False) as f:
                json.dump({"n": n}, f)
                f.flush()
                os.fsync(f.fileno())
            shutil.copystat(path, f.name)
            os.replace(f.name, path)
            folder = os.open(os.path.dirname(path), os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)
            assert json.load(open(path)) == {"n": n}
        """, d / "f.json")
    assert (h / "f.json").read_text() == '{"n": 19}'
    assert os.listdir(h) == ["f.json"]
    assert os.stat(h / "f.json").st_mode & 0o777 == 0o600


@needs("node")
def test_atomic_writes_of_node(d, h):
    """As write-file-atomic does it: a file beside, its mode and owner set, fsync, rename."""
    (h / "f.json").write_text("old")
    os.chmod(h / "f.json", 0o640)
    run("node", "-e", """
        const fs = require('fs'), path = process.argv[1];
        async function save(n) {
            const beside = `${path}.${process.pid}${n}`, was = fs.statSync(path);
            const file = await fs.promises.open(beside, 'wx', was.mode);
            await file.writeFile(JSON.stringify({n}));
            await file.chown(was.uid, was.gid);
            await file.chmod(was.mode);
            await file.sync();
            await file.close();
            await fs.promises.rename(beside, path);
        }
        (async () => {
            for (let n = 0; n < 20; n++) await save(n);
            fs.writeFileSync(path + '.plain', 'plain', {flag: 'wx'});
            fs.appendFileSync(path + '.plain', ' more');
            fs.copyFileSync(path, path + '.copy', fs.constants.COPYFILE_EXCL);
            await Promise.all([...Array(50).keys()].map(
                n => fs.promises.writeFile(`${path}-${n}`, 'x'.repeat(n * 1000))));
        })()""", d / "f.json")
    assert (h / "f.json").read_text() == (h / "f.json.copy").read_text() == '{"n":19}'
    assert os.stat(h / "f.json").st_mode & 0o777 == 0o640
    assert (h / "f.json.plain").read_text() == "plain more"
    assert [os.stat(h / f"f.json-{n}").st_size for n in range(50)] == [n * 1000 for n in range(50)]
    assert len(os.listdir(h)) == 53
