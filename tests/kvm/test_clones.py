"""Clones of templates and of sandboxes, snapshots, pause, suspend: what they share and what not."""

import json
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from drive import GIB, MIB, TEMPLATE_FILES, build_folder, describe_template, images_folder, \
    matches, wait_until

MEMORY = 512 * MIB
DISK = 4 * GIB
CREATE = f"debian 2 {MEMORY} {DISK}"
CLONES = 20


def find_template(image):
    """The one that sandboxes of these tests start from, or None; there may be earlier ones."""
    for found in matches(image, "templates/tcg-2x512M-*/template.json"):
        about = json.loads(found.read_text())
        if about["disk"] <= DISK and "files" in about and about.get("machine", 1) >= 2:
            return found.parent
    return None


@pytest.fixture(scope="session", autouse=True)
def template():
    """One for all tests here, made as sbxfs-image makes it, unless it is there."""
    image = (images_folder() / "debian").resolve()
    if json.loads((image / "image.json").read_text()).get("guest", 1) < 2:
        pytest.skip("the image debian was built by an earlier sbxfs-image: build it again")
    if find_template(image):
        return
    subprocess.run([build_folder() / "backends/kvm/sbxfs-template", image, "2", str(MEMORY),
                    str(DISK), "tcg"], check=True, timeout=180)


@pytest.fixture
def drive(place):
    return place.drive(accel="tcg", templates="on")


def create(drive, name):
    drive.ask(f"create {name} {CREATE}")
    return drive.up(name)


def destroy(drive, place, *names):
    for name in names:
        drive.ask(f"destroy {name}")
    left = set(names)
    while left:
        left.discard(drive.wait("^gone ", 60).split()[1])
    assert not [name for name in names if (place.state / name).exists()]


def layers(place):
    folder = place.state / ".layers"
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def nothing_left(place):
    assert layers(place) == [] and not place.qemus() and not list(place.run.iterdir())


def snapshots(drive, name):
    lines = [line.split() for line in drive.ask(f"snapshots {name}").splitlines()]
    return {line[0]: line[1:] for line in lines if line}


def settle(drive, name):
    """The end of what was asked of it: changed, or RuntimeError with the trouble."""
    line = drive.wait(f"^(changed|trouble) {name}\\b")
    if line.startswith("trouble"):
        raise RuntimeError(line)


def snapshot(drive, name, snap):
    drive.ask(f"snapshot {name} {snap}")
    settle(drive, name)
    assert snap in snapshots(drive, name)


def check_disks(place):
    """3: clusters that nobody uses, which a kill may leave; they cost their room and no more."""
    for disk in matches(place.state, ".layers/*/disk.qcow2"):
        done = subprocess.run(["qemu-img", "check", "-q", "-U", disk], capture_output=True)
        assert done.returncode in (0, 3) or not disk.exists(), done.stderr  # or it was garbage


def clock_is_right(guest):
    """Between the question and the answer, however long that takes, and what setting it takes."""
    before = time.time()
    said = float(guest.ssh("date +%s.%N"))
    assert before - 20 < said < time.time() + 20


WHO = """hostname; cat /etc/machine-id
ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub | cut -d' ' -f2
md5sum </etc/ssh/sbxfs_authorized_keys; head -c 16 /dev/urandom | md5sum
python3 -c 'import os; print(os.urandom(16).hex())'; cat /proc/sys/kernel/random/uuid; date +%s"""


@pytest.mark.deadline(400)
def test_twenty_at_once(place, drive):
    """Each is itself: name, ids, keys, random numbers, clock; and takes little."""
    names = [f"c{n}" for n in range(CLONES)]
    for name in names:
        drive.ask(f"create {name} {CREATE}")
    guests = {}
    while len(guests) < CLONES:
        line = drive.wait("^state c[0-9]+ up ")
        drive.events.queue.appendleft(line)         # up() looks for it itself
        guests[line.split()[1]] = drive.up(line.split()[1])
    before = time.time()
    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(lambda n: guests[n].ssh(WHO, timeout=200).split("\n"), names))
    for n, lines in zip(names, said):
        assert lines[0] == n and lines[1] == drive.info(n)["machine_id"]
        assert before - 20 < int(lines[7]) < time.time() + 20
    for which in range(1, 7):
        assert len({lines[which] for lines in said}) == CLONES, (which, said)
    assert len({guests[n].host_key for n in names}) == CLONES
    costs = [drive.info(n) for n in names]
    print("private MiB:", sorted(int(c["memory_private"]) >> 20 for c in costs),
          "disk MiB:", sorted(int(c["disk_used"]) >> 20 for c in costs))
    for cost in costs:
        assert int(cost["memory_private"]) < 120 * MIB and int(cost["disk_used"]) < 30 * MIB
        assert cost["start"].startswith("template tcg-2x512M-")
    destroy(drive, place, *names)
    nothing_left(place)


