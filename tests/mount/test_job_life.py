"""How jobs end: timeouts, signals, children in the background; what is told of them; limits."""

import contextlib
import datetime
import errno
import json
import os
import subprocess
import time

import pytest

from support import CONFIG, alive, refused, wait_until

WAIT = "while [ ! -e go ]; do sleep 0.01; done"
# Two children that stay, and one that has left everything: session, parent, environment.
FAMILY = ("echo $$; sleep 1000 & echo $!; setsid sleep 1001 & echo $!; "
          "env -i setsid sh -c 'sleep 1002 & echo $!'; echo ready; wait")


def go(box):
    (box.home / "go").touch()


def info(box, job="latest"):
    return json.loads(box.read(f"jobs/{job}/info.json"))


def start_family(box, job="latest"):
    """Run FAMILY; the pids of its processes, which for the fake backend are the host's."""
    wait_until(lambda: box.read(f"jobs/{job}/log").endswith("ready\n"))
    pids = [int(line) for line in box.read(f"jobs/{job}/log").split()[:-1]]
    assert len(pids) == 4 and all(alive(pid) for pid in pids)
    return pids


def when(event):
    """Its time, in seconds."""
    return datetime.datetime.fromisoformat(event["time"].replace("Z", "+00:00")).timestamp()


def none_alive(pids):
    return not [pid for pid in pids if alive(pid)]


def test_a_variable_of_the_mark_s_name_hides_nothing(box):
    """One that has left session and parent, and has another limit, still has the mark."""
    os.mkdir(box / "jobs/x")
    box.write("jobs/x/env", "A=1\nSBXFS_JOB=mine\nB=2\n")
    box.write("jobs/x/cmd", "ulimit -S -f 1000000; "
                            "(setsid sh -c 'echo $$ $A $B; exec sleep 1003' &); sleep 1004")
    wait_until(lambda: box.read("jobs/x/log").endswith("1 2\n"))
    pid = int(box.read("jobs/x/log").split()[0])
    assert alive(pid)
    box.write("jobs/x/ctl", "kill")
    assert box.read("jobs/x/exit") == "143\n" and not alive(pid)


# --- timeout --------------------------------------------------------------------

def test_timeout_ends_the_whole_family(box):
    os.mkdir(box / "jobs/x")
    box.write("jobs/x/timeout", "1s")
    assert box.read("jobs/x/timeout") == "1s\n"
    box.write("jobs/x/cmd", FAMILY)
    wait_until(lambda: box.read("jobs/x/status") == "timeout\n")
    # As many as have come so far: all, unless the guest is very slow.
    assert none_alive([int(word) for word in box.read("jobs/x/log").split() if word != "ready"])
    assert box.read("jobs/x/exit") == "124\n"
    assert info(box, "x")["exit"] == "124" and info(box, "x")["timeout"] == "1s"
    assert info(box, "x")["duration_ms"] >= 1000


def test_status_says_timeout_only_when_nothing_is_left(box):
    """As the issue of a timeout is usually looked at: sh with two children that wait."""
    os.mkdir(box / "jobs/x")
    box.write("jobs/x/timeout", "1")
    box.write("jobs/x/cmd", "sh -c 'sleep 1000 & sleep 1000 & wait'")
    wait_until(lambda: box.read("jobs/x/status") == "timeout\n")
    assert not box.mount.job_processes(box.name)


def test_timeout_written_while_it_runs(box):
    box.run("sleep 1000")
    box.wait_job("running")
    assert box.read("jobs/1/timeout") == ""
    box.write("jobs/1/timeout", "1h")
    assert box.job_status() == "running"
    box.write("jobs/1/timeout", "10ms")
    assert box.exit() == "124"
    refused(errno.EBUSY, box.write, "jobs/1/timeout", "1h")


def test_timeout_taken_away_in_time(box):
    for seconds in (2, 8, 32):
        job = f"jobs/x{seconds}"
        os.mkdir(box / job)
        box.write(f"{job}/timeout", f"{seconds}s")
        box.write(f"{job}/cmd", f"sleep {seconds + 0.5}; echo slept")
        try:
            box.write(f"{job}/timeout", "0")
            break
        except OSError as e:        # a slow machine: it was not in time
            assert e.errno == errno.EBUSY
    assert box.read(f"{job}/exit") == "0\n"
    assert box.read(f"{job}/stdout") == "slept\n"


