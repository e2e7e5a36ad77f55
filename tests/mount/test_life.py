"""ttl and idle: each sandbox ends when it should, none earlier, also behind the daemon's back."""

import errno
import os
import random
import time

import pytest

from support import CONFIG, refused, wait_until

MINUTE, HOUR, DAY = 60, 3600, 86400


class Clock:
    """The daemon's wall clock: real time and what it was moved by."""

    def __init__(self, mount):
        self.mount, self.ahead = mount, 0

    def now(self):
        return time.time() + self.ahead

    def advance(self, seconds):
        self.ahead += seconds
        self.mount.control("@clock", f"advance {seconds * 1000}")

    def advance_unseen(self, seconds):
        """While the daemon is down."""
        self.ahead += seconds
        (self.mount.fake / "clock").write_text(f"{int(self.ahead * 1000)}\n")


def seconds(text):
    """"1h30m5s" as seconds."""
    units = {"d": DAY, "h": HOUR, "m": MINUTE, "s": 1}
    total, digits = 0, ""
    for c in text.strip():
        if c.isdigit():
            digits += c
        else:
            total, digits = total + int(digits) * units[c], ""
    return total


@pytest.fixture
def clock(own_mount):
    return Clock(own_mount)


def test_written_as_a_time_and_read_as_what_is_left(own_mount, clock):
    box = own_mount.box()
    assert box.read("ttl") == "" and box.read("idle") == ""
    box.write("ttl", "30m\n")
    assert 29 * MINUTE < seconds(box.read("ttl")) <= 30 * MINUTE
    clock.advance(10 * MINUTE)
    assert 19 * MINUTE < seconds(box.read("ttl")) <= 20 * MINUTE
    box.write("idle", "2h")
    clock.advance(5 * MINUTE)
    assert 114 * MINUTE < seconds(box.read("idle")) <= 115 * MINUTE
    box.write("ttl", "none")
    assert box.read("ttl") == "" and "expires" not in box.info()
    box.write("idle", "\n")
    assert box.read("idle") == ""
    clock.advance(300 * DAY)
    assert box.ask("echo here") == b"here\n"


@pytest.mark.parametrize("name", ["ttl", "idle"])
@pytest.mark.parametrize("value", ["soon", "-5m", "0", "5 m", "1h1d", "5m\n6m", "99999999999d"])
def test_what_is_no_time(box, name, value):
    refused(errno.EINVAL, box.write, name, value)
    assert "30m" in box.error() and box.read(name) == ""


def test_ttl_ends_it(own_mount, clock):
    """Not a second before; and errors tells why it has gone."""
    box = own_mount.box()
    box.write("ttl", "1h")
    clock.advance(HOUR - 60)
    box.run("sleep 1000")               # whatever runs in it
    box.wait_job("running")
    assert box.status() == "running"
    clock.advance(65)
    wait_until(lambda: not box.path.exists())
    assert "ttl was 1h" in own_mount.errors()
    assert own_mount.guest_processes(box.name) == []


def test_the_kernel_shows_no_name_that_has_gone(own_mount, clock):
    """It may keep the names of sandboxes, for paths that are used again and again."""
    box = own_mount.box()
    box.ask("true")
    box.write("ttl", "1h")
    clock.advance(HOUR + 5)
    while os.stat(own_mount.path).st_nlink > 2:     # (a listing would tell the kernel of names)
        os.access(box.path / "root", os.F_OK)
    assert not os.access(box.path, os.F_OK) and not os.access(box.path / "root", os.F_OK)


def test_what_counts_as_activity(own_mount, clock):
    box = own_mount.box()
    box.write("idle", "1h")
    for act in (lambda: box.ask("true"),
                lambda: (box.disk / "file").write_text("x"),
                lambda: os.mkdir(box.disk / "folder"),
                lambda: os.utime(box.path),
                lambda: os.chmod(box.disk / "file", 0o600)):
        clock.advance(50 * MINUTE)
        assert seconds(box.read("idle")) <= 10 * MINUTE
        act()
        assert seconds(box.read("idle")) > 59 * MINUTE
    box.run("sleep 1000")
    box.wait_job("running")
    clock.advance(10 * HOUR)            # a job that runs is activity, however long it does
    assert box.status() == "running"
    box.write("jobs/latest/ctl", "kill")
    assert box.exit() != ""
    clock.advance(50 * MINUTE)
    assert box.status() == "running"
    clock.advance(11 * MINUTE)
    wait_until(lambda: not box.path.exists())
    assert "idle was 1h" in own_mount.errors()


