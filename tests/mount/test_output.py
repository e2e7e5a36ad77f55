"""stdout, stderr, log: streams that wait, and files that can be looked at."""

import errno
import hashlib
import os
import re
import select
import shutil
import signal
import subprocess

import pytest

from support import blocked_in_read, read_all, refused, wait_until

# A command that prints `one`, and `two` when the test has touched `go`.
STEPS = "echo one; while [ ! -e go ]; do sleep 0.01; done; echo two"
# The same for a number of steps: `go-1`, `go-2`, …
STEP = "while [ ! -e go-{0} ]; do sleep 0.01; done; echo {0};"


def go(box, name="go"):
    (box.home / name).touch()


def test_the_two_streams_are_apart(box):
    box.run("echo out; echo err >&2; echo out again")
    assert box.out() == "out\nout again\n"
    assert box.err() == "err\n"


def test_every_open_starts_at_the_beginning(box):
    box.run("seq 100")
    assert box.out() == box.out() == "".join(f"{n}\n" for n in range(1, 101))


def test_output_streams_as_it_comes(box, spawn):
    box.run("echo zero; " + " ".join(STEP.format(n) for n in range(1, 4)))
    reader = spawn(["cat", box / "stdout"], stdout=-1, bufsize=0)
    assert reader.stdout.readline() == b"zero\n"
    for n in range(1, 4):
        wait_until(lambda: blocked_in_read(reader))
        go(box, f"go-{n}")
        assert reader.stdout.readline() == b"%d\n" % n
    assert reader.wait(60) == 0


def test_a_line_a_second(box, spawn):
    """printf 'for i in 1 2 3; do echo $i; sleep 1; done' > cmd; cat stdout"""
    subprocess.run(["sh", "-c", "printf 'for i in 1 2 3; do echo $i; sleep 1; done' > cmd"],
                   cwd=box, check=True)
    reader = spawn(["cat", box / "stdout"], stdout=-1, bufsize=0)
    assert reader.stdout.read() == b"1\n2\n3\n" and reader.wait(60) == 0


def test_output_without_a_newline_comes_at_once(box):
    box.run("printf prompt:; while [ ! -e go ]; do sleep 0.01; done")
    fd = os.open(box / "stdout", os.O_RDONLY)
    assert os.read(fd, 100) == b"prompt:"
    go(box)
    assert os.read(fd, 100) == b""
    os.close(fd)


def test_end_of_file_when_the_job_is_over(box):
    box.run("true")
    assert box.out() == "" and box.err() == ""


def test_stderr_of_a_running_job_waits_too(box, spawn):
    box.run(STEPS)
    reader = spawn(["cat", box / "stderr"], stdout=-1)
    wait_until(lambda: blocked_in_read(reader))
    go(box)
    assert reader.communicate(timeout=60)[0] == b""


def test_all_readers_get_all(box, spawn):
    box.run(STEPS + "; seq 20000")
    readers = [spawn(["md5sum", box / "stdout"], stdout=-1) for _ in range(8)]
    go(box)
    sums = {reader.communicate(timeout=60)[0].split()[0] for reader in readers}
    text = "one\ntwo\n" + "".join(f"{n}\n" for n in range(1, 20001))
    assert sums == {hashlib.md5(text.encode()).hexdigest().encode()}


def test_bytes_are_exact(box):
    box.run("head -c 3000000 /dev/urandom | tee copy")
    assert box.exit() == "0"
    assert hashlib.sha256(box.read_bytes("stdout")).digest() == \
        hashlib.sha256((box.home / "copy").read_bytes()).digest()


def test_both_streams_under_load(box):
    box.run("for i in $(seq 2000); do echo out $i; echo err $i >&2; done")
    assert box.out() == "".join(f"out {n}\n" for n in range(1, 2001))
    assert box.err() == "".join(f"err {n}\n" for n in range(1, 2001))
    assert sorted(box.read("log").splitlines()) == sorted((box.out() + box.err()).splitlines())


def test_size_is_what_has_come(box):
    box.run("printf 12345; printf 678 >&2; while [ ! -e go ]; do sleep 0.01; done; printf 6789")
    wait_until(lambda: os.stat(box / "log").st_size == 8)
    assert os.stat(box / "stdout").st_size == 5
    assert os.stat(box / "stderr").st_size == 3
    go(box)
    box.exit()
    assert os.stat(box / "stdout").st_size == 9
    assert box.out() == "123456789"


