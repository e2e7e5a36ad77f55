"""A fleet under many hands: limits hold and nothing leaks, whoever dies when."""

import contextlib
import errno
import json
import os
import random
import threading
import time

import pytest

from support import CONFIG, write, wait_until

USERS, OPERATIONS, KILLS, SANDBOXES = 8, 1000, 20, 20
MEMORY, DISK = 10 << 30, 60 << 30
NAMES = [f"box-{n}" for n in range(30)]

FLEET = CONFIG.replace("trash = 0", f"""\
trash = 1h
sandboxes = {SANDBOXES}
memory = {MEMORY >> 30}G
disk = {DISK >> 30}G
""") + "[defaults]\nmemory = 512M\ndisk = 2G\n"

# What a user of a fleet that others use too, and whose daemon dies, must expect. Not EIO: that
# would be a mistake of ours.
EXPECTED = {errno.ENOENT, errno.EEXIST, errno.EDQUOT, errno.EBUSY, errno.EINVAL, errno.ESTALE,
            errno.EHOSTDOWN, errno.ENOTCONN, errno.ECONNABORTED, errno.ENODEV, errno.ENOTDIR,
            errno.ENOTEMPTY, errno.EPERM, errno.ENOSYS, errno.EPIPE, errno.ESRCH}


class Users:
    """8 threads that do what comes to their minds until 1,000 things are done."""

    def __init__(self, mount):
        self.mount, self.done, self.refused, self.odd = mount, 0, 0, []
        self.lock = threading.Lock()
        self.up = threading.Event()
        self.up.set()
        self.threads = [threading.Thread(target=self.work, args=(n,)) for n in range(USERS)]

    def trash(self):
        return os.listdir(self.mount / ".sbxfs/trash")

    def operations(self, rng):
        mount, other = self.mount, rng.choice(NAMES)
        name = rng.choice(os.listdir(mount) or NAMES)

        def draft():
            path = mount / ".sbxfs/new" / name
            os.mkdir(path)
            write(path / "memory", rng.choice(["256M", "1G", "4G", "20G"]))
            write(path / "ttl", "8h")
            write(path / "setup", "echo set up > file")
            os.rename(path, mount / other)

        def throw_away():
            for entry in self.trash()[:1]:
                os.rmdir(mount / ".sbxfs/trash" / entry)

        def bring_back():
            for entry in self.trash()[-1:]:
                os.rename(mount / ".sbxfs/trash" / entry, mount / other)

        def port():
            os.mkdir(mount / name / "ports/8080")
            os.rmdir(mount / name / "ports/8080")

        return {
            lambda: os.mkdir(mount / other): 8,
            lambda: os.rmdir(mount / name): 4,
            lambda: os.rename(mount / name, mount / other): 3,
            draft: 3,
            throw_away: 2,
            bring_back: 3,
            port: 1,
            lambda: write(mount / name / "cmd", "echo $RANDOM"): 4,
            lambda: write(mount / name / "tags", rng.choice(["a", "a b", "c"])): 1,
            lambda: write(mount / name / "ttl", "9h"): 1,
            lambda: os.utime(mount / name): 1,
            lambda: write(mount / name / "ctl", rng.choice(
                ["stop", "start", "restart", "pause", "resume", "resize memory=1G",
                 "resize memory=256M"])): 5,
            lambda: [(mount / n / "status").read_text() for n in os.listdir(mount)]: 1,
        }

    def work(self, seed):
        rng = random.Random(seed + 100 * int(os.environ.get("SEED", 0)))
        while self.done < OPERATIONS:
            self.up.wait()
            try:
                operations = self.operations(rng)
                rng.choices(list(operations), operations.values())[0]()
            except OSError as e:
                self.refused += 1
                if e.errno in (errno.ENOTCONN, errno.ECONNABORTED):
                    continue        # there was no daemon to ask
                if e.errno not in EXPECTED:
                    self.odd.append(repr(e))
            with self.lock:
                self.done += 1


