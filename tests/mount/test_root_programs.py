"""Programs that people use, working below root/."""

import fcntl
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import termios
import time

import pytest


def needs(program):
    return pytest.mark.skipif(not shutil.which(program), reason=f"{program} is not installed")


def run(*argv, **kwargs):
    """The program works and says nothing on standard error."""
    r = subprocess.run(argv, capture_output=True, text=True, timeout=60, **kwargs)
    assert r.returncode == 0 and r.stderr == "", (argv, r.returncode, r.stderr, r.stdout)
    return r.stdout


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

    def wait_for(self, pattern, timeout=20):
        end = time.monotonic() + timeout
        while not re.search(pattern, self.seen):
            ready, _, _ = select.select([self.fd], [], [], max(0, end - time.monotonic()))
            assert ready, self.seen
            self.seen += os.read(self.fd, 65536)

    def type(self, keys):
        self.seen = b""
        os.write(self.fd, keys)

    def end(self, timeout=20):
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


# --- editors ---------------------------------------------------------------------------

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
                           capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
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


# --- git, databases, archives -----------------------------------------------------------------

@needs("git")
def test_git(d, h, tmp_path):
    env = dict(os.environ, HOME=str(tmp_path), GIT_CONFIG_NOSYSTEM="1", LC_ALL="C",
               GIT_AUTHOR_NAME="a", GIT_AUTHOR_EMAIL="a@b", GIT_COMMITTER_NAME="a",
               GIT_COMMITTER_EMAIL="a@b")
    (tmp_path / ".gitconfig").write_text("[init]\ndefaultBranch = main\n[safe]\ndirectory = *\n")

    def git(*args, where=None):
        return run("git", *args, cwd=where or d / "repo", env=env)

    git("init", "-q", "repo", where=d)
    for n in range(40):
        (d / "repo" / f"file-{n}").write_text(f"{n}\n" * n)
    os.symlink("file-1", d / "repo/link")
    (d / "repo/script").write_text("#!/bin/sh\n")
    os.chmod(d / "repo/script", 0o755)
    git("add", ".")
    git("commit", "-q", "-m", "one")
    assert git("status", "--porcelain") == ""
    (d / "repo/file-3").write_text("changed\n")
    assert git("status", "--porcelain") == " M file-3\n"
    git("commit", "-q", "-am", "two")
    git("checkout", "-q", "-b", "side", "HEAD~1")
    (d / "repo/file-4").write_text("side\n")
    git("commit", "-q", "-am", "three")
    git("rebase", "-q", "main")
    git("gc", "-q", "--prune=now")
    git("fsck", "--strict", "--no-progress")
    git("worktree", "add", "-q", "--detach", "../tree")
    run("git", "clone", "-q", "repo", "clone", cwd=d, env=env)
    assert git("log", "--format=%s", where=d / "clone") == "three\ntwo\none\n"
    assert git("status", "--porcelain", where=d / "clone") == ""
    assert os.readlink(d / "clone/link") == "file-1"
    # and in the guest it is a repository as well
    assert run("git", "fsck", "--no-progress", "--no-dangling", cwd=h / "clone", env=env) == ""
    assert run("git", "status", "--porcelain", cwd=h / "clone", env=env) == ""


@needs("sqlite3")
@pytest.mark.parametrize("journal", ["delete", "truncate", "persist", "wal"])
def test_sqlite(d, h, journal):
    def sql(text):
        return run("sqlite3", "-bail", str(d / "db"), text)

    sql(f"pragma journal_mode={journal}; create table t(n integer primary key, s text);"
        "begin; with recursive c(n) as (select 1 union all select n+1 from c where n<2000) "
        "insert into t select n, hex(randomblob(50)) from c; commit;")
    sql("update t set s = upper(s); delete from t where n % 3 = 0; vacuum;")
    assert sql("pragma integrity_check; select count(*) from t;") == "ok\n1334\n"
    assert run("sqlite3", str(h / "db"), "pragma integrity_check; select count(*) from t;") == \
        "ok\n1334\n"


