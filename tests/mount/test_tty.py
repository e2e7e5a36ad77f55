"""tty of a job: a real terminal for it, of the size that is asked for, resized by writing."""

import errno
import os
import re
from pathlib import Path

import pytest

from support import read_all, refused, wait_until, write_all


def prepare(box, name, tty="80x24"):
    os.mkdir(box / f"jobs/{name}")
    if tty:
        box.write(f"jobs/{name}/tty", tty + "\n")
    return box / f"jobs/{name}"


def start(job, command):
    (job / "cmd").write_text(command)


def read(job, name):
    return (job / name).read_bytes().decode()


def wait_for(job, text):
    """Until the output has that text; all of it so far."""
    return wait_until(lambda: text in read(job, "log") and read(job, "log"))


def in_the_foreground(pid):
    """Does it run, and have the keys of its terminal?"""
    stat = Path(f"/proc/{pid}/stat").read_text()
    state, _, group, _, _, foreground = stat[stat.rindex(")") + 2:].split()[:6]
    return state == "S" and group == foreground


def test_a_job_has_no_terminal_unless_it_asks(box):
    job = prepare(box, "plain", None)
    assert read(job, "tty") == ""
    start(job, "tty; test -t 0 || test -t 1 || test -t 2 || echo none")
    assert read(job, "stdout").endswith("none\n")


def test_all_three_are_the_terminal_and_its_size(box):
    job = prepare(box, "term", "132x43")
    assert read(job, "tty") == "132x43\n"
    start(job, "test -t 0 && test -t 1 && test -t 2 && stty size && echo $TERM; echo err >&2")
    assert read(job, "stdout") == "43 132\r\nxterm-256color\r\nerr\r\n"
    assert read(job, "stderr") == ""
    assert read(job, "exit") == "0\n"
    assert "tty 132x43\n" in read(job, "info")


def test_type_of_the_terminal(box):
    job = prepare(box, "term", "80x24 screen.linux-16color")
    start(job, "echo $TERM")
    assert read(job, "stdout") == "screen.linux-16color\r\n"
    assert read(job, "tty") == "80x24 screen.linux-16color\n"


def test_an_empty_line_takes_it_away(box):
    job = prepare(box, "term")
    (job / "tty").write_text("\n")
    assert read(job, "tty") == ""
    start(job, "test -t 0 || echo none")
    assert read(job, "stdout") == "none\n"


def test_resized_while_it_runs(box):
    job = prepare(box, "term")
    start(job, "trap 'echo told' WINCH; while [ ! -e go ]; do stty size; sleep 0.02; done")
    wait_for(job, "24 80")
    for size, shown in (("100x30", "30 100"), ("65535x1", "1 65535"), ("80x24", "24 80\r\n24 80")):
        (job / "tty").write_text(size + "\n")
        wait_for(job, shown)
        assert read(job, "tty") == size + "\n"
    wait_for(job, "told")
    (box.home / "go").touch()
    assert read(job, "exit") == "0\n"


def test_input_is_typed(box):
    """It is echoed, a line at a time; ^C is a signal; ^D, by `eof`, the end."""
    job = prepare(box, "term")
    stdin = os.open(job / "stdin", os.O_WRONLY)
    start(job, "trap 'echo got-int' INT; echo ready; cat; echo end $?; cat; echo over")
    wait_for(job, "ready")
    write_all(stdin, b"hello\n")
    wait_for(job, "hello\r\nhello\r\n")
    write_all(stdin, b"\3")
    wait_for(job, "end 130")
    (job / "ctl").write_text("eof\n")
    assert read(job, "stdout").endswith("over\r\n")
    assert read(job, "exit") == "0\n"
    refused(errno.EPIPE, os.write, stdin, b"late")
    refused(errno.EPIPE, (job / "ctl").write_text, "eof\n")
    os.close(stdin)


def test_leaving_it_is_not_its_end(box):
    """Closing stdin ends nothing: another can open it and go on."""
    job = prepare(box, "term")
    start(job, "while read line; do echo got $line; done")
    for word in ("one", "two"):
        (job / "stdin").write_text(word + "\n")
        wait_for(job, f"got {word}\r\n")
    assert read(job, "status") == "running\n"
    (job / "ctl").write_text("kill\n")
    assert read(job, "exit") != "0\n"


