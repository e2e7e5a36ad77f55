"""contrib/sbx-run: a command in a sandbox as `ssh host command` runs it, over nothing but files."""

import hashlib
import os
import shutil
import signal
import subprocess

import pytest

from support import TOP, process_state, wait_until

RUN = TOP / "contrib/sbx-run"
SHELLS = [shell for shell in (["dash"], ["bash", "--posix"], ["busybox", "sh"])
          if shutil.which(shell[0])]


def run(box, *argv, shell=("sh",), **options):
    options = dict(stdin=subprocess.DEVNULL, capture_output=True, timeout=60) | options
    return subprocess.run([*shell, RUN, box, *argv], **options)


def start(spawn, box, *argv, **options):
    return spawn([RUN, box, *argv], **dict(stdin=subprocess.DEVNULL, stdout=-1, stderr=-1) | options)


def job_of(box):
    """The job of the sbx-run that runs now."""
    return wait_until(lambda: [name for name in os.listdir(box / "jobs") if name != "latest"])[0]


def running(box, text):
    """Until the command has printed that."""
    job = job_of(box)
    wait_until(lambda: text in box.read(f"jobs/{job}/log"))


def sleeps(box):
    return [pid for pid in box.mount.job_processes(box.name) if process_state(pid)[1] == "sleep"]


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_output_and_status(box, shell):
    done = run(box, "echo out; echo err >&2; exit 7", shell=shell)
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")
    assert os.listdir(box / "jobs") == []


@pytest.mark.parametrize("number", [0, 1, 2, 126, 127, 137, 255])
def test_every_status(box, number):
    assert run(box, "exit", str(number)).returncode == number


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_input(box, shell):
    data = os.urandom(3 << 20)
    done = run(box, "sha256sum", shell=shell, stdin=None, input=data)
    assert done.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()


def test_output_is_exact(box):
    done = run(box, "head -c 3000000 /dev/urandom | tee copy")
    assert done.stdout == (box.home / "copy").read_bytes()


