"""What is refused: the errno, a sentence that helps, and nothing has changed.

The sentence is in `error` and, where the file can be read, comes back from the handle that wrote.
"""

import errno
import os

import pytest

from support import read_all, refused, write

WAIT = "while [ ! -e go ]; do sleep 0.01; done"
TIMES = ["soon", "1.5s", "-1s", "1h 30m", "5 m", "30m1h", "5x", "h", "99999999d", "5m\n6m"]
ENVIRONMENTS = ["A", "=1", "1A=x", "A B=x", "A-B=x", "GOOD=1\nbad\n", "A=1\0B=2"]

VALUES = [(name, bad, errno.EINVAL, says) for name, says, all_of_them in (
    ("timeout", "30s", TIMES),
    ("env", "NAME=VALUE", ENVIRONMENTS[:-1]), ("env", "NUL", ENVIRONMENTS[-1:]),
    ("cwd", "one line", ["/a\n/b"]), ("cwd", "NUL", ["/a\0b"]),
    ("tty", "80x24", ["80", "0x0", "-1x24", "80x24x3", "huge", "80x65536"]),
) for bad in all_of_them] + [
    ("cwd", "/" + "x" * 4096, errno.ENAMETOOLONG, "longer than a path"),
    ("env", "A=" + "x" * (1 << 20), errno.EFBIG, "524288 bytes"),
]
VERBS = [
    ("explode", errno.EINVAL, "explode"), ("\n\n", errno.EINVAL, "no verb"),
    ("signal", errno.EINVAL, "signal"), ("signal NOPE", errno.EINVAL, "signal"),
    ("signal 9", errno.EINVAL, "signal"), ("signal TERM; reboot", errno.EINVAL, "signal"),
    ("kill me", errno.EINVAL, "kill"), ("KILL", errno.EINVAL, "kill"),
]


def refuse(box, path, data, number, says):
    """By a write, with the sentence behind it, and by a rename."""
    data = data.encode()
    fd = os.open(path, os.O_RDWR)
    refused(number, os.write, fd, data)
    assert says in read_all(fd).decode()
    os.close(fd)
    assert says in box.error()
    beside = path.with_name("beside")
    write(beside, data + b"\n", os.O_CREAT)
    refused(number, os.rename, beside, path)
    assert says in box.error()
    assert beside.read_bytes() == data + b"\n"
    os.unlink(beside)


@pytest.mark.parametrize("name, bad, number, says", VALUES,
                         ids=[f"{name}-{bad[:20]!r}" for name, bad, *_ in VALUES])
def test_values(box, name, bad, number, says):
    os.mkdir(box / "jobs/x")
    for folder in (box.path, box / "jobs/x"):
        if name not in os.listdir(folder):
            continue
        before = (folder / name).read_bytes()
        refuse(box, folder / name, bad, number, says)
        assert (folder / name).read_bytes() == before


@pytest.mark.parametrize("verb, number, says", VERBS, ids=[repr(verb[0]) for verb in VERBS])
def test_verbs(box, verb, number, says):
    box.run(WAIT)
    box.wait_job("running")
    refuse(box, box / "jobs/latest/ctl", verb, number, says)
    assert box.job_status() == "running"
    (box.home / "go").touch()
    assert box.exit() == "0"


def test_a_cwd_that_does_not_exist(box):
    """127, as a shell that finds nothing; the shell's own sentence; nothing has run."""
    for text in ("echo ran", "#!/bin/sh\necho ran\n", "echo ran" + " " * 20000):
        os.mkdir(box / "jobs/x")
        box.write("jobs/x/cwd", "/no/such folder")
        box.write("jobs/x/cmd", text)
        assert box.read("jobs/x/exit") == "127\n"
        assert box.read("jobs/x/stdout") == ""
        assert "/no/such folder" in box.read("jobs/x/stderr")
        os.rmdir(box / "jobs/x")