def test_goes_on_and_does_not_boot(new_place):
    """Nobody has seen the kernel of a clone come up. (contrib/bench kvm times.)"""
    for templates, start in (("on", "template"), ("off", "boot")):
        place = new_place()
        drive = place.drive(accel="tcg", templates=templates)
        assert create(drive, "web").ssh("hostname", timeout=120) == "web\n"
        assert ("Linux version" in drive.ask("console web")) == (start == "boot")
        assert drive.info("web")["start"].startswith(start)
        destroy(drive, place, "web")


def test_snapshot_brings_back_a_counter(place, drive):
    guest = create(drive, "web")
    # What it has in its memory and what it has written go together, or there is a gap.
    guest.ssh("nohup sh -c 'i=0; while :; do i=$((i+1)); echo $i >>/root/count; sleep 0.1; done' "
              ">/dev/null 2>&1 </dev/null & exit")

    def counted(guest):
        said = guest.ssh("cat /root/count 2>/dev/null || :").split("\n")[:-1]
        assert said == [str(n) for n in range(1, len(said) + 1)]
        return len(said)
    wait_until(lambda: counted(guest) > 2, 60)
    snapshot(drive, "web", "one")
    taken, size, ready = snapshots(drive, "web")["one"]
    assert ready == "1" and int(size) > 20 * MIB and abs(int(taken) / 1000 - time.time()) < 60
    after = counted(guest)
    wait_until(lambda: counted(guest) > after + 3, 60)
    guest.ssh("touch /root/later")
    later = counted(guest)
    drive.ask("restore web one")
    drive.wait("^state web booting$")
    guest = drive.up("web")
    count = counted(guest)
    assert count and guest.ssh("ls /root/later", check=False) == ""
    wait_until(lambda: counted(guest) > count, 60)      # it still counts
    clock_is_right(guest)
    drive.ask("restore web before-one")             # and back: the present had been kept
    guest = drive.up("web")
    assert counted(guest) >= later and guest.ssh("ls /root/later")
    assert sorted(snapshots(drive, "web")) == ["before-before-one", "before-one", "one"]
    destroy(drive, place, "web")
    nothing_left(place)


def test_two_clones_of_one_that_runs(place, drive):
    """They begin where it is, are somebody else, and never see each other's data."""
    source = create(drive, "web")
    source.ssh("echo common >/root/file; mkdir /run/here; echo kept >/run/here/memory")
    drive.ask("clone a web")
    drive.ask("clone b web")
    guests = {}
    for _ in range(2):
        line = drive.wait("^state [ab] up ")
        name = line.split()[1]
        drive.events.queue.appendleft(line)
        guests[name] = drive.up(name)
    for name, guest in guests.items():
        assert "start_why" not in drive.info(name), (drive.info(name), drive.seen)
        said = guest.ssh("hostname; cat /root/file /run/here/memory /etc/machine-id").split()
        assert said == [name, "common", "kept", drive.info(name)["machine_id"]]
        guest.ssh(f"echo {name} >/root/file; sync")
    source.ssh("echo web >/root/file")
    assert source.ssh("hostname; cat /root/file").split() == ["web", "web"]
    for name, guest in guests.items():
        assert guest.ssh("cat /root/file") == f"{name}\n"
    uuids = {g.ssh("cat /proc/sys/kernel/random/uuid") for g in guests.values()}
    assert len(uuids) == 2
    destroy(drive, place, "web")                    # the clones do not need it
    assert guests["a"].ssh("cat /root/file; ls /usr/bin | wc -l").split()[0] == "a"
    drive.ask("stop b")
    drive.wait("^state b stopped")
    drive.ask("clone c b")                          # and of one that is stopped
    third = drive.up("c")
    assert third.ssh("hostname; cat /root/file").split() == ["c", "b"]
    destroy(drive, place, "a", "b", "c")
    nothing_left(place)


