"""cmd: from the bytes that are written to the command that runs."""

import errno
import hashlib
import os
import random
import signal
import subprocess
import sys

import pytest

from support import ask, blocked_in_read, read_all, refused, wait_until, write, write_all


# --- when it runs -------------------------------------------------------------

def test_runs_at_close(box):
    fd = os.open(box / "cmd", os.O_WRONLY)
    os.write(fd, b"echo hello")
    assert box.job_status() == "collecting"
    os.close(fd)
    assert box.out() == "hello\n"


def test_runs_at_fsync(box):
    fd = os.open(box / "cmd", os.O_WRONLY)
    os.write(fd, b"echo hello")
    os.fsync(fd)
    assert box.out() == "hello\n"
    assert box.exit() == "0"
    os.close(fd)
    assert os.listdir(box / "jobs") == ["latest", "1"]


def test_runs_at_the_first_read_of_the_same_handle(box):
    fd = os.open(box / "cmd", os.O_RDWR)
    os.write(fd, b"echo hello; echo oops >&2")
    assert sorted(read_all(fd).split()) == [b"hello", b"oops"]
    os.close(fd)
    assert os.listdir(box / "jobs") == ["latest", "1"]


def test_first_write_reserves_the_job(box):
    """From then on it is the latest one, also for who comes before the close."""
    box.run("echo first")
    box.exit()
    fd = os.open(box / "cmd", os.O_WRONLY)
    assert box.latest() == "1"
    os.write(fd, b"echo second")
    assert box.latest() == "2"
    reader = subprocess.Popen(["cat", box / "stdout"], stdout=-1)
    wait_until(lambda: blocked_in_read(reader))
    os.close(fd)
    assert reader.communicate(timeout=60)[0] == b"second\n"


def test_a_handle_shared_by_two_processes_is_one_job(box):
    """Only the last close of (echo a; sleep 1; echo b) > cmd runs it."""
    subprocess.run(["sh", "-c", "(echo echo a; sleep 0.3; echo echo b) > cmd"], cwd=box, check=True)
    assert box.out() == "a\nb\n"
    assert os.listdir(box / "jobs") == ["latest", "1"]


def test_the_last_close_may_be_a_child_s(box):
    read_end, write_end = os.pipe()
    fd = os.open(box / "cmd", os.O_WRONLY)
    child = os.fork()
    if child == 0:
        os.close(write_end)
        os.read(read_end, 1)
        os.write(fd, b"echo child\n")
        os._exit(0)
    os.close(read_end)
    os.write(fd, b"echo parent\n")
    os.close(fd)
    assert box.job_status() == "collecting"
    os.close(write_end)
    assert os.waitpid(child, 0)[1] == 0
    assert box.out() == "parent\nchild\n"


def test_two_writers_are_two_jobs(box):
    one = os.open(box / "cmd", os.O_WRONLY)
    two = os.open(box / "cmd", os.O_WRONLY)
    os.write(one, b"echo 1")
    os.write(two, b"echo 2")
    os.write(one, b"1")
    os.close(two)
    os.close(one)
    assert box.read("jobs/1/stdout") == "11\n"
    assert box.read("jobs/2/stdout") == "2\n"


@pytest.mark.parametrize("how", ["kill", "rmdir"])
def test_a_job_ended_while_it_is_written_never_runs_the_rest(box, how):
    """What its writer has still to say is half a script, not the next one."""
    fd = os.open(box / "cmd", os.O_RDWR)
    os.write(fd, b"echo first >&2\n")
    number = box.latest()
    if how == "kill":
        box.write(f"jobs/{number}/ctl", "kill")
    else:
        os.rmdir(box / "jobs" / number)
    refused(errno.ECANCELED, os.write, fd, b"touch half\n")
    assert b"before its text was whole" in os.read(fd, 4096)
    refused(errno.ECANCELED, os.write, fd, b"touch half\n")
    os.close(fd)
    assert box.ask("ls") == b""
    assert box.latest() == "2"