def test_timeout_of_a_sandbox_is_that_of_new_jobs(box):
    box.write("timeout", "500ms\n")
    assert box.read("timeout") == "500ms\n"
    box.run("sleep 1000")
    assert box.exit() == "124"
    box.write("timeout", "0")
    assert box.read("timeout") == ""
    box.run("sleep 0.6; echo fine")
    assert box.out() == "fine\n" and box.exit() == "0"


def test_default_timeout_and_a_restart(new_mount):
    mount = new_mount(CONFIG + "[defaults]\ntimeout = 700ms\n").start()
    box, other = mount.box(), mount.box()
    assert box.read("timeout") == "700ms\n"
    other.write("timeout", "90m")
    box.run("sleep 1000")
    assert box.exit() == "124"
    mount.stop()
    mount.start()
    assert (box.read("timeout"), other.read("timeout")) == ("700ms\n", "1h30m\n")
    assert box.job_status() == "timeout" and box.exit() == "124"


def test_one_that_ends_in_time_has_its_own_result(box):
    box.write("timeout", "20s")
    box.run("exit 3")
    assert box.exit() == "3" and box.job_status() == "exited 3"


@pytest.mark.parametrize("bad", ["soon", "1.5s", "-1s", "1h 30m", "5 m", "30m1h", "99999999d"])
def test_bad_timeouts(box, bad):
    refused(errno.EINVAL, box.write, "timeout", bad)
    assert "30s" in box.error()
    os.mkdir(box / "jobs/x")
    refused(errno.EINVAL, box.write, "jobs/x/timeout", bad)
    assert box.read("timeout") == box.read("jobs/x/timeout") == ""


# --- kill, signals --------------------------------------------------------------------

@pytest.mark.parametrize("how", ["kill", "rmdir", "killall"])
def test_nobody_escapes(box, how):
    box.run(FAMILY)
    pids = start_family(box)
    if how == "kill":
        box.write("jobs/1/ctl", "kill")
        assert box.exit() in ("143", "137")
    elif how == "killall":
        box.write("ctl", "killall")
        assert box.exit() in ("143", "137")
    else:
        os.rmdir(box / "jobs/1")
        wait_until(lambda: not (box / "jobs/1").exists())
    assert none_alive(pids)


def test_kill_of_who_does_not_listen(box):
    """TERM is ignored: KILL comes when the grace is over, and nothing is told before."""
    box.run("trap '' TERM; echo $$; setsid sleep 1000 & echo $!; echo ready; "
            "while :; do sleep 1000; done")
    wait_until(lambda: "ready" in box.read("log"))
    pids = [int(word) for word in box.read("log").split()[:-1]]
    box.write("jobs/1/ctl", "kill")
    assert box.job_status() in ("running", "signaled KILL")
    assert box.exit() == "137" and box.job_status() == "signaled KILL"
    assert none_alive(pids)


def test_a_kill_that_cannot_go_on_holds_up_nobody(box):
    """The command has ended, its child is asked to end and does not; then the line is cut."""
    box.run("(trap 'touch asked' TERM; while :; do echo; sleep 0.05; done) & echo $$ >pid; exit 3")
    wait_until(lambda: (box.home / "pid").exists() and (box.home / "pid").read_text())
    wait_until(lambda: not alive(int((box.home / "pid").read_text())))
    box.write("jobs/latest/ctl", "kill")
    wait_until(lambda: (box.home / "asked").exists())
    box.control("dead")
    assert box.exit() == "3" and box.job_status() == "exited 3"


def test_killall_spares_other_sandboxes(mount):
    box, other = mount.box(), mount.box()
    for n in range(12):
        box.run("sleep 1000")
    other.run(WAIT + "; echo here")
    wait_until(lambda: "running" == other.job_status())
    wait_until(lambda: box.read("jobs/1/status") == "running\n")
    box.write("ctl", "killall")
    results = {box.read(f"jobs/{n}/exit") for n in range(1, 13)}
    assert results <= {"143\n", "cancelled\n"}
    assert not mount.job_processes(box.name)
    go(other)
    assert other.out() == "here\n"
    for b in (box, other):
        b.destroy()