@pytest.mark.deadline(600)
def test_chain(place, drive):
    """Snapshots of clones of snapshots: any of them can go, in any order, and nobody is hurt."""
    guest = create(drive, "v0")
    for n in range(10):
        guest.ssh(f"echo {n} >>/root/chain; sync")
        if n % 3 == 2:                              # each third is a clone of the one before
            drive.ask(f"snapshot v{n // 3} s{n}")
            settle(drive, f"v{n // 3}")
            drive.ask(f"clone v{n // 3 + 1} v{n // 3} s{n}")
            guest = drive.up(f"v{n // 3 + 1}")
        else:
            snapshot(drive, f"v{n // 3}", f"s{n}")
    assert guest.ssh("cat /root/chain").split() == [str(n) for n in range(10)]
    for victim in ("drop v1 s4", "drop v0 s0", "destroy v1", "drop v0 s2", "destroy v0",
                   "drop v2 s7"):
        drive.ask(victim)
        if victim.startswith("destroy"):
            drive.wait(f"^gone {victim[8:]}$")
        check_disks(place)
        assert guest.ssh("md5sum /root/chain; tail -1 /root/chain").split()[-1] == "9"
    drive.ask("restore v2 s6")
    again = drive.up("v2")
    assert again.ssh("cat /root/chain").split() == [str(n) for n in range(7)]
    destroy(drive, place, "v2")
    assert guest.ssh("cat /root/chain").split() == [str(n) for n in range(10)]
    drive.ask("stop v3")                            # the disk alone holds it as well
    drive.wait("^state v3 stopped")
    check_disks(place)
    drive.ask("start v3")
    assert drive.up("v3").ssh("tail -1 /root/chain") == "9\n"
    destroy(drive, place, "v3")
    nothing_left(place)


def test_pause_and_suspend(place, drive):
    """Facts, the clock right afterwards, and what ran runs on."""
    guest = create(drive, "web")
    guest.ssh("nohup sleep 1000 >/dev/null 2>&1 </dev/null & exit")
    drive.ask("pause web")
    drive.wait("^state web paused$")
    pid = drive.info("web")["pid"]

    def ticks():
        return int(open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[11])
    before, began = ticks(), time.monotonic()
    wait_until(lambda: time.monotonic() > began + 3)
    assert ticks() - before < 100                   # of 300: its CPUs stand still
    with pytest.raises(RuntimeError, match="^-16 .*it is paused"):
        drive.ask("pause web")
    drive.kill()                                    # it stays paused without a daemon
    drive = place.drive(accel="tcg", templates="on")
    drive.wait("^state web paused$")
    drive.ask("resume web")
    guest = drive.up("web")
    clock_is_right(guest)
    drive.ask("suspend web")
    drive.wait("^state web stopped$")
    assert not place.qemus() and drive.info("web")["suspended"] == "yes"
    drive.quit()
    drive = place.drive(accel="tcg", templates="on")
    drive.wait("^state web stopped$")
    drive.ask("start web")
    guest = drive.up("web")
    assert guest.ssh("pgrep -x sleep | wc -l") == "1\n"
    clock_is_right(guest)
    destroy(drive, place, "web")
    nothing_left(place)


def test_saving_that_breaks_off(place, drive):
    """The memory cannot be written: that is told, and the sandbox goes on."""
    guest = create(drive, "web")
    for operation, command in (("snapshot", "snapshot web one"), ("suspend", "suspend web")):
        layer = json.loads(place.record("web").read_text())["layer"]
        os.mkfifo(place.state / ".layers" / layer / "ram.new")
        drive.ask(command)
        said = drive.wait(f"^trouble web {operation} ")
        assert "its memory could not be saved: it cannot be written" in said
        assert guest.ssh("hostname") == "web\n" and snapshots(drive, "web") == {}
    assert not [line for line in drive.seen if "stopped" in line or "paused" in line]
    snapshot(drive, "web", "two")
    destroy(drive, place, "web")
    nothing_left(place)