def test_what_was_typed_ahead(box):
    job = prepare(box, "term")
    (job / "stdin").write_text("ahead\n")
    start(job, "read a; echo got $a")
    assert read(job, "stdout").endswith("got ahead\r\n")


def test_an_interactive_shell(box):
    """Job control, and an exit status of its own."""
    job = prepare(box, "shell")
    stdin = os.open(job / "stdin", os.O_WRONLY)
    start(job, "PS1='ready> ' exec bash --norc -i")
    wait_for(job, "ready> ")
    write_all(stdin, b"sh -c 'echo up $$; exec sleep 1000'\n")
    pid = int(wait_until(lambda: re.search(r"\rup (\d+)\r\n", read(job, "log")))[1])
    write_all(stdin, b"\x1a")
    wait_for(job, "Stopped")
    write_all(stdin, b"fg\n")
    wait_for(job, "fg\r\n\x1b[?2004l\rsh -c 'echo up $$; exec sleep 1000'\r\n")
    wait_until(lambda: in_the_foreground(pid))      # bash says it before it is so
    write_all(stdin, b"\3")
    wait_for(job, "^C")
    write_all(stdin, b"exit 7\n")
    assert read(job, "exit") == "7\n"
    os.close(stdin)


def test_kill_reaches_what_runs_on_it(box):
    job = prepare(box, "term")
    start(job, "sleep 1000 & sleep 1000 & echo started; wait")
    wait_for(job, "started")
    (job / "ctl").write_text("kill\n")
    read(job, "exit")
    assert not box.mount.job_processes(box.name)


@pytest.mark.parametrize("bad", [
    "80", "80x", "x24", "0x24", "80x0", "-1x24", "80x24x3", "80 x 24", "65536x24", "80x65536",
    "99999999999999999999x1", "80x24 ", "80x24 a b", "80x24 'evil'", "+80x24", "80X24", "big",
    "80x24 " + "t" * 64])
def test_sizes_of_nonsense(box, bad):
    job = prepare(box, "term", "81x25")
    fd = os.open(job / "tty", os.O_RDWR)
    refused(errno.EINVAL, os.write, fd, bad.encode() + b"\n")
    assert b"80x24" in read_all(fd)
    os.close(fd)
    assert re.search("tty is COLUMNSxROWS", box.error())
    assert read(job, "tty") == "81x25\n"


def test_only_a_job_with_a_terminal_is_resized(box):
    job = prepare(box, "plain", None)
    start(job, "while [ ! -e go ]; do sleep 0.01; done")
    refused(errno.EBUSY, (job / "tty").write_text, "80x24\n")
    assert "without a terminal" in box.error()
    (box.home / "go").touch()
    read(job, "exit")
    refused(errno.ESRCH, (job / "tty").write_text, "80x24\n")


def test_an_interpreter_on_a_terminal(box):
    """The script is not typed: its bytes arrive as they are, and stdin is the user's."""
    job = prepare(box, "term")
    start(job, "#!/usr/bin/python3\nimport sys\nprint('it\\'s', sys.stdin.isatty(), r'\\t\x03%s', flush=True)\n"
               "print('got', input())\n")
    wait_for(job, "it's True \\t")
    (job / "stdin").write_text("typed\n")
    assert read(job, "stdout").endswith("got typed\r\n")
    assert read(job, "exit") == "0\n"
    assert box.ask("ls -A /tmp") == b""


@pytest.mark.parametrize("text", ["#!/bin/sh\n" + "#" * 16384, "echo x" + " " * 16384, "echo \0"],
                         ids=["interpreter", "long", "NUL"])
def test_a_script_that_would_travel_as_input(box, text):
    job = prepare(box, "term")
    start(job, text)
    assert read(job, "exit") == "cancelled\n"
    assert "reason on a terminal" in read(job, "info")


def test_it_is_told_after_a_restart(own_mount):
    box = own_mount.box()
    job = prepare(box, "term", "90x20")
    start(job, "true")
    read(job, "exit")
    own_mount.stop()
    own_mount.start()
    assert read(job, "tty") == "90x20\n"
