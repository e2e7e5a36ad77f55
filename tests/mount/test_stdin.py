"""stdin of a job: kept until it starts, delivered in order, ended when nobody holds it."""

import errno
import hashlib
import os
import signal
import subprocess
from pathlib import Path

import pytest

from support import blocked_in_write, read_all, refused, sanitized, wait_until, write, write_all

LONG = 3600 * 1000


def test_nobody_holds_it_so_it_is_empty(box):
    """No command ever waits for input that nobody is going to give."""
    box.run("cat; echo end")
    assert box.out() == "end\n"


def test_written_before_the_start_of_a_named_job(box):
    os.mkdir(box / "jobs/sum")
    box.write("jobs/sum/stdin", "one\n")
    box.write("jobs/sum/stdin", "two\n")
    box.write("jobs/sum/cmd", "cat -n")
    assert box.read("jobs/sum/stdout") == "     1\tone\n     2\ttwo\n"


def test_written_while_the_sandbox_boots(mount):
    box = mount.box(None, f"boot {LONG}", wait=False)
    box.run("cat")
    box.write("stdin", "kept\n")
    box.control("boot 0")
    assert box.out() == "kept\n"
    box.destroy()


def test_held_open_at_the_start(box):
    """The end comes at the last close, not before."""
    os.mkdir(box / "jobs/talk")
    stdin = os.open(box / "jobs/talk/stdin", os.O_WRONLY)
    box.write("jobs/talk/cmd", "while read line; do echo got $line; done; echo end")
    out = os.open(box / "jobs/talk/stdout", os.O_RDONLY)
    for word in (b"a", b"b", b"c"):
        os.write(stdin, word + b"\n")
        assert os.read(out, 100) == b"got " + word + b"\n"
    second = os.open(box / "jobs/talk/stdin", os.O_WRONLY)
    os.close(stdin)
    os.write(second, b"d\n")
    assert os.read(out, 100) == b"got d\n"
    os.close(second)
    assert read_all(out) == b"end\n"
    os.close(out)


def test_the_collecting_job_of_an_open_cmd(box):
    """Its views are those of the job that is being written."""
    cmd = os.open(box / "cmd", os.O_WRONLY)
    os.write(cmd, b"tr a-z A-Z")
    box.write("stdin", "hello\n")
    os.close(cmd)
    assert box.out() == "HELLO\n"


def test_a_pipe_into_it(box):
    script = "mkdir jobs/p && (echo sort > jobs/p/cmd; printf 'b\\na\\n') > jobs/p/stdin"
    subprocess.run(["sh", "-c", script], cwd=box, check=True)
    assert box.read("jobs/p/stdout") == "a\nb\n"


@pytest.mark.parametrize("held", [True, False])
def test_large_input(box, held):
    data = os.urandom(5 << 20)
    os.mkdir(box / "jobs/sum")
    fd = os.open(box / "jobs/sum/stdin", os.O_WRONLY)
    if held:
        box.write("jobs/sum/cmd", "sha256sum")
    write_all(fd, data)
    os.close(fd)
    if not held:
        box.write("jobs/sum/cmd", "sha256sum")
    assert box.read("jobs/sum/stdout").split()[0] == hashlib.sha256(data).hexdigest()


def test_input_is_kept_and_goes_on(box):
    """What was written before the start and what is written after it arrive in order."""
    os.mkdir(box / "jobs/order")
    fd = os.open(box / "jobs/order/stdin", os.O_WRONLY)
    want = b""
    for n in range(200):
        if n == 100:
            box.write("jobs/order/cmd", "cat")
        line = b"%d\n" % n
        want += line
        write_all(fd, line)
    os.close(fd)
    assert box.read_bytes("jobs/order/stdout") == want


def test_every_byte(box):
    data = bytes(range(256)) * 10
    os.mkdir(box / "jobs/bytes")
    write(box / "jobs/bytes/stdin", data)
    box.write("jobs/bytes/cmd", "cat")
    assert box.read_bytes("jobs/bytes/stdout") == data