def test_copy_that_is_reset(place, drive):
    """A guest that restarts before it is itself: up all the same, and what it lost is told."""
    source = create(drive, "web")
    source.ssh("systemctl stop sbxfs-identity; nohup sh -c 'grep -qm1 ^identity /dev/vport*p* "
               "&& echo b >/proc/sysrq-trigger' "
               ">/dev/null 2>&1 </dev/null & exit")
    drive.ask("clone copy web")
    assert "its saved memory is lost" in drive.wait("^trouble copy start ")
    assert drive.up("copy").ssh("hostname") == "copy\n"
    assert "its saved memory is lost" in drive.info("copy")["start_why"]
    destroy(drive, place, "web", "copy")
    nothing_left(place)


def test_asked_in_one_moment(place, drive):
    """What is asked together with something else, or when the machine has just ended."""
    guest = create(drive, "web")
    drive.ask("pause web\nresume web")
    assert drive.answers.get(timeout=30) == "ok"
    assert guest.ssh("hostname") == "web\n"
    drive.ask("stop web\npause web")
    assert "it is being stopped" in drive.answers.get(timeout=30)
    drive.wait("^state web stopped$")
    drive.ask("start web\nrestart web")
    assert drive.answers.get(timeout=30) == "ok"
    drive.up("web")
    os.kill(drive.process.pid, signal.SIGSTOP)
    drive.process.stdin.write("destroy web\n")
    drive.process.stdin.flush()
    place.kill_qemu("web")
    os.kill(drive.process.pid, signal.SIGCONT)
    assert drive.answers.get(timeout=30) == "ok"
    drive.wait("^gone web$")                        # and has not failed before
    nothing_left(place)


def test_pool(place):
    """Two wait without a name; mkdir names one, and another is made behind it."""
    drive = place.drive(accel="tcg", templates="on", pool="2")
    first = create(drive, "web")
    wait_until(lambda: len(place.qemus()) == 3, 60)
    assert len(matches(place.state, ".pool-*")) == 2
    wait_until(lambda: all('"cloning":\ttrue' in (p / "vm.json").read_text()
                           for p in matches(place.state, ".pool-*")), 60)
    began = time.monotonic()
    second = create(drive, "db")
    print("named and up:", time.monotonic() - began)
    assert drive.info("db")["from_pool"] == "yes"
    assert second.ssh("hostname; cat /etc/machine-id").split() == \
        ["db", drive.info("db")["machine_id"]]
    assert first.ssh("hostname") == "web\n" and first.host_key != second.host_key
    wait_until(lambda: len(matches(place.state, ".pool-*")) == 2, 60)
    ended = wait_until(lambda: [p for p in matches(place.state, ".pool-*")
                                if '"cloning":\ttrue' in (p / "vm.json").read_text()], 60)[0]
    os.kill(json.loads((ended / "vm.json").read_text())["pid"], signal.SIGKILL)
    wait_until(lambda: not ended.exists(), 60)      # booted anew it would be of no use
    drive.kill()                                    # those that wait are nobody's
    drive = place.drive(accel="tcg", templates="on", pool="0")
    drive.wait("^state db up ")
    wait_until(lambda: not matches(place.state, ".pool-*"), 60)
    assert len(place.qemus()) == 2
    destroy(drive, place, "web", "db")
    nothing_left(place)