def test_a_job_that_waits_is_activity(own_mount, clock):
    """Whoever writes one to a sandbox at rest means to go on with it."""
    box = own_mount.box()
    box.write("ctl", "stop")
    box.wait_status("stopped")
    box.write("idle", "1h")
    clock.advance(50 * MINUTE)
    box.run("echo here")
    box.wait_job("queued")
    assert seconds(box.read("idle")) > 59 * MINUTE
    clock.advance(50 * MINUTE)
    box.write("ctl", "start")
    assert box.exit() == "0"


def test_looking_is_no_activity(own_mount, clock):
    """Neither listings nor reads, of control files or of the disk, nor an indexer."""
    box = own_mount.box()
    (box.disk / "file").write_text("text")
    box.ask("echo out")
    box.write("idle", "1h")
    for _ in range(5):
        clock.advance(11 * MINUTE)
        before = seconds(box.read("idle"))
        for name in os.listdir(box):
            os.stat(box / name)
            if name not in ("root", "jobs", "stdin", "ports"):
                box.read(name)
        for folder, _, files in os.walk(box.disk):
            for name in files:
                with open(os.path.join(folder, name), "rb") as f:
                    f.read()
        os.listdir(box / "jobs/1")
        assert seconds(box.read("idle")) <= before
    clock.advance(6 * MINUTE)
    wait_until(lambda: not box.path.exists())


def test_protect_keeps_it(own_mount, clock):
    """...from rmdir and from its ttl; without it both happen."""
    box = own_mount.box()
    assert box.read("protect") == "0\n"
    box.write("protect", "1")
    refused(errno.EBUSY, os.rmdir, box.path)
    assert f"rmdir {box.name} {box.name} is protected" in own_mount.errors().splitlines()[-1]
    assert "is protected" in box.read("error")
    box.write("ttl", "1m")
    clock.advance(HOUR)
    assert box.read("ttl") == "0s\n" and box.status() == "running"
    refused(errno.EINVAL, box.write, "protect", "yes")
    box.write("protect", "0")
    wait_until(lambda: not box.path.exists())


def test_defaults(new_mount):
    mount = new_mount(CONFIG + "[defaults]\nttl = 8h\nidle = 1h\n").start()
    clock, box = Clock(mount), mount.box()
    assert 7 * HOUR < seconds(box.read("ttl")) <= 8 * HOUR
    assert 59 * MINUTE < seconds(box.read("idle")) <= HOUR
    box.write("idle", "none")
    clock.advance(8 * HOUR + 1)
    wait_until(lambda: not box.path.exists())


def test_age_is_the_owners_word(new_mount):
    """[limits] age: no ttl goes beyond it, and protect does not help."""
    mount = new_mount(CONFIG + "[limits]\nage = 2h\n").start()
    clock, box = Clock(mount), mount.box()
    assert HOUR < seconds(box.read("ttl")) <= 2 * HOUR
    refused(errno.EDQUOT, box.write, "ttl", "3h")
    assert "age" in box.error()
    box.write("ttl", "none")
    box.write("protect", "1")
    clock.advance(2 * HOUR)
    wait_until(lambda: not box.path.exists())
    assert "[limits] age was 2h" in mount.errors()


def test_what_ran_out_while_the_daemon_was_down(own_mount, clock):
    over, idle, fresh = (own_mount.box() for _ in range(3))
    over.write("ttl", "2h")
    idle.write("idle", "1h")
    fresh.write("ttl", "9h")
    fresh.write("idle", "4h")
    own_mount.kill()
    clock.advance_unseen(3 * HOUR)
    own_mount.start()
    wait_until(lambda: os.listdir(own_mount) == [fresh.name])
    assert 5 * HOUR < seconds(fresh.read("ttl")) <= 6 * HOUR
    assert 50 * MINUTE < seconds(fresh.read("idle")) <= HOUR


