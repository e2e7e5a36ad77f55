"""jobs/: every job of a sandbox as a folder; results; named jobs; the queue."""

import errno
import os
import subprocess
import time

import pytest

from support import CONFIG, alive, refused, wait_until

LONG = 3600 * 1000
FILES = {"cmd", "stdin", "stdout", "stderr", "log", "exit", "status", "ctl", "cwd", "env", "info",
         "info.json", "timeout", "tty"}
WAIT = "while [ ! -e go ]; do sleep 0.01; done"


def go(box):
    (box.home / "go").touch()


# --- results ------------------------------------------------------------------

@pytest.mark.parametrize("number", [0, 1, 3, 127, 255])
def test_exit_is_the_command_s(box, number):
    box.run(f"exit {number}")
    assert box.read("exit") == f"{number}\n"
    assert box.read("jobs/latest/status") == f"exited {number}\n"


@pytest.mark.parametrize("name, number", [
    ("KILL", 137), ("TERM", 143), ("SEGV", 139), ("INT", 130), ("HUP", 129), ("USR1", 138)])
def test_death_by_signal(box, name, number):
    box.run(f"kill -{name} $$; sleep 10")
    assert box.exit() == str(number)
    assert box.job_status() == f"signaled {name}"


def test_exit_waits_for_the_end(box, spawn):
    box.run(WAIT + "; exit 9")
    reader = spawn(["cat", box / "exit"], stdout=-1)
    box.wait_job("running")
    assert reader.poll() is None
    assert os.stat(box / "exit").st_size == 0
    go(box)
    assert reader.communicate(timeout=60)[0] == b"9\n"
    assert os.stat(box / "exit").st_size == 2


def test_a_command_that_is_not_there(box):
    box.run("no-such-command")
    assert box.exit() == "127"
    assert "no-such-command" in box.err()


def test_status_while_it_runs(box):
    box.run(WAIT)
    box.wait_job("running")
    go(box)
    box.exit()
    assert box.job_status() == "exited 0"


def test_info_of_a_job(box):
    text = f"echo hello; {WAIT}\n"
    before = time.monotonic()
    box.run(text.rstrip())
    box.wait_job("running")
    runs = time.monotonic()
    wait_until(lambda: time.monotonic() > runs + 0.1)
    went = time.monotonic()
    go(box)
    box.exit()
    after = time.monotonic()
    info = dict(line.split(" ", 1) for line in box.read("jobs/1/info").splitlines())
    assert info["id"] == "1" and info["status"] == "exited 0"
    assert info["cmd_bytes"] == str(len(text))
    assert info["stdout_bytes"] == "6" and info["stderr_bytes"] == "0"
    assert went - runs - 0.002 < int(info["duration_ms"]) / 1000 < after - before + 0.002
    assert info["created"] <= info["started"] <= info["ended"]


# --- the folder ---------------------------------------------------------------

def test_listing(box):
    assert os.listdir(box / "jobs") == []
    for n in range(3):
        box.run(f"echo {n}")
        box.exit()
    assert set(os.listdir(box / "jobs")) == {"1", "2", "3", "latest"}
    assert set(os.listdir(box / "jobs/2")) == FILES
    assert box.latest() == "3"
    assert [box.read(f"jobs/{n}/stdout") for n in (1, 2, 3)] == ["0\n", "1\n", "2\n"]
    assert box.read("jobs/latest/cmd") == "echo 2\n"
    assert box.read("jobs/1/cmd") == "echo 0\n"


def test_no_job_is_not_there(box):
    refused(errno.ENOENT, os.stat, box / "jobs/1")
    refused(errno.ENOENT, os.readlink, box / "jobs/latest")
    refused(errno.ENOENT, os.rmdir, box / "jobs/1")


def test_text_of_a_job_that_has_started_stays(box):
    box.run("echo hello")
    box.exit()
    refused(errno.EBUSY, lambda: box.write("jobs/1/cmd", "echo other"))
    refused(errno.EBUSY, lambda: box.write("jobs/1/cwd", "/tmp"))
    refused(errno.EBUSY, lambda: box.write("jobs/1/env", "A=1"))
    assert box.read("jobs/1/cmd") == "echo hello\n"
    assert box.read("jobs/1/stdout") == "hello\n"