@pytest.mark.parametrize("where", ["named", "1"])
def test_a_text_has_one_writer(box, where):
    """Nobody's half of a script runs because another one closes."""
    if where == "named":
        os.mkdir(box / "jobs/named")
    fd = os.open(box / ("jobs/named/cmd" if where == "named" else "cmd"), os.O_WRONLY)
    os.write(fd, b"echo one; echo two")
    other = box / "jobs" / where / "cmd"
    refused(errno.EBUSY, write, other, "echo x")
    (box / "jobs" / where / "beside").write_text("echo x")
    refused(errno.EBUSY, os.rename, other.with_name("beside"), other)
    assert "somebody else is writing" in box.error()
    os.write(fd, b", three")
    os.close(fd)
    assert box.out() == "one\ntwo, three\n"


def test_a_blank_text_is_not_the_end_of_the_next(box):
    os.mkdir(box / "jobs/named")
    box.write("jobs/named/cmd", "\n" * 20)
    assert box.job_status() == "collecting"
    box.write("jobs/named/cmd", "cat <<E\nx\nE")
    assert box.read("jobs/named/cmd") == "cat <<E\nx\nE"
    assert box.out() == "x\n"


@pytest.mark.parametrize("text", ["", "\n", "  \n\n\t\n"])
def test_an_empty_command_is_no_job(box, text):
    subprocess.run(["sh", "-c", f"printf '{text}' > cmd"], cwd=box, check=True)
    assert os.listdir(box / "jobs") == []
    assert box.ask("echo next") == b"next\n"
    assert box.latest() in ("1", "2")


def test_opening_and_closing_is_no_job(box):
    os.close(os.open(box / "cmd", os.O_WRONLY | os.O_TRUNC))
    os.close(os.open(box / "cmd", os.O_RDWR))
    assert os.listdir(box / "jobs") == []


@pytest.mark.parametrize("signo", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGPIPE])
def test_a_killed_writer_never_runs_half_a_script(box, spawn, signo):
    writer = spawn([sys.executable, "-c",
                    "import os, signal, sys\n"
                    "for s in (signal.SIGINT, signal.SIGPIPE): signal.signal(s, signal.SIG_DFL)\n"
                    "fd = os.open(sys.argv[1], os.O_WRONLY)\n"
                    "os.write(fd, b'touch half\\n')\n"
                    "print(flush=True)\n"
                    "signal.pause()", box / "cmd"], stdout=-1)
    writer.stdout.readline()
    writer.send_signal(signo)
    assert writer.wait() == -signo
    assert box.ask("ls") == b""


def test_a_killed_shell_never_runs_half_a_script(box):
    subprocess.run(["bash", "-c", "(echo touch half; kill -9 $BASHPID; echo touch more) > cmd"],
                   cwd=box)
    assert box.ask("ls") == b""


def test_a_writer_that_ends_without_closing_runs_it(box):
    """exit(2) closes like close(2)."""
    subprocess.run([sys.executable, "-c",
                    "import os, sys\n"
                    "fd = os.open(sys.argv[1], os.O_WRONLY)\n"
                    "os.write(fd, b'echo whole')\n"
                    "os._exit(3)", box / "cmd"])
    assert box.out() == "whole\n"


def test_a_handler_of_a_signal_does_not_lose_the_command(box):
    """A writer that survives a signal (SIGCHLD, SIGWINCH) is no killed one."""
    fd = os.open(box / "cmd", os.O_WRONLY)
    before = signal.signal(signal.SIGUSR1, lambda *args: None)
    os.write(fd, b"echo on")
    os.kill(os.getpid(), signal.SIGUSR1)
    os.close(fd)
    signal.signal(signal.SIGUSR1, before)
    assert box.out() == "on\n"


# --- what runs ----------------------------------------------------------------

def test_in_the_home_folder_by_the_login_shell(box):
    assert box.ask("pwd") == (box.guest_home + "\n").encode()
    assert box.ask("echo $0 $HOME") == f"/bin/bash {box.guest_home}\n".encode() or \
        box.ask("echo $0 $HOME") == f"bash {box.guest_home}\n".encode()


def test_it_is_not_a_login_shell_and_has_no_terminal(box):
    assert box.ask("tty; shopt -q login_shell && echo login; :") == b"not a tty\n"


def test_without_a_newline_at_its_end(box):
    write(box / "cmd", "echo hello")
    assert box.out() == "hello\n"


def test_several_lines(box):
    box.run("a=1\nfor i in 1 2 3; do\n  a=$((a * 2))\ndone\necho $a")
    assert box.out() == "8\n"