def test_no_input_and_a_closed_one(box):
    assert run(box, "cat; echo end").stdout == b"end\n"
    done = subprocess.run(["sh", "-c", '"$0" "$1" cat <&-', RUN, box], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_conversation(box, spawn):
    talk = start(spawn, box, "while read x; do echo got $x; done", stdin=subprocess.PIPE)
    for word in (b"one", b"two"):
        talk.stdin.write(word + b"\n")
        talk.stdin.flush()
        assert talk.stdout.readline() == b"got " + word + b"\n"
    talk.stdin.close()
    assert talk.wait(60) == 0


def test_a_command_that_does_not_read_its_input(box):
    """It ends at once, with input left over, and the one who gives it is told."""
    done = subprocess.run(["sh", "-c", 'yes | "$0" "$1" true', RUN, box], capture_output=True,
                          timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")


def test_words_are_joined_by_blanks(box):
    """As ssh does it: the shell in the guest sees one text."""
    assert run(box, "echo", "a   b", "'c   d'", ";", "echo", "$HOME").stdout.decode() == \
        f"a b c   d\n{box.guest_home}\n"
    assert run(box, "--", "echo", "-n", "x").stdout == b"x"
    assert run(box, "echo", "--cwd", "/").stdout == b"--cwd /\n"


def test_cwd(box):
    assert run(box, "--cwd", "/usr/bin", "pwd").stdout == b"/usr/bin\n"
    assert run(box, "--cwd=/usr", "--", "pwd").stdout == b"/usr\n"
    done = run(box, "--cwd", "/nowhere", "echo no")
    assert (done.returncode, done.stdout) == (127, b"") and b"/nowhere" in done.stderr
    done = run(box, "--cwd", "/a\n/b", "echo no")
    assert done.returncode == 255 and b"--cwd" in done.stderr and b"one line" in done.stderr


@pytest.mark.parametrize("signo", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_kill_the_job(box, spawn, signo):
    """^C goes to all of the terminal's group; so here. Nothing of the job is left."""
    runner = start(spawn, box, "sleep 1000 & sleep 1000 & echo started; wait",
                   start_new_session=True)
    running(box, "started")
    os.killpg(runner.pid, signo) if signo == signal.SIGINT else runner.send_signal(signo)
    assert runner.wait(60) == -signo
    assert runner.stderr.read() == b""
    assert sleeps(box) == []
    assert os.listdir(box / "jobs") == []


def test_interrupt_before_the_sandbox_runs(mount, spawn):
    box = mount.box(None, "boot 3600000", wait=False)
    runner = start(spawn, box, "echo no")
    job = job_of(box)
    wait_until(lambda: box.read(f"jobs/{job}/status") == "queued\n")
    runner.send_signal(signal.SIGINT)
    assert runner.wait(60) == -signal.SIGINT
    assert os.listdir(box / "jobs") == []
    box.destroy()


def test_a_reader_that_goes_ends_the_command(box):
    """As `ssh host yes | head` ends."""
    done = subprocess.run(["sh", "-c", '"$0" "$1" yes | head -n 2', RUN, box], capture_output=True,
                          timeout=60)
    assert done.stdout == b"y\ny\n"
    assert wait_until(lambda: os.listdir(box / "jobs") == [])


def test_lost_is_255_with_a_sentence(box, spawn):
    runner = start(spawn, box, "echo started; sleep 1000")
    running(box, "started")
    box.control("cut")
    assert runner.wait(60) == 255
    assert runner.stderr.read().startswith(b"sbx-run: lost: the connection went")


def test_where_the_sandbox_is(box, tmp_path):
    def stdout(name, cwd=tmp_path, **env):
        done = run(name, "echo", "here", cwd=cwd, env=dict(os.environ, **env))
        return done.stdout if done.returncode == 0 else done.stderr

    assert stdout(box.path) == stdout(f"{box.path}/") == b"here\n"
    assert stdout(box.name, cwd=box.mount) == stdout(f"{box.name}/", cwd=box.mount) == b"here\n"
    assert stdout(".", cwd=box) == stdout(f"../{box.name}", cwd=box) == b"here\n"
    assert stdout(box.name, SBXFS_ROOT=str(box.mount.path)) == b"here\n"
    assert stdout("no-such-box") == b"sbx-run: there is no sandbox no-such-box: give its path, " \
        b"or set SBXFS_ROOT to the mount point of sbxfs\n"
    assert stdout("./no-such-box") == b"sbx-run: there is no sandbox ./no-such-box\n"


def test_found_by_the_table_of_mounts(own_mount, tmp_path):
    """From anywhere, when one mount has a sandbox of that name."""
    box = own_mount.box("only-here-it-is")
    assert run(box.name, "echo", "found", cwd=tmp_path).stdout == b"found\n"


@pytest.mark.parametrize("argv", [[], ["box"], ["--cwd"], ["--what", "box", "x"], ["box", "--cwd"]])
def test_usage(argv):
    done = subprocess.run([RUN, *argv], capture_output=True)
    assert done.returncode == 255 and done.stderr.startswith(b"sbx-run: ")


def test_many_at_once(box, spawn):
    """Everybody gets what is theirs."""
    runs = [start(spawn, box, f"echo {n}; exit {n}") for n in range(30)]
    for n, runner in enumerate(runs):
        out, err = runner.communicate(timeout=60)
        assert (out, err, runner.returncode) == (b"%d\n" % n, b"", n)


def test_refused_where_there_is_nothing_to_run_in(box):
    box.control("dead")
    run(box, "true")
    wait_until(lambda: box.status() == "unreachable", 60)
    done = run(box, "true")
    assert done.returncode == 255 and b"unreachable" in done.stderr


def test_timeout(box):
    done = run(box, "--timeout", "3s", "echo started; sleep 1000 & sleep 1000")
    assert (done.returncode, done.stdout) == (124, b"started\n")
    assert sleeps(box) == []
    done = run(box, "--timeout=soon", "echo no")
    assert done.returncode == 255 and b"--timeout soon: " in done.stderr and done.stdout == b""


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
@pytest.mark.parametrize("what", ["job", "sandbox"])
def test_what_is_taken_away_is_lost(mount, spawn, shell, what):
    """Whoever removes the job or destroys the sandbox in the middle: no number is made up."""
    box = mount.box()
    runner = spawn([*shell, RUN, box, "echo started; sleep 1000"], stdin=subprocess.DEVNULL,
                   stdout=-1, stderr=-1)
    assert runner.stdout.readline() == b"started\n"
    os.rmdir(box / "jobs" / job_of(box) if what == "job" else box)
    err = runner.stderr.read()
    assert runner.wait(60) == 255 or what == "job"
    assert runner.returncode != 0 and (runner.returncode != 255 or b"sbx-run: lost" in err)
    if what == "job":
        box.destroy()


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_lost_is_no_number_when_nobody_tells_the_reason(box, spawn, shell, tmp_path):
    """The job's folder goes between its exit and its info."""
    (tmp_path / "sed").write_text("#!/bin/sh\nexit 2\n")
    (tmp_path / "sed").chmod(0o755)
    runner = spawn([*shell, RUN, box, "echo started; sleep 1000"], stdin=subprocess.DEVNULL,
                   stdout=-1, stderr=-1, env=dict(os.environ, PATH=f"{tmp_path}:{os.environ['PATH']}"))
    assert runner.stdout.readline() == b"started\n"
    box.control("cut")
    assert runner.stderr.read() == b"sbx-run: lost\n" and runner.wait(60) == 255