def test_a_script_over_the_limit(box):
    """EFBIG at the write that goes over it; nothing runs, also not the first 16 MiB."""
    fd = os.open(box / "cmd", os.O_RDWR)
    chunk = b"touch ran\n" * 1000
    with pytest.raises(OSError) as caught:
        while True:
            os.write(fd, chunk)
    assert caught.value.errno == errno.EFBIG
    assert b"16777216 bytes" in os.read(fd, 1000)
    os.close(fd)
    assert box.exit() == "cancelled"
    assert "refused" in box.read("jobs/latest/info")
    assert box.ask("ls") == b""
    write(box / "beside", chunk, os.O_CREAT)
    fd = os.open(box / "beside", os.O_WRONLY | os.O_APPEND)
    with pytest.raises(OSError) as caught:
        for _ in range(2000):
            os.write(fd, chunk)
    assert caught.value.errno == errno.EFBIG
    os.close(fd)
    os.truncate(box / "beside", (16 << 20) + 1)
    refused(errno.EFBIG, os.rename, box / "beside", box / "cmd")
    assert "16777216 bytes" in box.error() and box.ask("ls") == b""


@pytest.mark.parametrize("after", ["its end", "eof", "a kill"])
def test_input_of_a_job_that_takes_none(box, after):
    box.run("true" if after == "its end" else WAIT)
    job = box.latest()
    if after == "its end":
        box.exit()
    else:
        os.mkdir(box / "jobs/x")
        job = "x"
        fd = os.open(box / "jobs/x/stdin", os.O_WRONLY)
        box.write("jobs/x/cmd", "cat >/dev/null;" + WAIT)
        box.write("jobs/x/ctl", "eof" if after == "eof" else "kill")
        if after == "a kill":
            box.read("jobs/x/exit")
        refused(errno.EPIPE, os.write, fd, b"late\n")
        os.close(fd)
        refused(errno.EPIPE, box.write, "jobs/x/ctl", "eof") if after == "eof" else None
    refused(errno.EPIPE, box.write, f"jobs/{job}/stdin", "late\n")
    if after != "eof":
        assert f"the input of job {job} has ended: it is written, or held open, before" in box.error()
    refused(errno.EACCES, os.open, box / f"jobs/{job}/stdin", os.O_RDONLY)
    (box.home / "go").touch()
    box.read(f"jobs/{job}/exit")


def test_input_without_a_job(box):
    refused(errno.EPIPE, box.write, "stdin", "early\n")
    assert "there is no job" in box.error()


@pytest.mark.parametrize("name, number, says", [
    ("x", errno.EEXIST, "already"), ("7", errno.EINVAL, "no number"), ("latest", errno.EEXIST, ""),
    ("-x", errno.EINVAL, "begins with"), (".x", errno.EINVAL, "begins with"),
    ("a b", errno.EINVAL, "letters, digits"), ("a\nb", errno.EINVAL, "letters, digits"),
    ("ä", errno.EINVAL, "begins with|letters, digits"), ("x" * 64, errno.ENAMETOOLONG, "63 characters"),
])
def test_names_of_jobs(box, name, number, says):
    os.mkdir(box / "jobs/x")
    refused(number, os.mkdir, box / "jobs" / name)
    if number != errno.EEXIST:          # the kernel answers that one itself, when it knows the name
        assert any(part in box.error() for part in says.split("|"))
    assert sorted(os.listdir(box / "jobs")) == ["latest", "x"]


@pytest.mark.parametrize("name", ["stdout", "stderr", "log", "exit", "status", "info"])
def test_what_cannot_be_written(box, name):
    box.run("echo here")
    box.exit()
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_CREAT | os.O_TRUNC):
        refused(errno.EACCES, os.open, box / "jobs/1" / name, flags)
    with pytest.raises(OSError):
        os.truncate(box / "jobs/1" / name, 0)
    refused(errno.EPERM, os.unlink, box / "jobs/1" / name)
    assert box.out() == "here\n"
