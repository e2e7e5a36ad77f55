"""The KVM backend alone: a VM's life, crashes at every step, and what can go wrong."""

import fcntl
import json
import os
import socket
import subprocess
import time

import pytest

from drive import GIB, MIB, images_folder, wait_until

DISK = 4 * GIB
CREATE = f"debian 2 {256 * MIB} {DISK}"


def port_open(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def destroy(drive, place, name="web"):
    drive.ask(f"destroy {name}")
    drive.wait(f"^gone {name}$")
    assert not place.leftovers(name)


def edit_record(place, name, **values):
    record = json.loads(place.record(name).read_text())
    record.update(values)
    place.record(name).write_text(json.dumps(record))


def test_life(new_place):
    """Made, used, stopped, started, rebooted, switched off from within, destroyed."""
    place = new_place(state="state, of a kind", run="run-" + "x" * 150)
    drive = place.drive()
    assert drive.wait("^ready ") == "ready 1 "
    drive.ask(f"create web {CREATE}")
    drive.wait("^state web creating$")
    drive.wait("^state web booting$")
    guest = drive.up("web")
    assert guest.host == "127.0.0.1" and guest.host_key.startswith("ssh-ed25519 ")
    said = guest.ssh("hostname; cat /etc/machine-id; nproc; df --output=size -B1 / | tail -1;"
                     "touch /root/kept; getent hosts web; cat /proc/sys/kernel/random/boot_id")
    hostname, machine_id, cpus, size, address, boot = said.splitlines()
    assert (hostname, machine_id, cpus) == ("web", drive.info("web")["machine_id"], "2")
    assert DISK * 0.9 < int(size) <= DISK and address.split()[1] == "web"
    argv = open(f"/proc/{drive.info('web')['pid']}/cmdline").read()
    assert "-sandbox\0on," in argv and guest.identity not in argv
    assert "PRIVATE KEY" not in (place.record("web").read_text())

    drive.ask("stop web")
    assert drive.wait("^state web stopped") == "state web stopped"
    assert not place.qemus() and not port_open(guest.port)
    with pytest.raises(RuntimeError, match="cannot stop web: it is stopped"):
        drive.ask("stop web")

    drive.ask("start web")
    drive.wait("^state web booting$")
    again = drive.up("web")
    assert again.host_key == guest.host_key
    assert again.ssh("ls /root/kept; cat /etc/machine-id").split() == ["/root/kept", machine_id]

    drive.ask("restart web")
    drive.wait("^state web booting$")
    guest = drive.up("web")
    assert guest.ssh("cat /proc/sys/kernel/random/boot_id").strip() != boot
    console = drive.ask("console web")
    assert console.count("Linux version") == 3 and "systemd" in console

    guest.ssh("systemctl poweroff", check=False)
    assert drive.wait("^state web stopped") == "state web stopped"
    destroy(drive, place)
    assert not port_open(guest.port)
    drive.ask(f"create web {CREATE}")           # the name is free again
    drive.wait("^state web creating$")
    destroy(drive, place)
    drive.quit()


def test_adopted_after_a_crash(place):
    """kill -9 of the daemon: the VM runs on and the next daemon has it as it was."""
    first = place.drive()
    first.ask(f"create web {CREATE}")
    first.wait("^state web booting$")
    first.kill()                                # while it boots
    second = place.drive()
    second.wait("^state web booting$")
    guest = second.up("web")
    pid = second.info("web")["pid"]
    second.kill()
    third = place.drive()
    assert third.wait("^state web ").startswith(f"state web up {guest.host} {guest.port} ")
    assert third.info("web")["pid"] == pid and guest.ssh("hostname") == "web\n"
    third.kill()
    guest.ssh("systemctl reboot", check=False)  # nobody is watching
    fourth = place.drive()
    fourth.wait("^state web booting$")
    guest = fourth.up("web")
    fourth.ask("stop web")
    fourth.kill()                               # asked, and perhaps not done
    fifth = place.drive()
    fifth.wait("^state web stopped")
    assert not place.qemus()
    destroy(fifth, place)


def test_seen_after_an_absence(place):
    """What became of a VM while no daemon watched it."""
    drive = place.drive()
    drive.ask(f"create web {CREATE}")
    drive.up("web")
    drive.kill()
    place.kill_qemu("web")
    before = place.record("web").read_text()
    edit_record(place, "web", pid=0, net_pid=0)
    with open(place.state / "web/lock") as lock:        # of whom nothing can be seen here
        fcntl.flock(lock, fcntl.LOCK_EX)
        drive = place.drive()
        assert "a process that cannot be found here" in drive.wait("^state web failed ")
        drive.ask("destroy web")
        assert "a process that cannot be found here" in drive.wait("^state web failed ")
        drive.kill()
    place.record("web").write_text(before)
    drive = place.drive()
    assert "while sbxfs was not there" in drive.wait("^state web (stopped|failed) ")
    drive.kill()
    place.record("web").write_text(before)
    edit_record(place, "web", boot_id="that of an earlier boot")
    drive = place.drive()
    assert drive.wait("^state web ") == "state web stopped the host was restarted"
    drive.ask("start web")
    drive.up("web")
    drive.kill()
    edit_record(place, "web", phase="destroying")       # killed when it had just begun
    drive = place.drive()
    drive.wait("^gone web$")
    assert not place.leftovers("web")


# The programs of creating run at once, all but QEMU: each is told by its arguments.
STEPS = {
    "client-key": ("ssh-keygen", "*/id_ed25519"), "host-key": ("ssh-keygen", "*/host_ed25519"),
    "disk": ("qemu-img", "create*"), "qemu": ("qemu-system-x86_64", "*-nodefaults*"),
}


@pytest.mark.parametrize("step", STEPS)
def test_killed_while_creating(place, step):
    """A daemon that dies at that step of creating: the next one finishes, or destroys."""
    program, arguments = STEPS[step]
    place.wrapper(program, f"""
case "$*" in {arguments}) kill -9 $PPID;; esac
exec "$REAL" "$@" """)
    for end in ("finish", "destroy"):
        drive = place.drive(env={"PATH": place.wrapped_path()})
        drive.ask(f"create web {CREATE}")
        drive.process.wait(30)
        drive = place.drive()
        drive.wait("^state web ")
        if end == "finish":
            drive.wait("^state web up ")
            assert len(place.qemus()) == 1
        destroy(drive, place)
        drive.quit()


@pytest.mark.parametrize("step", STEPS)
def test_destroyed_while_creating(place, step):
    """rmdir at that step: it stops, and nothing is left."""
    program, arguments = STEPS[step]
    place.wrapper(program, f"""
case "$*" in {arguments}) echo >{place.folder}/there; exec sleep 3600;; esac
exec "$REAL" "$@" """)
    drive = place.drive(env={"PATH": place.wrapped_path()})
    drive.ask(f"create web {CREATE}")
    wait_until(lambda: (place.folder / "there").exists())
    destroy(drive, place)
    assert not place.processes()


def test_folders_of_a_crash(place):
    """A folder without a record was promised to nobody; a damaged record shows as failed; of a
    template that was being made nothing is left, and what another one makes stays."""
    (place.state / "half").mkdir()
    (place.state / "half" / "vm.json.new").write_text("{")
    (place.state / "torn").mkdir()
    place.record("torn").write_text('{"version": 1, "name": ')
    (place.state / "unread").mkdir()
    place.record("unread").symlink_to("vm.json")        # which leads nowhere, and is there
    ours, theirs = (place.images / f"x/templates/.new-{c * 32}" for c in "af")
    for folder in (ours, theirs, place.state / ".template-1"):
        folder.mkdir(parents=True)
    (ours / "ram").write_text("half")
    place.record(".template-1").write_text(json.dumps({
        "version": 1, "name": ".template-1", "tag": "", "image": "x", "phase": "running",
        "image_dir": str(place.images / "x"), "machine_id": "a" * 32, "snapshots": []}))
    drive = place.drive()
    broken = {drive.wait("^state (torn|unread) failed .*damaged").split()[1] for _ in range(2)}
    assert broken == {"torn", "unread"}
    assert not (place.state / "half").exists()
    wait_until(lambda: not (place.state / ".template-1").exists())
    assert theirs.exists() and not ours.exists()
    with pytest.raises(RuntimeError, match="all it can do is be destroyed"):
        drive.ask("start torn")
    destroy(drive, place, "torn")
    destroy(drive, place, "unread")


def test_refused(place):
    drive = place.drive()
    wrong = {
        f"web nosuch 1 {GIB} {DISK}": "there is no image 'nosuch'.*sbxfs-image build nosuch",
        f"web ../../etc 1 {GIB} {DISK}": "no image name",
        f"web debian 0 {GIB} {DISK}": "cpus must be 1 to",
        f"web debian 1000 {GIB} {DISK}": "cpus must be 1 to",
        f"web debian 1 {MIB} {DISK}": "memory must be at least",
        f"web debian 1 {1 << 50} {DISK}": "memory is more than",
        f"web debian 1 {GIB} {MIB}": "disk must be",
        f"web debian 1 {GIB} {1 << 52}": "disk must be",
        f".. debian 1 {GIB} {DISK}": "is no name",
    }
    for spec, sentence in wrong.items():
        with pytest.raises(RuntimeError, match=f"^-22 .*{sentence}"):
            drive.ask(f"create {spec}")
    for verb in ("start", "stop", "restart", "destroy"):
        with pytest.raises(RuntimeError, match="^-2 "):
            drive.ask(f"{verb} web")
    assert [p.name for p in place.state.iterdir()] == []


def test_without_qemu(place):
    """No QEMU: said so; what is recorded is still shown, and can be destroyed."""
    drive = place.drive()
    drive.ask(f"create web {CREATE}")
    drive.wait("^state web booting$")
    drive.kill()
    place.kill_qemu("web")
    edit_record(place, "web", phase="stopped")
    drive = place.drive(qemu="/nonexistent/qemu")
    ready = drive.wait("^ready ")
    assert ready.startswith("ready 0 ") and "/nonexistent/qemu" in ready
    drive.events.put(drive.seen[0])             # the order of these two does not matter
    drive.wait("^state web stopped$")
    with pytest.raises(RuntimeError, match="^-19 .*there is no program"):
        drive.ask(f"create other {CREATE}")
    destroy(drive, place)


def test_wrong_configuration(place):
    drive = place.drive(accel="fast")
    assert "accel must be auto, kvm or tcg" in drive.answers.get(timeout=30)


def test_guest_that_dies(place):
    """A panic and a QEMU that is killed: failed, with the reason; then started again."""
    drive = place.drive()
    drive.ask(f"create web {CREATE}")
    guest = drive.up("web")
    guest.ssh("echo c >/proc/sysrq-trigger", check=False)
    assert "sysrq triggered crash" in drive.wait("^state web failed ")
    assert not place.qemus() and "sysrq triggered crash" in drive.ask("console web")
    drive.ask("start web")
    drive.up("web")
    os.kill(int(drive.info("web")["pid"]), 9)
    assert "killed by signal 9" in drive.wait("^state web failed ")
    destroy(drive, place)


@pytest.mark.deadline(400)
def test_qemu_that_crashes(place):
    """While it boots, or takes in what was saved: once more, and only once."""
    crashes = place.folder / "crashes"
    qemu = place.wrapper("qemu-system-x86_64", f"""
if [ -s {crashes} ]; then sed -i 1d {crashes}; kill -SEGV $$; fi
exec "$REAL" "$@" """)
    drive = place.drive(accel="tcg", qemu=qemu)
    crashes.write_text("once\n")
    drive.ask(f"create web {CREATE}")
    drive.up("web").ssh("mkdir /run/here")
    drive.ask("suspend web")
    drive.wait("^state web stopped")
    crashes.write_text("once\n")
    drive.ask("start web")
    assert drive.up("web").ssh("ls -d /run/here") == "/run/here\n"
    assert crashes.read_text() == "" and not [e for e in drive.seen if "trouble" in e]
    drive.ask("stop web")
    drive.wait("^state web stopped")
    crashes.write_text("once\nagain\n")
    drive.ask("start web")
    assert "killed by signal 11" in drive.wait("^state web failed ")
    drive.ask("start web")
    drive.up("web")
    destroy(drive, place)


def test_boot_that_fails(place):
    """A kernel that is none, and one that finds no init: failed at once, console readable."""
    place.image("nokernel", vmlinux=b"not a kernel", vmlinuz=b"not a kernel")
    place.image("noinit", initrd=b"not an initrd")
    drive = place.drive(images=place.images, accel="tcg")
    for name in ("nokernel", "noinit"):
        drive.ask(f"create {name} {CREATE.replace('debian', name)}")
    why = {}
    for _ in range(2):
        _, name, _, said = drive.wait("^state [a-z]+ failed ").split(" ", 3)
        why[name] = said
    assert "kernel" in why["nokernel"].lower()
    assert "Unable to mount root fs" in why["noinit"]
    assert "Unable to mount root fs" in drive.ask("console noinit")
    assert not place.qemus()
    for name in why:
        destroy(drive, place, name)


def test_asked_while_it_boots(place):
    """Nobody is there yet who could shut down in order: at once, and all of it again."""
    drive = place.drive()
    drive.ask(f"create web {CREATE}")
    drive.wait("^state web booting$")
    drive.ask("stop web")
    drive.wait("^state web stopped$", 55)       # in order it has a minute
    drive.ask("start web")
    drive.wait("^state web booting$")
    drive.ask("restart web")
    drive.up("web")
    destroy(drive, place)


@pytest.mark.deadline(600)
def test_disk_of_the_host_runs_full(place):
    """The guest stands still, loses nothing, and goes on when there is room."""
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=500m,mode=700", "none", place.state],
                      stderr=subprocess.DEVNULL).returncode:
        pytest.skip("making a small file system needs root")
    try:
        drive = place.drive()
        drive.ask(f"create web {CREATE}")
        guest = drive.up("web")
        filler = place.state / ".filler"
        with open(filler, "wb") as f:
            os.posix_fallocate(f.fileno(), 0, 400 * MIB)
        writer = subprocess.Popen(guest.command("dd if=/dev/urandom of=/root/big bs=1M count=150 "
                                                "conv=fsync status=none; md5sum </root/big"),
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        drive.wait("^state web paused the host's disk is full: paused until .* has 256 MiB free$")
        filler.unlink()
        drive.wait("^state web up ")
        assert len(writer.communicate(timeout=300)[0].split()[0]) == 32
        assert guest.ssh("stat -c %s /root/big; dmesg | grep -c 'I/O error' || :").split() == \
            [str(150 * MIB), "0"]
        destroy(drive, place)
        drive.quit()
    finally:
        place.close()
        subprocess.run(["umount", "-l", place.state], check=True)


def test_full_disk(new_place):
    """No room for the record: refused. None for the disk: failed, with the reason."""
    place = new_place()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k,mode=700", "none", place.state],
                      stderr=subprocess.DEVNULL).returncode:
        pytest.skip("making a small file system needs root")
    try:
        drive = place.drive()
        drive.wait("^ready 1")
        drive.ask(f"create web debian 1 {GIB} {16 << 40}")     # tables of a disk of 16T: over 256k
        assert "No space left on device" in drive.wait("^state web failed ")
        filler = place.state / ".filler"
        with pytest.raises(OSError, match="No space"), open(filler, "wb", buffering=0) as f:
            while True:
                f.write(b"x" * 4096)
        with pytest.raises(RuntimeError, match="^-28 "):
            drive.ask(f"create other {CREATE}")
        assert not (place.state / "other").exists()
        destroy(drive, place)
        drive.quit()
    finally:
        subprocess.run(["umount", "-l", place.state], check=True)


