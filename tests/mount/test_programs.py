"""Programs that follow a job's output, each in its own way of waiting."""

import os
import pty
import select
import shutil
import signal
import sys
import time

import pytest

from support import blocked_in, wait_until

# A command that prints `one`, and `two` when the test has touched `go`.
STEPS = "echo one; while [ ! -e go ]; do sleep 0.01; done; echo two; exit 3"


def needs(program):
    return pytest.mark.skipif(not shutil.which(program), reason=f"{program} is not installed")


def go(box):
    (box.home / "go").touch()


@pytest.fixture
def running(box):
    """A job that has printed `one` and goes on."""
    box.run(STEPS)
    wait_until(lambda: box.read("log") == "one\n")
    return box


@pytest.mark.parametrize("argv", [
    ["tail", "-f", "stdout"], ["tail", "-F", "stdout"],
    ["tail", "-n", "+1", "-f", "log"], ["tail", "-f", "log"],
    ["busybox", "tail", "-n", "+1", "-f", "log"]], ids=" ".join)
def test_tail(running, spawn, argv):
    """The line that is there, and the next one when it comes."""
    if not shutil.which(argv[0]):
        pytest.skip(f"{argv[0]} is not installed")
    tail = spawn(argv, cwd=running, stdout=-1, bufsize=0)
    assert tail.stdout.readline() == b"one\n"
    go(running)
    assert tail.stdout.readline() == b"two\n"
    assert running.exit() == "3"


@pytest.mark.parametrize("argv", [
    ["cat", "stdout"], ["dd", "if=stdout", "bs=1", "status=none"], ["dd", "if=stdout", "status=none"],
    ["head", "-n", "2", "stdout"], ["busybox", "cat", "stdout"], ["busybox", "head", "-n", "2", "stdout"],
    ["/usr/lib/cargo/bin/coreutils/cat", "stdout"], ["grep", "--line-buffered", "-v", "x", "stdout"],
    ["sed", "-u", "s/x/y/", "stdout"], ["awk", "{ print; fflush() }", "stdout"],
    ["perl", "-pe", "BEGIN { $| = 1 }", "stdout"], ["sh", "-c", "while read l; do echo $l; done <stdout"],
    ["bash", "-c", "mapfile -t a <stdout; printf '%s\\n' ${a[@]}"],
    ["node", "-e", "require('fs').createReadStream('stdout').pipe(process.stdout)"],
    [sys.executable, "-c", "print(open('stdout').read(), end='')"],
    [sys.executable, "-c", "for l in open('stdout'): print(l, end='')"],
    [sys.executable, "-c", "import pathlib; print(pathlib.Path('stdout').read_text(), end='')"],
], ids=lambda argv: os.path.basename(" ".join(argv[:2] + argv[2:3] * argv[1].startswith("-"))[:60]))
def test_reading_to_the_end(running, spawn, argv):
    if not shutil.which(argv[0]):
        pytest.skip(f"{argv[0]} is not installed")
    reader = spawn(argv, cwd=running, stdout=-1)
    time.sleep(0.1)         # most are waiting by then; whichever way, the end is the same
    go(running)
    assert reader.communicate(timeout=60)[0] == b"one\ntwo\n"
    assert reader.returncode == 0


@needs("node")
@pytest.mark.parametrize("read", ["Promise.resolve(fs.readFileSync(NAME))", "fs.promises.readFile(NAME)"])
def test_programs_that_read_what_the_size_says(running, spawn, read):
    """They get what has come; whoever reads exit first gets all."""
    script = "const fs = require('fs'), out = d => process.stdout.write(d);" \
        f"{read}.then(out).then(() => {read.replace('NAME', 'EXIT')}).then(out)" \
        f".then(() => {read}).then(out)"
    script = script.replace("NAME", "'stdout'").replace("EXIT", "'exit'")
    reader = spawn(["node", "-e", script], cwd=running, stdout=-1, bufsize=0)
    assert reader.stdout.read(4) == b"one\n"
    go(running)
    assert reader.communicate(timeout=60)[0] == b"3\none\ntwo\n"


EVENTS = """
import os, selectors, sys
s = selectors.{selector}()
for name in ("stdout", "stderr", "exit"):
    s.register(os.open(name, os.O_RDONLY | os.O_NONBLOCK), selectors.EVENT_READ, name)
while s.get_map():
    for key, _ in s.select():
        try:
            data = os.read(key.fd, 100)
        except BlockingIOError:
            continue
        if not data:
            s.unregister(key.fd)
        print(key.data, data.decode().strip() or "end", flush=True)
"""


@pytest.mark.parametrize("selector", ["SelectSelector", "PollSelector", "EpollSelector"])
def test_programs_that_wait_for_events(running, spawn, selector):
    reader = spawn([sys.executable, "-c", EVENTS.format(selector=selector)], cwd=running,
                   stdout=-1, bufsize=0)
    assert reader.stdout.readline() == b"stdout one\n"
    assert not select.select([reader.stdout], [], [], 0.1)[0]
    go(running)
    lines = sorted(reader.communicate(timeout=60)[0].decode().splitlines())
    assert lines == ["exit 3", "exit end", "stderr end", "stdout end", "stdout two"]


@needs("node")
def test_a_loop_of_node(running, spawn):
    """Streams of several jobs at once do not hold up each other, nor the loop."""
    script = """
        const fs = require('fs'), left = new Set(['stdout', 'stderr', 'exit']);
        for (const name of left)
            fs.createReadStream(name).on('data', d => console.log(name, String(d).trim()))
                .on('end', () => { left.delete(name); if (!left.size) clearInterval(t) });
        const t = setInterval(() => console.log('tick'), 50)"""
    reader = spawn(["node", "-e", script], cwd=running, stdout=-1, bufsize=0)
    lines = set()
    while lines != {b"stdout one\n", b"tick\n"}:
        lines.add(reader.stdout.readline())
        assert lines <= {b"stdout one\n", b"tick\n"}
    go(running)
    lines = reader.communicate(timeout=60)[0].splitlines()
    assert b"stdout two" in lines and b"exit 3" in lines


@needs("less")
def test_less_follows(running):
    """+F shows what comes; ^C stops following, whatever is still to come; q ends it."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(running)
        os.execvpe("less", ["less", "+F", "stdout"], dict(os.environ, TERM="xterm", LESS=""))
    seen = b""

    def until(text):
        nonlocal seen
        while text not in seen:
            assert select.select([terminal], [], [], 30)[0], seen
            seen += os.read(terminal, 4096)
        seen = seen.partition(text)[2]

    def until_it_reads():
        """A ^C between its last line and its read(2) is one that less itself forgets."""
        wait_until(lambda: blocked_in(pid, "read"))

    try:
        until(b"one")
        until_it_reads()
        os.write(terminal, b"\3")
        until(b"stdout")                # its prompt
        os.write(terminal, b"F")
        until_it_reads()
        go(running)
        until(b"two")
        os.write(terminal, b"\3")
        until(b"(END)")
        os.write(terminal, b"q")
        with pytest.raises(OSError):    # EIO: nobody has the terminal any more
            until(b"nothing ever says this")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        pid = 0
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(terminal)