def test_activity_outlives_a_kill(own_mount, clock):
    """The last sign of life before kill -9 counts, not the last clean end."""
    box = own_mount.box()
    box.write("idle", "1h")
    clock.advance(50 * MINUTE)
    (box.disk / "file").write_text("x")
    own_mount.kill()
    clock.advance_unseen(30 * MINUTE)
    own_mount.start()
    wait_until(lambda: box.status() == "running")
    assert 29 * MINUTE <= seconds(box.read("idle")) <= 30 * MINUTE


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_the_time_of_the_folder_is_kept(own_mount, clock, end):
    """`find -mmin` tells after a restart what it told before, without any idle."""
    used, unused = own_mount.box(), own_mount.box()
    clock.advance(2 * HOUR)
    used.ask("true")
    before = {box: os.stat(box).st_mtime_ns for box in (used, unused)}
    getattr(own_mount, end)()
    clock.advance_unseen(HOUR)
    own_mount.start()
    after = {box: os.stat(box).st_mtime_ns for box in (used, unused)}
    if end == "stop":
        assert after == before, "to the millisecond"
    assert abs(after[used] - before[used]) <= 1_000_000_000
    assert clock.now() - after[used] / 1e9 < HOUR + MINUTE
    assert clock.now() - after[unused] / 1e9 > 3 * HOUR - MINUTE


def test_a_job_that_runs_is_a_sign_of_life(own_mount, clock):
    box = own_mount.box()
    box.run("cat; sleep 1000")
    wait_until(lambda: box.job_status() == "running")
    clock.advance(2 * HOUR)
    assert abs(clock.now() - os.stat(box).st_mtime) < MINUTE
    box.write("ctl", "killall")
    assert box.exit() == "143"
    clock.advance(HOUR)
    assert clock.now() - os.stat(box).st_mtime > HOUR - MINUTE


@pytest.mark.deadline(400)
def test_a_day_of_twenty(own_mount, clock):
    """Mixed ttl and idle: each ends in the step it is due in, none earlier; the daemon is
    down now and then, and killed."""
    rng = random.Random(7)
    step = 10 * MINUTE
    boxes, due = [], {}
    ttl, idle, start, active = {}, {}, {}, {}
    for n in range(20):
        box = own_mount.box(f"day-{n}")
        boxes.append(box)
        if n % 3 != 1:
            ttl[box] = rng.randrange(HOUR, 23 * HOUR)
            box.write("ttl", f"{ttl[box]}s")
        if n % 3 != 0:
            idle[box] = rng.randrange(HOUR, 8 * HOUR)
            box.write("idle", f"{idle[box]}s")
        start[box] = active[box] = clock.now()
    alive, ended, midnight = set(boxes), {}, clock.now() + DAY
    while clock.now() < midnight:
        down = rng.random() < 0.1
        if down:
            own_mount.kill() if rng.random() < 0.5 else own_mount.stop()
            clock.advance_unseen(step * rng.randrange(1, 4))
            own_mount.start()
        else:
            clock.advance(step)
        now = clock.now()
        due = {box: min(start[box] + ttl.get(box, 9 * DAY), active[box] + idle.get(box, 9 * DAY))
               for box in alive}
        over = {box for box in alive if due[box] <= now - 30}
        near = {box for box in alive if abs(due[box] - now) < 30}
        wait_until(lambda: not any(box.path.exists() for box in over))
        there = set(os.listdir(own_mount))
        for box in over | near:
            if box.name not in there:
                ended[box] = (due[box], now)
        alive -= set(ended)
        assert {box.name for box in alive} == there, "none ends earlier"
        for box in alive - near:
            if box in idle and rng.random() < 0.15:
                wait_until(lambda: box.status() == "running")
                box.ask("true") if rng.random() < 0.5 else os.utime(box.path)
                active[box] = clock.now()
    assert len(ended) >= 15, "most of them end within the day"
    late = max(now - at for at, now in ended.values())
    print(f"{len(ended)} of 20 ended, the latest {late:.0f} s behind its time, steps of {step} s")
    for box in alive:
        os.rmdir(box.path)
    wait_until(lambda: not os.listdir(own_mount))