def test_nonblocking_read(box):
    box.run(STEPS)
    fd = os.open(box / "stdout", os.O_RDONLY | os.O_NONBLOCK)
    select.select([fd], [], [], 30)
    assert os.read(fd, 100) == b"one\n"
    refused(errno.EAGAIN, os.read, fd, 100)
    go(box)
    assert box.exit() == "0"
    assert os.read(fd, 100) == b"two\n"
    assert os.read(fd, 100) == b""
    os.close(fd)


def test_nonblocking_read_of_exit(box):
    box.run(STEPS)
    fd = os.open(box / "exit", os.O_RDONLY | os.O_NONBLOCK)
    refused(errno.EAGAIN, os.read, fd, 100)
    go(box)
    box.exit()
    assert os.read(fd, 100) == b"0\n"
    os.close(fd)


def test_poll(box):
    box.run("while [ ! -e go ]; do sleep 0.01; done; echo one; "
            "while [ ! -e on ]; do sleep 0.01; done")
    fd = os.open(box / "stdout", os.O_RDONLY)
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    assert poll.poll(100) == []
    go(box)
    assert poll.poll(20000) == [(fd, select.POLLIN)]
    assert os.read(fd, 100) == b"one\n"
    assert poll.poll(100) == []
    go(box, "on")
    assert poll.poll(20000)[0][0] == fd      # end of file is readable
    assert os.read(fd, 100) == b""
    os.close(fd)


def test_epoll_of_many_streams(box):
    box.run(STEPS)
    files = {os.open(box / name, os.O_RDONLY): name for name in ("stdout", "stderr", "exit")}
    epoll = select.epoll()
    for fd in files:
        epoll.register(fd, select.EPOLLIN)
    ready = epoll.poll(20)
    assert [files[fd] for fd, _ in ready] == ["stdout"]
    go(box)
    wait_until(lambda: {files[fd] for fd, _ in epoll.poll(20)} == set(files.values()))
    epoll.close()
    for fd in files:
        os.close(fd)


def test_poll_of_a_command_s_own_handle(box):
    fd = os.open(box / "cmd", os.O_RDWR)
    os.write(fd, b"echo zero; while [ ! -e go ]; do sleep 0.01; done; echo one")
    assert os.read(fd, 100) == b"zero\n"
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    assert poll.poll(100) == []
    go(box)
    assert poll.poll(20000) == [(fd, select.POLLIN)]
    assert read_all(fd) == b"one\n"
    os.close(fd)


@pytest.mark.parametrize("name", ["stdout", "stderr", "exit", "jobs/1/stdout"])
def test_interrupt_frees_a_waiting_reader(box, spawn, name):
    """^C on a reader that waits ends it at once and hurts nothing else."""
    box.run("sleep 1000")
    box.wait_job("running")
    reader = spawn(["cat", box / name])
    wait_until(lambda: blocked_in_read(reader))
    reader.send_signal(signal.SIGINT)
    assert reader.wait(60) == -signal.SIGINT
    assert box.job_status() == "running"
    assert box.status() == "running"


def test_interrupt_of_a_reader_of_cmd(box, spawn):
    conversation = spawn(["bash", "-c", "exec 3<>cmd; echo 'sleep 1000' >&3; exec cat <&3"], cwd=box)
    wait_until(lambda: blocked_in_read(conversation))
    conversation.send_signal(signal.SIGINT)
    assert conversation.wait(60) == -signal.SIGINT


def test_a_signal_that_is_handled_does_not_end_a_read(box):
    box.run("while [ ! -e go ]; do sleep 0.01; done; echo done")
    before = signal.signal(signal.SIGUSR1, lambda *args: go(box))
    reader = os.getpid()
    subprocess.Popen(["sh", "-c", f"sleep 0.3; kill -USR1 {reader}"])
    assert box.out() == "done\n"
    signal.signal(signal.SIGUSR1, before)


def test_a_hundred_waiting_readers_disturb_nobody(box, spawn):
    box.run(STEPS)
    readers = [spawn(["cat", box / "stdout"], stdout=-1) for _ in range(100)]
    wait_until(lambda: all(blocked_in_read(reader) for reader in readers))
    assert box.ask("echo quick") == b"quick\n"
    assert box.status() == "running"
    go(box)
    assert {reader.communicate(timeout=60)[0] for reader in readers} == {b"one\ntwo\n"}


def test_a_slow_or_absent_reader_never_blocks_the_command(box, spawn):
    box.run("head -c 30000000 /dev/zero")
    slow = os.open(box / "stdout", os.O_RDONLY)
    os.read(slow, 1)
    assert box.exit() == "0"
    assert len(read_all(slow)) == 30000000 - 1
    os.close(slow)