def test_signal_is_for_every_process(box):
    box.run("(trap 'echo child; exit' USR1; echo a; while :; do sleep 0.01; done) & "
            "trap 'wait; echo parent; exit 7' USR1; echo b; while :; do sleep 0.01; done")
    wait_until(lambda: len(box.read("log")) == 4)
    box.write("jobs/1/ctl", "signal USR1")
    assert box.exit() == "7"
    assert sorted(box.out().split()) == ["a", "b", "child", "parent"]
    assert info(box)["status"] == "exited 7"


def test_stop_and_cont(box):
    box.run("while [ ! -e go ]; do sleep 0.01; done; echo woke")
    box.wait_job("running")
    pid = wait_until(lambda: info(box).get("pid"))
    box.write("jobs/1/ctl", "signal sigstop")
    wait_until(lambda: open(f"/proc/{pid}/stat").read().split()[2] == "T")
    go(box)
    box.write("jobs/1/ctl", "signal CONT")
    assert box.out() == "woke\n" and box.exit() == "0"


def test_kill_of_a_stopped_job(box):
    box.run("kill -STOP $$; echo never")
    pid = wait_until(lambda: info(box).get("pid"))
    wait_until(lambda: open(f"/proc/{pid}/stat").read().split()[2] == "T")
    box.write("jobs/1/ctl", "kill")
    assert box.exit() == "143" and box.out() == ""


def test_bad_signals(box):
    box.run(WAIT)
    box.wait_job("running")
    for bad in ("NOPE", "9", "", "TERM KILL", "TERM; reboot"):
        refused(errno.EINVAL, box.write, "jobs/1/ctl", f"signal {bad}\n")
        assert "signal" in box.error()
    go(box)
    assert box.exit() == "0"
    refused(errno.ESRCH, box.write, "jobs/1/ctl", "signal TERM")
    os.mkdir(box / "jobs/x")
    refused(errno.EAGAIN, box.write, "jobs/x/ctl", "signal TERM")


# --- children in the background ---------------------------------------------------------

def test_a_child_in_the_background_holds_nobody_up(box):
    assert box.ask("sleep 1000 & echo $!; echo done; exit 4").endswith(b"done\n")
    assert box.exit() == "4" and box.job_status() == "exited 4"
    child = int(box.out().split()[0])
    assert alive(child)
    box.write("jobs/1/ctl", "kill")
    wait_until(lambda: not alive(child))
    assert box.exit() == "4"


def test_a_server_in_the_background_lives_on(box):
    """It writes on and on to what was the job's output, and nothing breaks its pipe."""
    assert box.ask("(while sleep 0.01; do echo tick; date +%s%N >beat; done) & echo $!; "
                   "exit 0").decode()
    child = int(box.out().split()[0])
    seen = box.ask("cat beat")
    wait_until(lambda: box.ask("cat beat") not in (seen, b""))
    assert alive(child)
    size = os.stat(box / "jobs/1/stdout").st_size
    beat = (box.home / "beat").read_text()
    wait_until(lambda: (box.home / "beat").read_text() not in ("", beat))
    assert os.stat(box / "jobs/1/stdout").st_size == size       # it is over: nothing is added
    os.rmdir(box / "jobs/1")
    wait_until(lambda: not alive(child))        # now its pipe is closed


def test_what_the_command_wrote_itself_comes_whole(box):
    """More than fits into a pipe, and a child that keeps the output open."""
    for _ in range(5):
        out = box.ask("head -c 3000000 /dev/zero; sleep 1000 &")
        assert len(out) == 3000000
        box.write("ctl", "killall")


def test_jobs_that_wait_take_the_channels_of_those_that_linger(new_mount):
    mount = new_mount(CONFIG + "[limits]\nconnections = 1\n").start()
    box = mount.box()
    for n in range(20):
        box.run(f"sleep 1000 & echo {n}")
    assert [box.read(f"jobs/{n}/stdout") for n in range(1, 21)] == [f"{n}\n" for n in range(20)]
    assert {box.read(f"jobs/{n}/exit") for n in range(1, 21)} == {"0\n"}
    box.write("ctl", "killall")


# --- what is told ------------------------------------------------------------------------