def test_fixed_files_of_a_job(box):
    box.run("true")
    box.exit()
    for name in sorted(FILES):
        refused(errno.EPERM, os.unlink, box / "jobs/1" / name)
    refused(errno.EPERM, os.unlink, box / "jobs/latest")
    refused(errno.EPERM, os.mkdir, box / "jobs/1/new")
    refused(errno.EPERM, os.symlink, "1", box / "jobs/mine")
    refused(errno.EACCES, os.open, box / "jobs/1/status", os.O_WRONLY)


def test_rmdir_forgets_a_finished_job(box):
    box.run("echo one")
    box.run("echo two")
    box.exit()
    box.read("jobs/1/exit")
    os.rmdir(box / "jobs/1")
    assert set(os.listdir(box / "jobs")) == {"2", "latest"}
    assert not (box.mount.folder / "state/sbxfs/vms" / box.name / "jobs/1").exists()
    box.run("echo three")
    assert box.latest() == "3"


def test_rmdir_of_the_latest_job(box):
    """The one before it is the latest then; its number is never used again."""
    box.run("echo one")
    box.exit()
    box.run("echo two")
    box.exit()
    os.rmdir(box / "jobs/2")
    assert box.latest() == "1"
    assert box.out() == "one\n"
    box.run("echo three")
    assert box.latest() == "3"


# --- the end of a job by others -----------------------------------------------

CHILDREN = ("sleep 1000 & echo $!; (setsid sleep 1001 & echo $!); "
            "sh -c 'trap \"\" TERM; sleep 1002' & echo $!; echo $$; wait")


def children_of(box):
    """Pids (the fake guest's are the host's) of the processes of the latest job."""
    wait_until(lambda: box.read("log").count("\n") == 4)
    pids = [int(line) for line in box.read("log").split()]
    assert all(alive(pid) for pid in pids)
    return pids


@pytest.mark.parametrize("how", ["ctl", "rmdir"])
def test_kill_reaches_every_process_of_a_job(box, how):
    """TERM, then KILL for who does not listen; it is over only when they are gone."""
    box.run(CHILDREN)
    pids = children_of(box)
    if how == "ctl":
        box.write("jobs/latest/ctl", "kill\n")
        assert box.exit() in ("143", "137")
        assert box.job_status() in ("signaled TERM", "signaled KILL")
    else:
        os.rmdir(box / "jobs/1")
        wait_until(lambda: not (box / "jobs/1").exists())
    assert not [pid for pid in pids if alive(pid)]


def test_kill_hurts_no_other_job(box):
    box.run(WAIT + "; echo survived")
    box.run("sleep 1000")
    box.wait_job("running")
    box.write("jobs/2/ctl", "kill\n")
    assert box.read("jobs/2/exit") == "143\n"
    go(box)
    assert box.read("jobs/1/stdout") == "survived\n"


def test_kill_of_a_finished_job(box):
    box.run("true")
    box.exit()
    refused(errno.ESRCH, lambda: box.write("jobs/1/ctl", "kill\n"))
    assert box.exit() == "0"


def test_kill_before_the_start(mount):
    box = mount.box(None, f"boot {LONG}", wait=False)
    box.run("echo never")
    assert box.job_status() == "queued"
    box.write("jobs/1/ctl", "kill\n")
    assert box.exit() == "cancelled"
    assert box.job_status() == "cancelled"
    assert box.out() == ""
    box.destroy()


def test_unknown_verb_of_a_job(box):
    box.run("true")
    refused(errno.EINVAL, lambda: box.write("jobs/1/ctl", "dance\n"))
    assert "dance" in box.error() and "kill" in box.error()


def test_readers_of_a_job_that_is_removed_end(box, spawn):
    box.run("sleep 1000")
    readers = [spawn(["cat", box / name], stdout=-1) for name in ("stdout", "exit")]
    box.wait_job("running")
    os.rmdir(box / "jobs/1")
    for reader in readers:
        reader.wait(60)


# --- named jobs ---------------------------------------------------------------