@pytest.mark.deadline(600)
def test_many_in_a_row(place, drive):
    """200 made and destroyed, at whatever moment, and 20 at once: nothing is left."""
    def open_files():
        return len(os.listdir(f"/proc/{drive.process.pid}/fd"))
    before = open_files()
    for n in range(200):
        drive.ask(f"create web {CREATE}")
        if n % 10 == 0:
            drive.wait(("^state web creating$", "^state web booting$")[n % 20 // 10])
        drive.ask("destroy web")
        drive.wait("^gone web$")
    names = [f"c{n}" for n in range(20)]
    for name in names:
        drive.ask(f"create {name} {CREATE}")
    destroy_at_once = names[:]
    for name in destroy_at_once:
        drive.ask(f"destroy {name}")
    gone = set()
    while len(gone) < 20:
        gone.add(drive.wait("^gone c[0-9]+$").split()[1])
    assert open_files() <= before + 2
    assert [p.name for p in place.state.iterdir() if not p.name.startswith(".")] == []
    nothing_left(place)


def test_refused(place, drive):
    """What cannot be is said at once, in a sentence."""
    create(drive, "web")
    snapshot(drive, "web", "one")
    wrong = {
        "snapshot web one": "-17 web has a snapshot one already",
        "snapshot web a/b": "-22 a snapshot's name",
        "snapshot web .x": "-22 a snapshot's name",
        "restore web two": "-2 web has no snapshot two",
        "drop web two": "-2 web has no snapshot two",
        "clone x nobody": "-2 there is no sandbox nobody",
        "clone x web two": "-2 web has no snapshot two",
        "resume web": "-16 cannot resume web: it is running",
    }
    for command, sentence in wrong.items():
        with pytest.raises(RuntimeError, match=f"^{sentence}"):
            drive.ask(command)
    drive.ask("snapshot web two")
    with pytest.raises(RuntimeError, match="^-16 .*a snapshot is being taken"):
        drive.ask("suspend web")
    settle(drive, "web")
    destroy(drive, place, "web")


def test_no_room_for_the_memory(place):
    """A file system without room for it: said so, and the sandbox goes on."""
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m,mode=700", "none", place.state],
                      stderr=subprocess.DEVNULL).returncode:
        pytest.skip("making a small file system needs root")
    try:
        drive = place.drive(accel="tcg", templates="on")
        guest = create(drive, "web")
        drive.ask("snapshot web one")
        assert "may take 512M" in drive.wait("^trouble web snapshot")
        assert guest.ssh("hostname") == "web\n" and snapshots(drive, "web") == {}
        destroy(drive, place, "web")
        drive.quit()
    finally:
        place.close()
        subprocess.run(["umount", "-l", place.state], check=True)


class Copy:
    """An image of ours with one template, whose files a test may change."""

    def __init__(self, place):
        image = (images_folder() / "debian").resolve()
        source = find_template(image)
        self.all = place.images / "debian/templates"
        self.folder = self.all / "t"
        self.folder.mkdir(parents=True)
        for path in image.iterdir():
            if path.name != "templates":
                (place.images / "debian" / path.name).symlink_to(path)
        self.source = source
        self.about = json.loads((source / "template.json").read_text())
        self.known = self.about.pop("files")
        self.fill()
        self.describe()

    def fill(self):
        for name in TEMPLATE_FILES:
            subprocess.run(["cp", "-p", "--sparse=always", self.source / name, self.folder],
                           check=True)

    def describe(self, *changed, **about):
        """It is the only one from now on; the description fits the files that were changed."""
        for found in matches(self.all, "*/template.json"):
            found.unlink()
        known = {name: entry for name, entry in self.known.items() if name not in changed}
        describe_template(self.folder, known, **dict(self.about, **about))

    def usable(self):
        return (self.folder / "template.json").exists()

    def start_why(self, drive, name):
        create(drive, name)
        return drive.info(name).get("start_why", "")


def test_template_of_another_qemu(place):
    """It is not used, which is said; and one that QEMU does not take is booted instead."""
    copy = Copy(place)
    copy.describe(qemu="another")
    drive = place.drive(accel="tcg", templates="on", images=place.images)
    assert "made by another QEMU" in copy.start_why(drive, "web")
    destroy(drive, place, "web")
    drive.quit()                                    # and with it the making of another one
    drive = place.drive(accel="tcg", templates="on", images=place.images)
    (copy.folder / "state").write_bytes(b"no state of any machine")
    copy.describe("state")
    why = copy.start_why(drive, "db")
    assert "the template could not be used: QEMU does not take it: qemu" in why
    assert "Not a migration stream" in why
    assert not copy.usable()
    destroy(drive, place, "db")


def test_damaged_template(place):
    """Changed files are noticed before it is used; what cannot be seen so, soon afterwards."""
    copy = Copy(place)
    stat = (copy.folder / "ram").stat()
    with open(copy.folder / "ram", "r+b") as ram:
        ram.seek(0, os.SEEK_DATA)                   # a table of the firmware's
        byte = ram.read(1)
        ram.seek(-1, os.SEEK_CUR)
        ram.write(bytes([byte[0] ^ 1]))
    os.utime(copy.folder / "ram", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    drive = place.drive(accel="tcg", templates="on", images=place.images)
    drive.ask(f"create db {CREATE}")
    said = drive.wait("^trouble db start ")
    assert "the template that it started from was damaged" in said and "t/ram is damaged" in said
    wait_until(lambda: not copy.usable())
    destroy(drive, place, "db")
    copy.fill()
    os.utime(copy.folder / "disk.qcow2")
    copy.describe()
    assert "was changed after it was made" in copy.start_why(drive, "web")
    destroy(drive, place, "web")