def test_readers_that_stop_early(box):
    box.run("seq 100000")
    head = subprocess.run(["head", "-n", "2", box / "stdout"], capture_output=True, text=True)
    assert head.stdout == "1\n2\n"
    assert box.exit() == "0"


def test_usual_programs(box, tmp_path):
    box.run("seq 1000")
    box.exit()
    whole = "".join(f"{n}\n" for n in range(1, 1001))

    def output(*argv):
        return subprocess.run(argv, cwd=box, capture_output=True, text=True, check=True).stdout

    assert output("cat", "stdout") == whole
    assert output("tail", "-n", "1", "stdout") == "1000\n"
    assert output("tail", "-c", "+3890", "stdout") == whole[3889:]
    assert output("wc", "-c", "stdout").split()[0] == str(len(whole))
    assert output("grep", "-c", "7", "stdout") == "271\n"
    assert output("dd", "if=stdout", "bs=10", "skip=100", "count=1", "status=none") == \
        whole[1000:1010]
    output("cp", "stdout", tmp_path / "copy")
    assert (tmp_path / "copy").read_text() == whole
    assert output("sh", "-c", "(read a; read b; echo $b) < stdout") == "2\n"


def test_tail_follows(box, spawn):
    box.run(STEPS)
    tail = spawn(["tail", "-n", "+1", "-f", box / "log"], stdout=-1, bufsize=0)
    assert tail.stdout.readline() == b"one\n"
    go(box)
    assert tail.stdout.readline() == b"two\n"


def test_log_is_in_order_of_arrival_and_never_waits(box):
    steps = " ".join(f"echo {n} >&{1 + n % 2}; while [ ! -e go-{n} ]; do sleep 0.01; done;"
                     for n in range(4))
    box.run(steps)
    for n in range(4):
        want = "".join(f"{i}\n" for i in range(n + 1))
        wait_until(lambda: box.read("log") == want)
        assert box.job_status() == "running"
        go(box, f"go-{n}")
    assert box.exit() == "0"
    assert box.read("log") == "0\n1\n2\n3\n"
    assert box.out() == "0\n2\n"
    assert box.err() == "1\n3\n"


def test_an_open_file_stays_with_its_job(box):
    box.run("echo one")
    fd = os.open(box / "stdout", os.O_RDONLY)
    box.run("echo two")
    assert box.out() == "two\n"
    assert read_all(fd) == b"one\n"
    os.close(fd)


def test_before_the_first_job(box):
    """There is nothing to wait for."""
    for name in ("stdout", "stderr", "log", "exit", "cmd"):
        assert box.read(name) == "", name


def test_a_background_process_that_keeps_the_output(box):
    """What it says while the command runs comes; what it says later may have come too late."""
    box.run("(echo first; while [ ! -e go ]; do sleep 0.01; done; echo late; touch said) & "
            "while [ ! -e go ]; do sleep 0.01; done; echo last")
    wait_until(lambda: box.read("log") == "first\n")
    go(box)
    out = box.out()
    assert sorted(out.split()) in (["first", "last"], ["first", "last", "late"])
    assert box.exit() == "0"
    wait_until(lambda: (box.home / "said").exists())
    assert box.out() == out         # it is over: nothing is added


def test_a_background_process_that_lets_go(box):
    box.run("sleep 1000 > /dev/null 2>&1 < /dev/null & echo started")
    assert box.out() == "started\n"
    assert box.exit() == "0"


def test_output_outlives_the_daemon(own_mount):
    box = own_mount.box()
    box.run("echo out; echo err >&2; exit 5")
    assert box.exit() == "5"
    own_mount.stop()
    own_mount.start()
    assert (box.out(), box.err(), box.exit()) == ("out\n", "err\n", "5")
    assert box.job_status() == "exited 5"
    box.run("echo next")
    assert box.latest() == "2"


def test_info_counts_and_dates(box):
    box.run("printf 1234; printf 56 >&2")
    box.exit()
    info = box.read("jobs/latest/info")
    assert re.search(r"^ended \d{4}-\d\d-\d\dT", info, re.M)
    assert re.search(r"^stdout_bytes 4$", info, re.M)
    assert re.search(r"^stderr_bytes 2$", info, re.M)


def copiers():
    """Programs that copy by sendfile(2) and splice(2) rather than read(2)."""
    return [pytest.param([*argv], id=name, marks=[] if shutil.which(argv[0]) else
                         pytest.mark.skip(reason=f"{argv[0]} is not installed"))
            for name, *argv in (("busybox", "busybox", "cat"),
                                ("uutils", "/usr/lib/cargo/bin/coreutils/cat"))]