def test_info_json(box):
    box.write("env", "SECRET=hunter2\nB=\n")
    box.write("timeout", "1h")
    os.mkdir(box / "jobs/x")
    box.write("jobs/x/cwd", "/usr")
    with open(box / "jobs/x/cmd", "w") as f:
        f.write("echo $$; pwd; echo oops >&2; exit 5\n# more\n")
    assert box.read("jobs/x/exit") == "5\n"
    facts = info(box, "x")
    assert facts["pid"] == int(box.read("jobs/x/stdout").split()[0])
    assert facts["command"] == "echo $$; pwd; echo oops >&2; exit 5"
    assert facts["cwd"] == "/usr" and facts["env"] == "SECRET B" and facts["timeout"] == "1h"
    assert facts["status"] == "exited 5" and facts["exit"] == "5"
    assert facts["stdout_bytes"] == len(box.read("jobs/x/stdout")) and facts["stderr_bytes"] == 5
    assert facts["dropped_bytes"] == 0 and facts["duration_ms"] >= 0
    assert facts["created"] <= facts["started"] <= facts["ended"]
    assert "hunter2" not in box.read("jobs/x/info.json") + box.read("jobs/x/info")
    lines = dict(line.split(" ", 1) for line in box.read("jobs/x/info").splitlines())
    assert set(lines) == set(facts) and lines["pid"] == str(facts["pid"])


def test_info_survives_a_restart(own_mount):
    box = own_mount.box()
    box.run("echo x; exit 9")
    box.exit()
    before = info(box)
    own_mount.stop()
    own_mount.start()
    assert info(box) == before


@pytest.mark.parametrize("rebooted", [False, True])
def test_what_a_killed_daemon_had_not_started_is_cancelled(own_mount, rebooted):
    """It may be asked for again: it never ran. Of what was started nobody knows."""
    box, never = own_mount.box(), own_mount.box("never", "boot 3600000", wait=False)
    box.run("sleep 1000")
    wait_until(lambda: box.job_status() == "running")
    os.mkdir(box / "jobs/prepared")
    fd = os.open(box / "cmd", os.O_WRONLY)
    os.write(fd, b"half a ")
    never.run("true")
    assert never.job_status() == "queued"
    own_mount.kill()
    with contextlib.suppress(OSError):
        os.close(fd)
    if rebooted:
        (own_mount.folder / "state/sbxfs/boot").write_text("another\n")
    not_started = "lost\n" if rebooted else "cancelled\n"
    for _ in range(2):
        own_mount.start()
        assert box.read("jobs/1/exit") == "lost\n"
        for job in (box / "jobs/2", box / "jobs/prepared", never / "jobs/1"):
            assert (job / "exit").read_text() == not_started
        reason = info(box, "2")["reason"]
        assert reason == "sbxfs ended before the job " + ("did" if rebooted else "was started")
        own_mount.stop()


def test_timeout_of_a_job_that_is_over_is_its_own(own_mount):
    """Neither a restart nor what the sandbox has by then makes another one of it."""
    box = own_mount.box()
    box.write("timeout", "1h")
    for name in ("plain", "given", "none", "cancelled"):
        os.mkdir(box / "jobs" / name)
    box.write("jobs/given/timeout", "100s")
    box.write("jobs/none/timeout", "0")
    box.write("jobs/cancelled/ctl", "kill")
    for name in ("plain", "given", "none"):
        box.write(f"jobs/{name}/cmd", "true")
        assert box.read(f"jobs/{name}/exit") == "0\n"
    box.write("timeout", "2h")
    wanted = {"plain": "1h\n", "given": "1m40s\n", "none": "", "cancelled": ""}
    for _ in range(2):
        assert {name: box.read(f"jobs/{name}/timeout") for name in wanted} == wanted
        assert info(box, "given")["timeout"] == "1m40s" and "timeout" not in info(box, "none")
        own_mount.stop()
        own_mount.start()


def test_info_of_a_text_that_cannot_be_shown(box):
    box.run(b"echo \"\xff\t\xc3\xa4\"\nmore\n")
    box.exit()
    assert info(box)["command"] == 'echo "????"'


def test_exit_and_status_change_together(box):
    """Whoever sees one of them sees the other."""
    for n in range(30):
        box.run(f"exit {n}")
        while (status := box.job_status()) in ("queued", "running"):
            pass
        fd = os.open(box / "jobs/latest/exit", os.O_RDONLY | os.O_NONBLOCK)
        assert os.read(fd, 10) == f"{n}\n".encode()
        os.close(fd)
        assert status == f"exited {n}"


