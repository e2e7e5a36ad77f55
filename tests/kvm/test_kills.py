"""kill -9 of the daemon and of QEMU at random moments of all that a sandbox can be asked for.

SBXFS_TEST_KILLS=N for more rounds, SBXFS_TEST_SEED=S for those that were seen before.
"""

import json
import os
import queue
import random
import re
import time

import pytest

from test_clones import CREATE, check_disks, create, destroy, drive, layers, nothing_left, \
    snapshots, template     # noqa: F401 (fixtures)

ROUNDS = int(os.environ.get("SBXFS_TEST_KILLS", 6))
SEED = int(os.environ.get("SBXFS_TEST_SEED", time.time_ns() % 100000))
SETTLED = ("up", "stopped", "paused", "failed")


class Fleet:
    """Sandboxes, daemon after daemon, and what each was last said to be."""

    def __init__(self, place):
        self.place, self.states, self.drive = place, {}, None
        self.begin()

    def begin(self):
        self.drive = self.place.drive(accel="tcg", templates="on")
        self.states = {p.parent.name: "" for p in self.place.state.glob("*/vm.json")
                       if p.parent.name[0] != "."}
        while not (line := self.drive.events.get(timeout=60)).startswith("ready "):
            self.take(line)

    def take(self, line):
        word, name, *rest = line.split()
        if word == "state":
            self.states[name] = rest[0]
        if word == "gone":
            self.states.pop(name, None)

    def hear(self, seconds):
        """All that is said within that time."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                line = self.drive.events.get(timeout=left)
            except queue.Empty:
                return
            if line is None:
                return
            self.take(line)

    def settle(self, what):
        """Until nobody is on the way to anywhere, and nothing is left of what was."""
        end = time.monotonic() + 200
        while self.trouble() and time.monotonic() < end:
            self.hear(0.3)
        assert not self.trouble(), (what, self.trouble(), self.records())
        check_disks(self.place)

    def records(self):
        return [json.loads(p.read_text()) for p in self.place.state.glob("*/vm.json")]

    def needed(self):
        parents = {}
        for layer in layers(self.place):
            about = self.place.state / ".layers" / layer / "layer.json"
            parents[layer] = json.loads(about.read_text())["parent"] if about.exists() else ""
        found, todo = set(), []
        for rec in self.records():
            todo += [rec["layer"], rec["next_layer"]]
            todo += [s["layer"] for s in rec["snapshots"]]
            todo += [rec["incoming"].rsplit("/", 1)[-1]]
        while todo:
            layer = todo.pop()
            if layer in parents and layer not in found:
                found.add(layer)
                todo.append(parents[layer])
        return found

    def trouble(self):
        """What is there and should not be; how it stands with those that are on their way."""
        if not all(s in SETTLED for s in self.states.values()):
            return self.states
        state = self.place.state
        alive = [n for n, s in self.states.items() if s in ("up", "paused")]
        sockets = {f"{n}.{end}" for n in alive for end in ("qmp", "id")}
        found = [p for glob in (".layers/*/*.new", "*/make-*") for p in state.glob(glob)]
        found += set(layers(self.place)) ^ self.needed()
        found += {p.name for p in self.place.run.iterdir()} ^ sockets
        if len(self.place.qemus()) != len(alive):
            found.append(f"{len(self.place.qemus())} processes of QEMU for {alive}")
        return found


def something(fleet, dice):
    """A command that can be obeyed now."""
    some = []
    for name, state in fleet.states.items():
        if state == "failed":
            some.append(f"start {name}")
            continue
        snaps = [s for s in snapshots(fleet.drive, name) if len(s) < 40]
        some += [f"snapshot {name} s{dice.randrange(10 ** 6)}"] * (3 if len(snaps) < 4 else 0)
        some += [f"restore {name} {dice.choice(snaps)}"] * 3 if snaps else []
        some += [f"drop {name} {dice.choice(snaps)}"] * (4 if len(snaps) > 3 else 1) if snaps else []
        some += [f"start {name}"] * 6 if state == "stopped" else [f"suspend {name}"] * 3
        if len(fleet.states) < 3:
            some += [f"clone c{dice.randrange(10 ** 6)} {name}"] * 2
        else:
            some += [f"destroy {name}"] * 3
    if len(fleet.states) < 2:
        some += [f"create c{dice.randrange(10 ** 6)} {CREATE}"] * 3
    return dice.choice(some)


@pytest.mark.deadline(300 + 60 * ROUNDS)
def test_killed_at_random(place):
    dice = random.Random(SEED)
    fleet = Fleet(place)
    fleet.drive.ask(f"create web {CREATE}")
    fleet.states["web"] = ""
    fleet.settle("the first")
    for n in range(ROUNDS):
        command, who = something(fleet, dice), dice.choice(["daemon", "qemu", "both"])
        delay = dice.random() ** 2 * 2.5
        what = f"seed {SEED} round {n}: {command}, {who} killed after {delay:.3f} s"
        print(what, flush=True)
        try:
            fleet.drive.ask(command)
        except RuntimeError as e:
            assert "is being" in str(e) or "it is " in str(e), (what, e)
        fleet.hear(delay)
        if who != "daemon":
            for pid in place.qemus():
                os.kill(pid, 9)
        if who != "qemu":
            fleet.drive.kill()
            fleet.begin()
        name = re.match(r"(?:create|clone) (\S+)", command)
        if name:
            fleet.states.setdefault(name.group(1), "")
        fleet.settle(what)
    destroy(fleet.drive, place, *fleet.states)
    nothing_left(place)
