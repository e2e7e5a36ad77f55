"""`.sbxfs/events`: what happened, in order, told to whoever reads, kept over restarts."""

import json
import os
import select
import shutil
import signal
import subprocess

from support import blocked_in_read, matches, wait_until


class Follower:
    """Reads the stream as a program would: blocking, from its beginning."""

    def __init__(self, mount):
        self.fd = os.open(mount / ".sbxfs/events", os.O_RDONLY)
        self.rest, self.seen = b"", []

    def next(self):
        while b"\n" not in self.rest:
            self.rest += os.read(self.fd, 65536)
        line, self.rest = self.rest.split(b"\n", 1)
        self.seen.append(json.loads(line))
        return self.seen[-1]

    def until(self, event, **fields):
        """The next event of that kind with those fields."""
        while True:
            e = self.next()
            if e.get("event") == event and all(e.get(k) == v for k, v in fields.items()):
                return e

    def close(self):
        os.close(self.fd)


def test_the_life_of_a_sandbox_is_told(own_mount):
    """From mkdir to gone, with who asked; numbers without a gap, times that do not go back."""
    follow = Follower(own_mount)
    box = own_mount.box("web")
    created = follow.until("created", sandbox="web")
    assert created["backend"] == "fake" and created["uid"] == os.getuid()
    assert created["pid"] == os.getpid()
    assert created["memory"] == 1 << 30
    follow.until("running", sandbox="web")
    box.run("echo hello; exit 3")
    assert box.exit() == "3"
    started = follow.until("job_started", sandbox="web")
    assert started["job"] == "1" and started["pid"] == os.getpid()
    ended = follow.until("job_ended", sandbox="web", job="1")
    assert ended["exit"] == 3 and ended["status"] == "exited 3" and ended["duration_ms"] >= 0
    box.path.rmdir()
    follow.until("destroying", sandbox="web")
    follow.until("destroyed", sandbox="web")
    follow.close()
    numbers = [e["seq"] for e in follow.seen]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    times = [e["time"] for e in follow.seen]
    assert times == sorted(times)


def test_a_job_whose_link_broke_is_told_as_lost(own_mount):
    box = own_mount.box("web")
    follow = Follower(own_mount)
    box.run("sleep 1000")
    follow.until("job_started", sandbox="web")
    own_mount.control("web", "cut")
    assert follow.until("job_ended", sandbox="web")["exit"] == "lost"
    follow.close()


def test_unreachable_and_failed_say_why(own_mount):
    follow = Follower(own_mount)
    own_mount.box("dud", "failcreate", wait=False)
    failed = follow.until("failed", sandbox="dud")
    assert failed["error"] == (own_mount / "dud/error").read_text().strip()
    own_mount.box("web")
    own_mount.control("web", "refuse", "cut")
    down = follow.until("unreachable", sandbox="web")
    assert down["was"] == "running" and down["error"]
    follow.close()


def test_the_end_waits_and_can_be_interrupted(own_mount, spawn):
    reader = spawn(["cat", own_mount / ".sbxfs/events"], stdout=subprocess.DEVNULL)
    wait_until(lambda: blocked_in_read(reader))
    reader.send_signal(signal.SIGINT)
    assert reader.wait(60) == -signal.SIGINT


def test_tail_follows(own_mount, spawn):
    tail = spawn(["tail", "-n", "1", "-f", own_mount / ".sbxfs/events"],
                 stdout=subprocess.PIPE, text=True)
    assert json.loads(tail.stdout.readline())["event"] == "started"
    own_mount.box("web", wait=False)
    assert json.loads(tail.stdout.readline())["event"] == "created"


def test_poll_tells_that_a_line_came(own_mount):
    fd = os.open(own_mount / ".sbxfs/events", os.O_RDONLY | os.O_NONBLOCK)
    try:
        while True:
            try:
                os.read(fd, 65536)
            except BlockingIOError:
                break
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        assert poll.poll(0) == []
        own_mount.box("web", wait=False)
        assert poll.poll(60000)
        assert b'"created"' in os.read(fd, 65536)
    finally:
        os.close(fd)


def test_they_are_kept_over_kill_and_restart(own_mount):
    """The same lines with the same numbers, then that it started, then who is there."""
    own_mount.box("web")
    own_mount.box("db")
    before = own_mount.events()
    own_mount.kill()
    own_mount.start()
    after = own_mount.events()
    assert after[:len(before)] == before
    news = after[len(before):]
    assert news[0]["event"] == "started" and news[0]["seq"] == before[-1]["seq"] + 1
    assert {e["sandbox"] for e in news if e["event"] == "adopted"} == {"web", "db"}


def test_what_went_while_nobody_looked_is_told_at_the_start(own_mount):
    """The daemon was killed when a sandbox was gone, but not yet told so."""
    own_mount.box("web")
    own_mount.box("db")
    own_mount.kill()
    own_mount.sweep()
    for path in matches(own_mount.fake.parent, "**/web"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    own_mount.start()
    news = own_mount.events()
    news = news[max(i for i, e in enumerate(news) if e["event"] == "started"):]
    assert [(e["sandbox"], e["event"], e.get("why")) for e in news if "sandbox" in e][:2] == [
        ("web", "destroyed", "gone when sbxfs started"), ("db", "adopted", None)]


def test_a_removal_that_was_interrupted_is_told_once_at_its_end(own_mount):
    own_mount.control("web", "destroy 600000")
    own_mount.box("web")
    (own_mount / "web").rmdir()
    own_mount.kill()

    def ends():
        return [e for e in own_mount.events() if e["event"] == "destroyed"]
    own_mount.start()
    wait_until(ends)
    assert [e["sandbox"] for e in ends()] == ["web"] and not (own_mount / "web").exists()


def test_reading_it_says_nothing(own_mount):
    """Readers, listings and stats are no events."""
    own_mount.box("web")
    before = len(own_mount.events())
    os.listdir(own_mount)
    os.stat(own_mount / "web/stdout")
    (own_mount / "web/info").read_text()
    (own_mount / ".sbxfs/metrics").read_text()
    assert len(own_mount.events()) == before


def test_a_reader_opened_before_is_not_disturbed_by_others(own_mount):
    follow = Follower(own_mount)
    follow.until("started")
    fd = os.open(own_mount / ".sbxfs/events", os.O_RDONLY | os.O_NONBLOCK)
    own_mount.box("web", wait=False)
    assert follow.until("created")["sandbox"] == "web"
    assert b'"started"' in os.read(fd, 100)
    os.close(fd)
    follow.close()


def test_the_file_refuses_writers(own_mount):
    assert os.stat(own_mount / ".sbxfs/events").st_mode & 0o777 == 0o444
    assert "events" in os.listdir(own_mount / ".sbxfs")


def test_a_rename_is_told(own_mount):
    follow = Follower(own_mount)
    box = own_mount.box("web")
    os.rename(box, own_mount / "api")
    assert follow.until("renamed", sandbox="api")["was"] == "web"
    follow.close()