@pytest.fixture
def sample(tmp_path):
    """A tree with a bit of everything that root/ keeps."""
    t = tmp_path / "sample"
    (t / "sub/deeper").mkdir(parents=True)
    for n in range(60):
        p = t / ("sub" if n % 2 else "sub/deeper") / f"f{n}"
        p.write_bytes(os.urandom(n * n * 40))
        os.chmod(p, 0o600 | (n % 8) << 3)
        os.utime(p, (1000000000 + n, 1100000000 + n))
    os.symlink("sub/f1", t / "link")
    os.link(t / "sub/f3", t / "hard")
    (t / "empty").mkdir()
    for n, name in enumerate((".", "empty", "sub/deeper", "sub")):
        os.utime(t / name, (1, 1200000000 + n))
    os.utime(t / "link", (1, 1300000000), follow_symlinks=False)
    return t


def same(a, b):
    assert run("diff", "-r", "--no-dereference", a, b) == ""
    for where, folders, files in os.walk(a):
        for name in folders + files:
            x, y = os.lstat(os.path.join(where, name)), \
                os.lstat(os.path.join(where.replace(str(a), str(b), 1), name))
            assert (x.st_mode, x.st_mtime) == (y.st_mode, y.st_mtime), (where, name)


@needs("tar")
def test_tar(d, h, sample):
    run("tar", "-C", sample.parent, "-cf", d / "t.tar", "sample")
    run("tar", "-C", d, "-xpf", d / "t.tar")
    same(sample, d / "sample")
    same(sample, h / "sample")
    assert os.stat(h / "sample/hard").st_ino == os.stat(h / "sample/sub/f3").st_ino


def test_cp_a(d, h, sample):
    run("cp", "-a", sample, d / "copy")
    same(sample, h / "copy")
    run("cp", "-a", d / "copy", d / "again")
    same(sample, d / "again")


@needs("rsync")
def test_rsync(d, h, sample):
    run("rsync", "-aH", f"{sample}/", f"{d}/r/")
    same(sample, h / "r")
    # nothing is to be done the second time
    assert run("rsync", "-aHi", f"{sample}/", f"{d}/r/") == ""
    (sample / "sub/f5").write_text("changed")
    assert "sub/f5" in run("rsync", "-aHi", f"{sample}/", f"{d}/r/")
    assert (h / "r/sub/f5").read_text() == "changed"


def test_rm_and_find(d, h, sample):
    shutil.copytree(sample, h / "t", symlinks=True)
    assert run("sh", "-c", "find . | sort", cwd=d / "t") == \
        run("sh", "-c", "find . | sort", cwd=h / "t")
    run("rm", "-r", d / "t")
    assert os.listdir(h) == []
    shutil.copytree(sample, h / "t", symlinks=True)
    shutil.rmtree(d / "t")
    assert os.listdir(h) == []


@needs("make")
@needs("gcc")
def test_make_and_cc(d, h):
    (d / "main.c").write_text('#include "say.h"\nint main(void) { return say(); }\n')
    (d / "say.h").write_text("int say(void);\n")
    (d / "say.c").write_text('#include <stdio.h>\n#include "say.h"\n'
                             'int say(void) { puts("built"); return 0; }\n')
    (d / "Makefile").write_text("prog: main.o say.o\n\tgcc -o $@ main.o say.o\n"
                                "%.o: %.c say.h\n\tgcc -c -o $@ $<\n")
    run("make", "-j2", cwd=d)
    assert run(d / "prog") == "built\n"
    assert "up to date" in run("make", cwd=d)
    # everything was made long ago, but this
    for name in os.listdir(d):
        os.utime(d / name, (1000000000, 1000000000))
    (d / "say.c").write_text((d / "say.c").read_text().replace("built", "again"))
    run("make", cwd=d)
    assert run(h / "prog") == "again\n"


def test_locks_are_kept_among_users_of_the_mount(d):
    with open(d / "f", "w") as a, open(d / "f", "w") as b:
        fcntl.flock(a, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            fcntl.flock(b, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(a, fcntl.LOCK_UN)
        fcntl.flock(b, fcntl.LOCK_EX | fcntl.LOCK_NB)
