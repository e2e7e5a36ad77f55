"""kill -9 of the daemon and of QEMU, at each step and at random moments of all that can be asked.

SBXFS_TEST_KILLS=N for more rounds, SBXFS_TEST_SEED=S for those that were seen before.
"""

import json
import os
import queue
import random
import re
import time

import pytest

from drive import alive, matches, wait_until
from test_clones import CREATE, check_disks, create, destroy, layers, nothing_left, snapshot, \
    snapshots, template     # noqa: F401 (a fixture)

ROUNDS = int(os.environ.get("SBXFS_TEST_KILLS", 6))
SEED = int(os.environ.get("SBXFS_TEST_SEED", time.time_ns() % 100000))
SETTLED = ("up", "stopped", "paused", "failed")


def read(path):
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


class Fleet:
    """Sandboxes, daemon after daemon, and what each was last said to be."""

    def __init__(self, place):
        self.place, self.states, self.drive = place, {}, None
        self.begin()

    def begin(self):
        self.drive = self.place.drive(accel="tcg", templates="on")
        self.states = {p.parent.name: "" for p in matches(self.place.state, "*/vm.json")
                       if p.parent.name[0] != "."}
        while not (line := self.drive.events.get(timeout=60)).startswith("ready "):
            self.take(line)

    def take(self, line):
        word, name, *rest = line.split()
        if word == "state":
            self.states[name] = rest[0]
        if word == "gone":
            self.states.pop(name, None)

    def kill(self, who):
        """The daemon that comes after it must not see those that are just being killed."""
        killed = self.place.qemus() if who != "daemon" else []
        for pid in killed:
            os.kill(pid, 9)
        if who != "qemu":
            self.drive.kill()
            wait_until(lambda: not any(alive(pid) for pid in killed), 60)
            self.begin()

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
        """Of those that are there; one may go meanwhile."""
        texts = [read(p) for p in matches(self.place.state, "*/vm.json")]
        return [json.loads(text) for text in texts if text]

    def saved(self):
        """Layers that have a machine's memory and shall have it."""
        wanted = {s["layer"] for rec in self.records() for s in rec["snapshots"]}
        wanted |= {rec["incoming"].rsplit("/", 1)[-1] for rec in self.records()}
        return {w for w in wanted if (self.place.state / ".layers" / w / "state").exists()}

    def needed(self):
        parents = {}
        for layer in layers(self.place):
            about = read(self.place.state / ".layers" / layer / "layer.json")
            parents[layer] = json.loads(about)["parent"] if about else ""
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
        running = [n for n, s in self.states.items() if s in ("up", "paused")]
        sockets = {p.name.rsplit(".", 1)[0] for p in self.place.run.iterdir()}
        found = [p for glob in (".layers/*/*.new", "*/make-*") for p in matches(state, glob)]
        found += set(layers(self.place)) ^ self.needed()
        found += {p.parent.name for p in matches(state, ".layers/*/state")} ^ self.saved()
        kept = [n for n, s in self.states.items() if s == "stopped" and
                "net_pid" in self.drive.info(n)]       # suspended; it waits to be started
        found += sockets ^ {*running, *kept}
        found += [f"{rec['name']} on two layers" for rec in self.records()
                  if rec["next_layer"] and rec["name"] in running]
        if len(self.place.qemus()) != len(running):
            found.append(f"{len(self.place.qemus())} processes of QEMU for {running}")
        return found


STEPS = {       # what the record or the folder says when it has come so far
    "clone-made": ("create web " + CREATE, lambda p: '"starting"' in p.record("web").read_text()),
    "clone-runs": ("create web " + CREATE, lambda p: '"running"' in p.record("web").read_text()),
    "snapshot-disk": ("snapshot web s", lambda p: len(layers(p)) > 1),
    "snapshot-memory": ("snapshot web s", lambda p: matches(p.state, ".layers/*/ram.new")),
    "suspend": ("suspend web", lambda p: matches(p.state, ".layers/*/ram.new")),
    "restore-begins": ("restore web first", lambda p: matches(p.state, ".layers/*/ram.new")),
    "restore-starts": ("restore web first",
                       lambda p: "before-first" in p.record("web").read_text()),
    "start": ("start web", lambda p: '"running"' in p.record("web").read_text()),
}


def over(drive):
    end = r"(changed|trouble) web\b|state web (up|stopped|failed)\b"
    return any(re.match(end, event or "") for event in list(drive.events.queue))


@pytest.mark.deadline(400)
@pytest.mark.parametrize("who", ["daemon", "qemu"])
@pytest.mark.parametrize("step", STEPS)
def test_killed(place, step, who):
    """kill -9 in the middle: the next daemon tells the truth, nothing leaks, no disk is damaged."""
    command, reached = STEPS[step]
    fleet = Fleet(place)
    if not command.startswith("create"):
        guest = create(fleet.drive, "web")
        guest.ssh("echo there >/root/file; sync")
        if command.startswith("restore"):
            snapshot(fleet.drive, "web", "first")
        if command.startswith("start"):
            fleet.drive.ask("suspend web")
            fleet.drive.wait("^state web stopped$")
    while not fleet.drive.events.empty():
        fleet.take(fleet.drive.events.get())
    fleet.states["web"] = ""
    fleet.drive.ask(command)
    # As soon as it can be seen; a busy machine may miss it, and then it is over.
    wait_until(lambda: reached(place) or over(fleet.drive), 60, 0)
    fleet.kill(who)
    fleet.settle(step)
    fleet.kill("daemon")
    fleet.settle(step)
    if fleet.states["web"] in ("stopped", "failed"):
        fleet.drive.ask("start web")
        fleet.drive.up("web")
    if not command.startswith("create"):
        guest.port = json.loads(place.record("web").read_text())["port"]
        guest.known.write_text(f"[{guest.host}]:{guest.port} {guest.host_key}\n")
        assert guest.ssh("cat /root/file") == "there\n"
    destroy(fleet.drive, place, "web")
    nothing_left(place)
    # It is not the template's fault: the next one starts from it.
    create(fleet.drive, "next")
    assert fleet.drive.info("next")["start"].startswith("template ")
    destroy(fleet.drive, place, "next")


def something(fleet, dice):
    """A command that can be obeyed now."""
    some = []
    for name, state in fleet.states.items():
        if state == "failed":
            some.append(f"start {name}")
            continue
        snaps = [s for s in snapshots(fleet.drive, name) if len(s) < 40]
        some += [f"snapshot {name} s{dice.randrange(10 ** 6)}"] * (3 if len(snaps) < 4 else 0)
        if snaps:
            some += [f"restore {name} {dice.choice(snaps)}"] * 3
            some += [f"drop {name} {dice.choice(snaps)}"] * (4 if len(snaps) > 3 else 1)
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
        fleet.kill(who)
        name = re.match(r"(?:create|clone) (\S+)", command)
        if name:
            fleet.states.setdefault(name.group(1), "")
        fleet.settle(what)
    destroy(fleet.drive, place, *fleet.states)
    nothing_left(place)