def test_a_command_that_does_not_read(box, spawn):
    """The writer waits, can be interrupted, and is told when the job is over."""
    os.mkdir(box / "jobs/deaf")
    fd = os.open(box / "jobs/deaf/stdin", os.O_WRONLY)
    box.write("jobs/deaf/cmd", "while [ ! -e go ]; do sleep 0.01; done")
    wait_until(lambda: box.read("jobs/deaf/status") == "running\n")
    writer = spawn(["cat", "/dev/zero"], stdout=fd)
    wait_until(lambda: blocked_in_write(writer))
    writer.send_signal(signal.SIGINT)
    assert writer.wait(60) == -signal.SIGINT
    os.set_blocking(fd, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(fd, b"x" * 65536)
    (box.home / "go").touch()
    assert box.read("jobs/deaf/exit") == "0\n"
    refused(errno.EPIPE, os.write, fd, b"x")
    os.close(fd)


def test_a_finished_job_takes_nothing(box):
    box.run("true")
    box.exit()
    fd = os.open(box / "stdin", os.O_WRONLY)
    refused(errno.EPIPE, os.write, fd, b"late\n")
    os.close(fd)


def test_no_job_takes_nothing(box):
    with pytest.raises(OSError) as caught:
        write(box / "stdin", "early\n")
    assert caught.value.errno in (errno.EPIPE, errno.ENOENT)


def test_eof_by_ctl(box):
    """`eof` ends the input, whoever holds it open."""
    os.mkdir(box / "jobs/x")
    fd = os.open(box / "jobs/x/stdin", os.O_WRONLY)
    box.write("jobs/x/cmd", "cat; echo end")
    write_all(fd, b"text\n")
    box.write("jobs/x/ctl", "eof\n")
    assert box.read("jobs/x/stdout") == "text\nend\n"
    refused(errno.EPIPE, os.write, fd, b"more\n")
    os.close(fd)


def test_a_killed_writer_ends_the_input(box, spawn):
    os.mkdir(box / "jobs/x")
    writer = spawn(["sh", "-c", "exec 3> jobs/x/stdin; echo one >&3; echo; read never"], cwd=box,
                   stdin=-1, stdout=-1)
    assert writer.stdout.readline() == b"\n"
    box.write("jobs/x/cmd", "cat; echo end")
    wait_until(lambda: box.read("jobs/x/log") == "one\n")
    writer.kill()
    assert box.read("jobs/x/stdout") == "one\nend\n"


def memory(mount, what):
    """VmRSS, or VmHWM: the most so far, in bytes."""
    for line in Path(f"/proc/{mount.process.pid}/status").read_text().splitlines():
        if line.startswith(what + ":"):
            return int(line.split()[1]) * 1024
    raise AssertionError(what)


@pytest.mark.deadline(1000)
def test_a_long_pipe_arrives_whole_in_bounded_memory(own_mount, spawn):
    """Through `cat > out` of a guest that stops reading in the middle: the writer waits, only it."""
    box = own_mount.box()
    size = int(os.environ.get("SBXFS_TEST_STDIN_MIB", 96)) << 20
    os.mkdir(box / "jobs/pipe")
    stdin = os.open(box / "jobs/pipe/stdin", os.O_WRONLY)
    box.write("jobs/pipe/cmd", "head -c 1000000 > out; touch stopped; while [ ! -e go ]; do sleep 0.01; done;"
                               "cat >> out; sha256sum < out")
    wait_until(lambda: box.read("jobs/pipe/status") == "running\n")
    before = memory(own_mount, "VmHWM")
    source = spawn(["openssl", "enc", "-aes-128-ctr", "-pbkdf2", "-pass", "pass:x", "-nosalt", "-in",
                    "/dev/zero"], stdout=-1, stderr=subprocess.DEVNULL)
    tee = spawn(["sh", "-c", f"head -c {size} | tee /dev/fd/3 | sha256sum", "sh"],
                stdin=source.stdout, stdout=-1, close_fds=False,
                preexec_fn=lambda: os.dup2(stdin, 3))
    source.stdout.close()
    os.close(stdin)
    wait_until(lambda: (box.home / "stopped").exists())
    assert box.ask("echo quick") == b"quick\n"
    assert box.status() == "running"
    assert tee.poll() is None
    (box.home / "go").touch()
    want = tee.communicate(timeout=900)[0].split()[0]
    assert box.read_bytes("jobs/pipe/stdout").split()[0] == want
    assert (box.home / "out").stat().st_size == size
    grown = memory(own_mount, "VmHWM") - before
    print(f"{size >> 20} MiB: {grown >> 10} KiB more at most")
    if not sanitized():
        assert grown < 16 << 20