def test_named_job(box):
    os.mkdir(box / "jobs/build-1.x_y")
    assert box.read("jobs/build-1.x_y/status") == "collecting\n"
    box.write("jobs/build-1.x_y/cmd", "echo named")
    assert box.read("jobs/build-1.x_y/stdout") == "named\n"
    assert box.read("jobs/build-1.x_y/exit") == "0\n"


def test_named_job_waits_for_its_text(box):
    os.mkdir(box / "jobs/later")
    subprocess.run(["sh", "-c", ": > jobs/later/cmd"], cwd=box, check=True)
    assert box.read("jobs/later/status") == "collecting\n"
    box.write("jobs/later/cmd", "echo now")
    assert box.read("jobs/later/stdout") == "now\n"


def test_names_of_jobs(box):
    os.mkdir(box / "jobs/x")
    refused(errno.EEXIST, os.mkdir, box / "jobs/x")
    for name in ("7", "latest", "-x", ".x", "a b", "a\nb", "ä"):
        with pytest.raises(OSError) as caught:
            os.mkdir(box / "jobs" / name)
        assert caught.value.errno in (errno.EINVAL, errno.EEXIST), name
    refused(errno.ENAMETOOLONG, os.mkdir, box / "jobs" / ("x" * 64))
    refused(errno.EPERM, os.open, box / "jobs/file", os.O_WRONLY | os.O_CREAT)


def test_named_job_that_never_ran_can_be_removed(box):
    os.mkdir(box / "jobs/x")
    os.rmdir(box / "jobs/x")
    assert not (box / "jobs/x").exists()
    os.mkdir(box / "jobs/x")


# --- cwd and env --------------------------------------------------------------

def test_cwd(box):
    box.write("cwd", "/tmp")
    assert box.ask("pwd") == b"/tmp\n"
    box.run("#!/bin/pwd\n")
    assert box.out() == "/tmp\n"


def test_cwd_with_blanks_and_quotes(box):
    folder = box.home / "it's \"my\" $folder"
    folder.mkdir()
    box.write("cwd", f"{box.guest_home}/{folder.name}")
    assert box.ask("pwd") == f"{box.guest_home}/{folder.name}\n".encode()


def test_cwd_that_is_not_there(box):
    box.write("cwd", "/no/such/folder")
    box.run("echo ran")
    assert box.exit() != "0"
    assert box.out() == ""
    assert "/no/such/folder" in box.err()


def test_env(box):
    box.write("env", "A=1\nB=two  words\nC=it's \"$HOME\" `x` \\\nEMPTY=\nD=a=b\n")
    box.run("printf '%s|' \"$A\" \"$B\" \"$C\" \"${EMPTY-unset}\" \"$D\"")
    assert box.out() == "1|two  words|it's \"$HOME\" `x` \\||a=b|"
    box.run("#!/usr/bin/python3\nimport os\nprint(os.environ['B'])\n")
    assert box.out() == "two  words\n"


@pytest.mark.parametrize("bad", ["A", "=1", "1A=x", "A B=x", "A-B=x"])
def test_bad_env(box, bad):
    refused(errno.EINVAL, lambda: box.write("env", bad + "\n"))
    assert "NAME=VALUE" in box.error()


def test_cwd_and_env_of_one_job(box):
    box.write("env", "A=default\n")
    os.mkdir(box / "jobs/x")
    assert box.read("jobs/x/env") == "A=default\n"
    box.write("jobs/x/env", "A=mine\n")
    box.write("jobs/x/cwd", "/var\n")
    box.write("jobs/x/cmd", "echo $A; pwd")
    assert box.read("jobs/x/stdout") == "mine\n/var\n"
    assert box.ask("echo $A; pwd") == f"default\n{box.guest_home}\n".encode()


# --- waiting for the sandbox, and for a channel -------------------------------

def test_a_job_waits_until_its_sandbox_runs(mount, spawn):
    box = mount.box(None, f"create {LONG}", f"boot {LONG}", wait=False)
    box.run("echo at last")
    reader = spawn(["cat", box / "stdout"], stdout=-1)
    assert box.job_status() == "queued"
    box.control("create 0")
    box.wait_status("booting")
    assert box.job_status() == "queued"
    assert "waits_for" in box.read("jobs/1/info")
    box.control("boot 0")
    assert reader.communicate(timeout=60)[0] == b"at last\n"
    assert box.exit() == "0"
    box.destroy()