# --- history -------------------------------------------------------------------------------

def test_history_is_kept_up_to_a_limit(new_mount):
    mount = new_mount(CONFIG + "[limits]\njobs = 5\n").start()
    box = mount.box()
    box.run("cat stdin-that-is-not-there; " + WAIT)
    for n in range(2, 12):
        assert box.ask(f"echo {n}") == f"{n}\n".encode()
    kept = set(os.listdir(box / "jobs")) - {"latest"}
    assert kept == {"1", "8", "9", "10", "11"}, "oldest first, never one that runs"
    go(box)
    assert box.read("jobs/1/exit") == "0\n"

    def pruned():
        """At each new job; one that is over may still have its channel for a moment."""
        os.mkdir(box / "jobs/named")
        left = os.listdir(box / "jobs")
        os.rmdir(box / "jobs/named")
        return "1" not in left
    wait_until(pruned)


def test_numbers_are_never_used_again(own_mount):
    box = own_mount.box()
    for n in range(3):
        box.ask("true")
    os.rmdir(box / "jobs/3")
    os.rmdir(box / "jobs/2")
    own_mount.kill()
    own_mount.start()
    box.ask("true")
    assert set(os.listdir(box / "jobs")) == {"1", "4", "latest"}


# --- many at once, and links ------------------------------------------------------------------

def running(box, jobs):
    return [box.read(f"jobs/{n}/status") for n in jobs].count("running\n")


@pytest.mark.deadline(400)
def test_a_hundred_jobs_run_at_once(mount):
    """sshd's default of ten channels a connection: more connections, one after the other."""
    box = mount.box(None, "maxsessions 10")
    jobs = range(1, 101)
    for n in jobs:
        box.run(f"{WAIT}; echo {n}")
    wait_until(lambda: running(box, jobs) == 100, 200, 0.1)
    assert int(box.info()["jobs_running"]) == 100
    assert 10 <= int(box.info()["connections"]) <= 16
    go(box)
    assert [box.read(f"jobs/{n}/stdout") for n in jobs] == [f"{n}\n" for n in jobs]
    wait_until(lambda: box.info()["connections"] == "1", 100)       # closed again when idle
    box.destroy()


def test_short_jobs_share_one_connection(box):
    """However many they are: logins cost more than waiting for a turn, of 100 ms at most."""
    begun = time.time()
    for n in range(100):
        box.run(f"echo {n}")
    assert [box.read(f"jobs/{n}/stdout") for n in range(1, 101)] == [f"{n}\n" for n in range(100)]
    connections = int(box.info()["connections"])
    ends = [when(e) for e in box.mount.events()
            if e["event"] == "job_ended" and e["sandbox"] == box.name]
    assert len(ends) == 100
    # Where the machine stands still, no turn comes.
    pauses = sum(int((end - before) / 0.09) for before, end in zip([begun, *ends], ends))
    assert connections <= 1 + pauses


def test_queue_keeps_its_order(new_mount):
    mount = new_mount(CONFIG + "[limits]\nconnections = 1\n").start()
    box = mount.box(None, "maxsessions 3")
    for n in range(20):
        box.run(WAIT)
    wait_until(lambda: box.info()["jobs_running"] == "3")   # the server refused the others
    go(box)
    assert {box.read(f"jobs/{n}/exit") for n in range(1, 21)} == {"0\n"}
    order = [int(e["job"]) for e in mount.events() if e["event"] == "job_started"]
    # A server that has not yet seen the end of a job refuses the next; those behind go on.
    assert all(abs(n - place) <= 3 for place, n in enumerate(order, 1)), order


def test_connections_are_limited(new_mount):
    mount = new_mount(CONFIG + "[limits]\nconnections = 2\n").start()
    box = mount.box()
    jobs = range(1, 41)
    for n in jobs:
        box.run(WAIT)
    wait_until(lambda: running(box, jobs) == 18)
    time.sleep(0.5)
    assert running(box, jobs) == 18 and box.info()["connections"] == "2"
    assert "channel" in box.read("jobs/40/info")
    go(box)
    assert {box.read(f"jobs/{n}/exit") for n in jobs} == {"0\n"}