# --- accel = auto --------------------------------------------------------------------------


def with_promising_cpu(place):
    """A prefix that lets a program see a CPU which can virtualize, whatever there is."""
    text = open("/proc/cpuinfo").read().replace("flags\t\t:", "flags\t\t: vmx")
    (place.folder / "cpuinfo").write_text(text)
    prefix = ["unshare", "-m", "sh", "-c",
              f'mount --bind {place.folder}/cpuinfo /proc/cpuinfo && exec "$@"', "sh"]
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("/dev/kvm cannot be opened")
    if subprocess.run([*prefix, "true"], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("changing what /proc shows needs root")
    return prefix


def test_kvm_that_ends_at_its_start(place):
    """A QEMU that dies with KVM is started again without; that is remembered and shown."""
    prefix = with_promising_cpu(place)
    qemu = place.wrapper("qemu-system-x86_64", f"""
case " $* " in *" -accel kvm "*) echo >>{place.folder}/tries; echo no KVM today >&2; exit 1;; esac
exec "$REAL" "$@" """)
    drive = place.drive(prefix=prefix, qemu=qemu)
    drive.ask(f"create web {CREATE}")
    drive.up("web")
    assert [e for e in drive.seen if "web" in e][1:-1] == ["state web booting"]
    info = drive.info("web")
    assert info["accel"] == "tcg" and "no KVM today" in info["accel_why"]
    assert "accel=tcg (QEMU ended with 1: no KVM today)" in drive.ask("describe")
    drive.ask("stop web")
    drive.wait("^state web stopped$")
    drive.quit()
    drive = place.drive(prefix=prefix, qemu=qemu)
    drive.wait("^state web stopped")
    drive.ask("start web")
    drive.wait("^state web booting$")
    assert "no KVM today" in drive.info("web")["accel_why"]
    assert (place.folder / "tries").read_text() == "\n"
    destroy(drive, place)


def test_kvm_as_it_is_here(place):
    """KVM is tried for real; on a host where guests die or crawl on it, emulation follows."""
    drive = place.drive(prefix=with_promising_cpu(place))
    began = time.monotonic()
    drive.ask(f"create web {CREATE}")
    drive.wait("^state web booting$")
    assert drive.info("web")["accel"] == "kvm"
    guest = drive.up("web")
    took = time.monotonic() - began
    assert guest.ssh("hostname") == "web\n"
    info = drive.info("web")
    if info["accel"] == "tcg":
        assert info["accel_why"]
        if took > 45:
            pytest.skip("this machine is too busy to tell what is slow because of KVM")
        assert f"accel=tcg ({info['accel_why']})" in drive.ask("describe")
    else:
        assert "accel=kvm" in drive.ask("describe")
    destroy(drive, place)


def test_accel_that_is_set(place):
    drive = place.drive(accel="tcg")
    assert "accel=tcg" in drive.ask("describe")
    assert "images=" in drive.ask("describe") and "debian" in drive.ask("describe")
    assert str(images_folder()) not in drive.ask("describe")