def test_quotes_and_heredocs_arrive_as_they_are(box):
    text = ("cat <<'EOF'\n"
            "it's \"quoted\" $HOME `date` \\n \\\\ !! ~ * ? [a] {b,c} #d ;& |\n"
            "EOF\n"
            "printf '%s|' 'a b'  \"c  'd'\" e\\ f $'g\\th' \"$(echo \"i  j\")\"\n")
    box.run(text)
    assert box.out() == ("it's \"quoted\" $HOME `date` \\n \\\\ !! ~ * ? [a] {b,c} #d ;& |\n"
                         "a b|c  'd'|e f|g\th|i  j|")


def test_comment_at_the_end_of_the_text(box):
    write(box / "cmd", "echo hello # no newline follows")
    assert box.out() == "hello\n"


def test_a_syntax_error_is_the_shell_s(box):
    box.run("if then")
    assert box.exit() == "2" or box.exit() == "1"
    assert "syntax error" in box.err()


def test_every_byte_but_nul_in_a_command(box):
    every = bytes(n for n in range(1, 256) if n not in b"\n'")
    write(box / "cmd", b"printf %s '" + every + b"'")
    assert box.read_bytes("stdout") == every


def test_every_byte_in_a_script(box):
    text = b"#!/bin/cat\n" + bytes(range(256)) * 3
    write(box / "cmd", text)
    assert box.read_bytes("stdout") == text


def test_a_nul_in_a_command_reaches_the_shell(box):
    """Nothing is cut off there: bash drops the NUL and reads on."""
    write(box / "cmd", b"echo one\necho t\0wo\necho three\n")
    assert box.out() == "one\ntwo\nthree\n"


def test_interpreter_of_the_first_line(box):
    box.run("#!/usr/bin/env python3\nimport sys\n"
            "print(sum(range(10)), sys.argv[1:], file=sys.stderr)\nsys.exit(7)")
    assert box.err() == "45 []\n"
    assert box.exit() == "7"


def test_interpreter_that_does_not_exist(box):
    box.run("#!/no/such/interpreter\nhello")
    assert box.exit() in ("126", "127")
    assert box.err()


def test_a_script_reads_its_own_input(box):
    """What is kept for stdin is not mistaken for the script."""
    os.mkdir(box / "jobs/script")
    box.write("jobs/script/stdin", "line one\nline two\n")
    box.write("jobs/script/cmd",
              "#!/usr/bin/python3\nimport sys\nprint(sys.stdin.read().upper())\n")
    assert box.read("jobs/script/stdout") == "LINE ONE\nLINE TWO\n\n"


def test_nothing_of_a_script_stays_in_the_guest(box):
    before = box.ask("ls -A /tmp $HOME")
    for text in ("#!/bin/sh\nexit 3\n", "#!/bin/sh\nkill -9 $$\n",
                 "exit 4\n" + "#" * 100000 + "\n"):
        box.run(text)
        box.exit()
    assert box.ask("ls -A /tmp $HOME") == before


@pytest.mark.parametrize("size", [16383, 16384, 16385, 32768, 131071, 131072, 1 << 20])
def test_size(box, size):
    """Each way in which a text can travel, and where one gives way to the next."""
    end = "\necho end\n"
    text = "echo start\n#"
    text += "x" * (size - len(text) - len(end)) + end
    assert len(text) == size
    fd = os.open(box / "cmd", os.O_WRONLY)
    write_all(fd, text.encode())
    os.close(fd)
    assert box.out() == "start\nend\n"
    assert box.exit() == "0"
    assert box.read("cmd") == text


def test_one_long_line(box):
    box.run("echo " + "x" * (1 << 20))
    assert len(box.out()) == (1 << 20) + 1


def test_the_largest_script(box):
    noise = random.Random(1).randbytes(16 * (1 << 20) - 100)
    text = b"#!/usr/bin/sha256sum\n" + noise
    with open(box / "cmd", "wb") as cmd:
        cmd.write(text)
    assert box.out().split()[0] == hashlib.sha256(text).hexdigest()