class Facts:
    """What there really is: the records of the fake backend, without the daemon."""

    def __init__(self, mount):
        self.mount, self.most = mount, [0, 0, 0]

    def records(self):
        """By id: the backend's record, and whether the daemon has noted that it goes."""
        found = {}
        for path in (self.mount.fake / "records").iterdir():
            if "." in path.name:
                continue
            with contextlib.suppress(FileNotFoundError):
                noted = self.mount.folder / "state/sbxfs/vms" / path.name / "record.json"
                goes = noted.exists() and '"destroying"' in noted.read_text()
                found[path.name] = path.read_text() + f"goes {goes}\n"
        return found

    def snapshot(self):
        """All of them as they were at one time: read twice, the same twice."""
        before = self.records()
        while (now := self.records()) != before:
            before = now
        return [dict(line.split(" ", 1) for line in text.splitlines()) for text in now.values()]

    def look(self):
        records, count = self.snapshot(), 0
        memory = sum(int(r["memory"]) for r in records if r["state"] not in ("stopped", "destroying", "failed"))
        disk = sum(int(r["disk"]) for r in records if r["goes"] == "False")
        with contextlib.suppress(OSError):
            count = len(os.listdir(self.mount))
        now = [count, memory, disk]
        assert count <= SANDBOXES and memory <= MEMORY and disk <= DISK, now
        self.most = [max(pair) for pair in zip(self.most, now)]


def replay(mount):
    """Which sandboxes are there, by the events alone."""
    there = set()
    for event in mount.events():
        if event["event"] in ("created", "adopted"):
            there.add(event["sandbox"])
        elif event["event"] in ("renamed", "trashed", "restored"):
            there.discard(event["was"])
            there.add(event["sandbox"])
        elif event["event"] == "destroyed":
            there.discard(event["sandbox"])
    return there


def unsettled(mount):
    """Those that something goes on with, and what."""
    names = os.listdir(mount)
    names += [".sbxfs/trash/" + name for name in os.listdir(mount / ".sbxfs/trash")]
    found = {}
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            found[name] = (mount / name / "status").read_text().strip()
    return {name: status for name, status in found.items()
            if status not in ("running", "stopped", "paused", "failed")}


@pytest.mark.deadline(400)
def test_eight_users_and_a_daemon_that_dies(new_mount):
    mount = new_mount(FLEET).start()
    users, facts, rng = Users(mount), Facts(mount), random.Random(1)
    for thread in users.threads:
        thread.start()
    kills = 0
    while any(thread.is_alive() for thread in users.threads):
        facts.look()
        if kills < KILLS and users.done >= (kills + 1) * OPERATIONS // (KILLS + 1):
            users.up.clear()
            time.sleep(rng.random() / 50)       # in the middle of something
            mount.kill()
            facts.look()
            mount.start()
            users.up.set()
            kills += 1
        time.sleep(0.002)
    for thread in users.threads:
        thread.join()
    assert kills == KILLS and users.done >= OPERATIONS
    assert not users.odd, users.odd
    with contextlib.suppress(AssertionError):
        wait_until(lambda: not unsettled(mount), 60)
    assert not unsettled(mount), "\n".join(mount.log.lines)
    facts.look()
    print(f"{users.done} operations, {users.refused} refused, {kills} kills; at most "
          f"{facts.most[0]} sandboxes, {facts.most[1] >> 20} M, {facts.most[2] >> 30} G")

    # Each machine is one that is shown, and each that is shown has its machine.
    trash = {f".sbxfs/trash/{name}" for name in os.listdir(mount / ".sbxfs/trash")}
    shown = set(os.listdir(mount)) | trash
    ids = set()
    for name in shown:
        info = json.loads((mount / name / "info.json").read_text())
        ids.add(info.get("id", info["name"]))
    assert ids == set(os.listdir(mount.fake / "records")) == \
        set(os.listdir(mount.folder / "state/sbxfs/vms"))
    assert replay(mount) == {name.removeprefix(".sbxfs/trash/") for name in shown}

    for name in os.listdir(mount):
        os.rmdir(mount / name)
    for name in os.listdir(mount / ".sbxfs/trash"):
        os.rmdir(mount / ".sbxfs/trash" / name)
    wait_until(lambda: not os.listdir(mount / ".sbxfs/trash"), 60)
    wait_until(lambda: not os.listdir(mount.fake / "records"), 60)
    assert not os.listdir(mount.folder / "state/sbxfs/vms")
    assert not os.listdir(mount.fake / "boxes")
    assert not mount.guest_processes() and not mount.sshd_processes()
    assert replay(mount) == set()