def test_more_jobs_than_channels(new_mount):
    """Beyond the budget they are queued; all of them run in the end."""
    box = new_mount(CONFIG + "[limits]\nconnections = 1\n").start().box()
    for n in range(30):
        box.run(f"{WAIT}; echo {n}")

    def running():
        return [box.read(f"jobs/{n}/status") for n in range(1, 31)].count("running\n")

    wait_until(lambda: running() >= 8)
    time.sleep(0.2)
    assert running() <= 9       # sshd allows 10: one is left for the disk
    assert box.read("jobs/30/status") == "queued\n"
    assert "channel" in box.read("jobs/30/info")
    assert box.disk.is_dir()
    go(box)
    assert [box.read(f"jobs/{n}/stdout") for n in range(1, 31)] == [f"{n}\n" for n in range(30)]


def test_a_server_with_few_channels(mount):
    box = mount.box(None, "maxsessions 2")
    for n in range(12):
        box.run(f"echo {n}")
    assert [box.read(f"jobs/{n}/stdout") for n in range(1, 13)] == [f"{n}\n" for n in range(12)]
    assert [box.read(f"jobs/{n}/exit") for n in range(1, 13)] == ["0\n"] * 12
    box.destroy()


def test_a_hundred_jobs_at_once(box):
    for n in range(100):
        box.run(f"echo {n}")
    assert [box.read(f"jobs/{n}/stdout") for n in range(1, 101)] == [f"{n}\n" for n in range(100)]


# --- links that break ---------------------------------------------------------

def test_lost_is_never_an_invented_number(box):
    """The connection is cut while it runs: nobody knows how it ended."""
    box.run("echo before; sleep 1000")
    fd = os.open(box / "stdout", os.O_RDONLY)
    assert os.read(fd, 100) == b"before\n"
    box.control("cut")
    assert box.exit() == "lost"
    assert box.job_status().startswith("lost ")
    assert os.read(fd, 100) == b""
    os.close(fd)
    assert box.ask("echo again") == b"again\n"


def test_lost_when_the_daemon_ends_first(own_mount):
    box = own_mount.box()
    box.run("echo before; sleep 1000")
    wait_until(lambda: box.read("log") == "before\n")
    own_mount.stop()
    own_mount.start()
    assert box.exit() == "lost"
    assert box.out() == "before\n"


def test_lost_when_the_daemon_is_killed(own_mount):
    box = own_mount.box()
    box.run("echo before; sleep 1000")
    wait_until(lambda: box.read("log") == "before\n")
    own_mount.kill()
    own_mount.start()
    assert box.exit() == "lost"
    assert box.out() == "before\n"
    box.run("echo after")
    assert box.out() == "after\n"
    assert box.latest() == "2"


def test_queued_jobs_survive_a_cut(new_mount):
    box = new_mount(CONFIG + "[limits]\nconnections = 1\n").start().box()     # so that some wait
    for n in range(12):
        box.run(f"{WAIT}; echo {n}")
    wait_until(lambda: box.read("jobs/1/status") == "running\n")
    box.control("cut")
    go(box)
    results = [box.read(f"jobs/{n}/exit") for n in range(1, 13)]
    assert set(results) == {"lost\n", "0\n"}
    for n, result in enumerate(results):
        if result == "0\n":
            assert box.read(f"jobs/{n + 1}/stdout") == f"{n}\n"


def test_a_halt_in_the_middle(mount):
    box = mount.box()
    box.run("sleep 1000")
    box.wait_job("running")
    box.control("halt")
    box.wait_status("stopped")
    assert box.exit() == "lost"
    box.destroy()


def test_cancelled_when_the_sandbox_fails(mount):
    box = mount.box(None, f"boot {LONG}", "failboot", wait=False)
    box.run("echo never")
    box.control("boot 0")
    box.wait_status("failed")
    assert box.exit() == "cancelled"
    assert box.out() == ""
    refused(errno.EHOSTDOWN, box.run, "echo never")
    box.destroy()