def test_a_script_that_is_too_large(box):
    """EFBIG beyond 16 MiB, and nothing of it runs."""
    fd = os.open(box / "cmd", os.O_WRONLY)
    write_all(fd, b"touch half\n")
    write_all(fd, b"#" * (16 * (1 << 20) - 11))
    refused(errno.EFBIG, os.write, fd, b"#")
    os.close(fd)
    assert "16777216" in box.error()
    assert box.ask("ls") == b""


# --- cmd as a file ------------------------------------------------------------

def test_reading_gives_the_text_of_the_latest_job(box):
    assert box.read("cmd") == ""
    box.run("echo one")
    box.run("echo two")
    assert box.read("cmd") == "echo two\n"
    assert os.stat(box / "cmd").st_size == len("echo two\n")


@pytest.mark.parametrize("shell", [
    "echo 'echo hello' > cmd", "echo 'echo hello' >> cmd", "echo 'echo hello' 1<> cmd",
    "echo 'echo hello' | tee cmd", "echo 'echo hello' | dd of=cmd status=none",
    "echo 'echo hello' | cp /dev/stdin cmd",
    "python3 -c 'open(\"cmd\", \"w\").write(\"echo hello\")'",
    "python3 -c 'open(\"cmd\", \"a\").write(\"echo hello\")'",
])
def test_written_by_all_kinds_of_programs(box, shell):
    subprocess.run(["sh", "-c", shell], cwd=box, check=True, stdout=subprocess.DEVNULL)
    assert box.out() == "hello\n"
    assert os.listdir(box / "jobs") == ["latest", "1"]


def test_appending_starts_a_new_text(box):
    """The text of the job before is not what a later `>>` adds to."""
    box.run("echo one")
    box.exit()
    write(box / "cmd", "echo two\n", os.O_APPEND)
    assert box.out() == "two\n"
    assert box.read("cmd") == "echo two\n"


# --- read-write handles -------------------------------------------------------

def test_output_comes_as_it_is_printed(box):
    fd = os.open(box / "cmd", os.O_RDWR)
    os.write(fd, b"echo one; while [ ! -e go ]; do sleep 0.01; done; echo two")
    assert os.read(fd, 100) == b"one\n"
    assert box.job_status() == "running"
    (box.home / "go").touch()
    assert read_all(fd) == b"two\n"
    os.close(fd)


def test_a_handle_can_be_used_again(box):
    fd = os.open(box / "cmd", os.O_RDWR)
    for n in range(3):
        os.write(fd, b"echo %d" % n)
        assert read_all(fd) == b"%d\n" % n
    os.close(fd)
    assert box.latest() == "3"


def test_output_of_a_handle_in_small_pieces(box):
    fd = os.open(box / "cmd", os.O_RDWR)
    os.write(fd, b"seq 1000")
    text = b""
    while piece := os.read(fd, 7):
        text += piece
    os.close(fd)
    assert text == b"".join(b"%d\n" % n for n in range(1, 1001))


def test_shell_conversation_on_one_descriptor(box):
    done = subprocess.run(["bash", "-c",
                           "exec 3<>cmd; echo 'echo hi; echo there >&2' >&3; sort <&3"],
                          cwd=box, text=True, capture_output=True, timeout=30)
    assert done.stdout == "hi\nthere\n"


def test_large_output_of_a_handle(box):
    assert hashlib.sha256(ask(box / "cmd", "head -c 20000000 /dev/zero | tr '\\0' x")).digest() == \
        hashlib.sha256(b"x" * 20000000).digest()


CLIENT = """
import os, sys
sys.path.insert(0, sys.argv[3])
from support import ask
for n in range(int(sys.argv[4])):
    got = ask(sys.argv[1], f"echo {sys.argv[2]} {n}; echo error {sys.argv[2]} {n} >&2")
    want = {f"{sys.argv[2]} {n}", f"error {sys.argv[2]} {n}"}
    assert set(got.decode().splitlines()) == want, got
"""


@pytest.mark.deadline(400)
def test_two_users_never_see_each_other_s_output(box, spawn):
    """Each holds cmd open read-write, writes and reads, 1,000 times."""
    users = [spawn([sys.executable, "-B", "-c", CLIENT, box / "cmd", name,
                    os.path.dirname(__file__), "1000"]) for name in ("left", "right")]
    assert [user.wait() for user in users] == [0, 0]