@pytest.mark.parametrize("cat", copiers())
def test_copying_in_the_kernel(box, spawn, cat):
    """The kernel takes the end of a file from its size: that must not cut anything short."""
    box.run(STEP.format(1) + "seq 3000;" + STEP.format(2) + "exit 5")
    readers = [spawn([*cat, box / name], stdout=-1) for name in ("stdout", "stderr", "exit")]
    late = spawn([*cat, box / "stdout"], stdin=subprocess.DEVNULL, stdout=-1)
    for reader in (*readers, late):
        wait_until(lambda r=reader: blocked_in_read(r))
    go(box, "go-1")
    want = b"1\n" + b"".join(b"%d\n" % n for n in range(1, 3001)) + b"2\n"
    wait_until(lambda: os.stat(box / "stdout").st_size == len(want) - 2)
    middle = spawn([*cat, box / "stdout"], stdout=-1)
    wait_until(lambda: blocked_in_read(middle))
    go(box, "go-2")
    assert [r.communicate(timeout=60)[0] for r in readers] == [want, b"", b"5\n"]
    assert late.communicate(timeout=60)[0] == want
    assert middle.communicate(timeout=60)[0] == want
    for name, content in (("stdout", want), ("log", want), ("exit", b"5\n"), ("cmd", None)):
        done = subprocess.run([*cat, box / name], capture_output=True, check=True)
        assert done.stdout == (content or box.read_bytes("cmd")), name


def splice_all(fd):
    """What splice(2) gives, to its end."""
    out, into = os.pipe()
    parts = []
    while n := os.splice(fd, into, 65536):
        while n > 0:
            parts.append(os.read(out, n))
            n -= len(parts[-1])
    os.close(out)
    os.close(into)
    return b"".join(parts)


@pytest.mark.parametrize("name", ("stdout", "stderr", "exit", "../.sbxfs/events"))
def test_a_question_for_the_size_ends_no_other_copying(box, name):
    """What is open is refused to splice(2), whoever has looked at it meanwhile."""
    box.run("while [ ! -e go ]; do sleep 0.01; done")
    box.wait_job("running")         # which is an event: no more is to come
    fd = os.open(box / name, os.O_RDONLY)
    subprocess.run(["ls", "-l", (box / name).parent], capture_output=True, check=True)
    os.lseek(fd, os.stat(box / name).st_size, os.SEEK_SET)
    refused(errno.EINVAL, splice_all, fd)
    assert len({os.stat(box / name).st_ino for _ in range(100)} | {os.fstat(fd).st_ino}) == 1
    os.close(fd)
    go(box)


def test_copying_of_one_job_while_the_name_leads_to_the_next(box):
    box.run("yes 1 | head -c 1000000")
    box.exit()
    first = os.open(box / "stdout", os.O_RDONLY)
    box.run("yes 2 | head -c 500000")
    box.exit()
    second = os.open(box / "stdout", os.O_RDONLY)
    assert splice_all(second) == b"2\n" * 250000
    assert splice_all(first) == b"1\n" * 500000
    os.close(first)
    os.close(second)


@pytest.mark.parametrize("cat", copiers())
def test_a_conversation_copied_in_the_kernel(box, cat):
    script = "exec 3<>cmd; for i in 1 2 3; do echo \"sleep 0.1; echo $i\" >&3; \"$@\" <&3; done"
    done = subprocess.run(["sh", "-c", script, "sh", *cat], cwd=box, capture_output=True)
    assert (done.stdout, done.stderr) == (b"1\n2\n3\n", b"")


def test_sizes_are_true_whatever_the_kernel_is_told(box):
    box.run("printf 1234; while [ ! -e go ]; do sleep 0.01; done")
    wait_until(lambda: os.stat(box / "log").st_size == 4)
    for name, size in (("stdout", 4), ("stderr", 0), ("exit", 0), ("log", 4), ("cmd", None)):
        size = os.stat(box / "cmd").st_size if size is None else size
        assert os.stat(box / name).st_size == size
        fd = os.open(box / name, os.O_RDONLY)
        assert os.fstat(fd).st_size == size
        assert os.lseek(fd, 0, os.SEEK_END) == size
        os.close(fd)
        listed = subprocess.run(["ls", "-l", name], cwd=box, capture_output=True, text=True)
        assert int(listed.stdout.split()[4]) == size
    go(box)
    assert box.exit() == "0"