def test_a_server_with_one_channel(mount):
    """The disk has it: jobs run on a connection of their own."""
    box = mount.box(None, "maxsessions 1")
    assert os.listdir(box.disk) is not None
    for n in range(5):
        box.run(f"echo {n}")
    assert [box.read(f"jobs/{n}/stdout") for n in range(1, 6)] == [f"{n}\n" for n in range(5)]
    box.run("sleep 1000")
    box.wait_job("running")
    box.write("jobs/6/ctl", "kill")
    assert box.exit() == "143"
    box.destroy()


def test_twenty_jobs_whose_connection_is_cut(box):
    jobs = range(1, 21)
    for n in jobs:
        box.run("sleep 1000")
    wait_until(lambda: running(box, jobs) == 20)
    start = time.monotonic()
    box.control("cut")
    assert {box.read(f"jobs/{n}/exit") for n in jobs} == {"lost\n"}
    # Seen at once, and not when a silence would have been, after 15 s.
    assert time.monotonic() - start < 14
    assert all(box.read(f"jobs/{n}/status").startswith("lost the connection") for n in jobs)
    assert box.ask("echo again") == b"again\n"


# --- texts of all kinds ------------------------------------------------------------------------

def test_every_byte_value_without_newline(box):
    text = b"cat <<'E'\n" + bytes(b for b in range(1, 256) if b != 10) + b"\nE\nprintf end"
    want = text[len(b"cat <<'E'\n"):-len(b"E\nprintf end")] + b"end"
    assert box.ask(text) == want


def test_a_text_of_16_mib(box):
    line = b"# " + b"x" * 97 + b"\n"
    text = line * (16 * 1024 * 1024 // 100 - 1)
    text += b"set -e; cat; echo end; false; echo never\n"
    with open(box / "cmd", "wb") as f:
        f.write(text)
    assert box.out() == "end\n"
    assert box.exit() == "1"


def test_a_command_that_closes_its_output(box):
    box.run("exec >&- 2>&-; sleep 0.1; exit 6")
    assert box.exit() == "6" and box.out() == ""


def test_ten_million_lines(box):
    box.run("seq 10000000")
    assert box.exit() == "0"
    out = subprocess.run(["sh", "-c", "wc -l <stdout; tail -n 1 stdout"], cwd=box,
                         capture_output=True, check=True)
    assert out.stdout == b"10000000\n10000000\n"


# --- more output than is kept ---------------------------------------------------------------------

def test_the_middle_of_long_output_is_dropped(new_mount, spawn):
    mount = new_mount(CONFIG + "[limits]\nspool = 64K\n").start()
    box = mount.box()
    box.run(f"seq 1 1000; {WAIT}; seq 1001 100000; echo over >&2")
    reader = spawn(["cat", box / "stdout"], stdout=-1)
    wait_until(lambda: "1000\n" in box.read("log"))
    whole = "".join(f"{n}\n" for n in range(1, 100001))
    go(box)
    assert box.exit() == "0"
    half = 32 * 1024
    line = f"\n[sbxfs: {len(whole) - 2 * half} bytes were dropped here]\n"
    assert box.out() == whole[:half] + line + whole[-half:]
    assert box.err() == "over\n"
    # (sshd reads two pipes: what comes over stderr may overtake the end of stdout)
    log = box.read("log")
    assert log.count("over\n") == 1
    assert log.replace("over\n", "") == whole[:half] + line + whole[-half:]
    # One that read all the time lost no more than that, and was told of it as often as it did.
    live = reader.communicate(timeout=60)[0].decode()
    assert live.startswith(whole[:half]) and live.endswith(whole[-half:])
    facts = info(box)
    assert facts["dropped_bytes"] == len(whole) - 2 * half
    assert facts["stdout_bytes"] == len(whole) == os.stat(box / "stdout").st_size
    assert subprocess.run(["tail", "-n", "2", box / "stdout"], capture_output=True,
                          check=True).stdout == b"99999\n100000\n"
    spool = mount.folder / f"state/sbxfs/vms/{box.name}/jobs/1/stdout"
    assert spool.stat().st_size == 64 * 1024
    mount.stop()
    mount.start()
    assert box.out() == whole[:half] + line + whole[-half:]
    assert info(box) == facts
