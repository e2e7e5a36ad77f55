"""The way to the VMs: whose host key, which of our keys, how many connections, and what breaks."""

import errno
import os
import pwd
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import ACCOUNT
from far import Far
from lister import now_or_never
from support import Box, matches, refused, wait_until


@pytest.fixture
def agent(cloud):
    """A private ssh-agent: agent.add(key); its environment is agent.env."""
    out = subprocess.run(["ssh-agent", "-s"], capture_output=True, text=True, check=True).stdout
    fields = dict(part.split("=", 1) for part in out.replace("\n", ";").split(";") if "=" in part)

    class Agent:
        env = {"SSH_AUTH_SOCK": fields["SSH_AUTH_SOCK"]}

        def add(self, key):
            subprocess.run(["ssh-add", "-q", key], env={**os.environ, **self.env}, check=True)

    yield Agent()
    os.kill(int(fields["SSH_AGENT_PID"]), signal.SIGTERM)


# --- host keys ---------------------------------------------------------------------------

def test_the_published_host_key_is_pinned(cloud, exe_mount):
    """Without known_hosts only exe.dev's own key is good, and the stand-in has another."""
    mount = exe_mount(cloud, known_hosts=None)
    box = mount.new("web", wait=False)
    box.wait_status("unreachable")
    assert "host key" in box.error()
    assert "AAAAB3NzaC1yc2EAAAADAQABAAABAQDEKtEcRW8OBtro5B" in box.read("info")
    tries = cloud.front.connections()
    refused(errno.EHOSTDOWN, box.run, "echo secret > seen")
    assert not matches(cloud.front.folder, "web-*/seen")
    assert cloud.front.connections() == tries <= 1


def test_a_known_hosts_file_without_the_host(cloud, exe_mount):
    empty = cloud.folder / "nobody"
    empty.write_text("")
    mount = exe_mount(cloud, known_hosts=empty)
    box = mount.new("web", wait=False)
    box.wait_status("unreachable")
    assert "host key" in box.error()
    assert cloud.front.connections() == 0


def test_hashed_known_hosts(cloud, exe_mount):
    mount = exe_mount(cloud, start=False)
    port = []
    cloud.lobby.make_guest = lambda vm: port.append(cloud.front.make(vm)) or port[-1]
    mount.start()
    mount.wait_ready()
    box = mount.new("web")
    path = cloud.folder / "hashed"
    key = " ".join(cloud.public(cloud.front.host_key).split()[:2])
    path.write_text(f"[localhost]:{port[0].port} {key}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", path], check=True, capture_output=True)
    assert "localhost" not in path.read_text()
    mount.stop()
    mount.config.write_text(cloud.config(known_hosts=path))
    mount.start()
    box.wait_status("running")
    assert box.ask("echo hashed") == b"hashed\n"


# --- our keys ------------------------------------------------------------------------------

def test_a_key_of_the_agent(cloud, exe_mount, agent):
    """identity = KEY.pub: that one alone is offered, though the agent holds others first."""
    cloud.front.max_auth_tries = 2
    for n in range(3):
        agent.add(cloud.new_key(f"other{n}"))
    agent.add(cloud.key)
    hidden = cloud.key.rename(cloud.folder / "moved")
    mount = exe_mount(cloud, variables=agent.env, identity=f"{cloud.key}.pub")
    box = mount.new("web")
    assert box.ask("echo by agent") == b"by agent\n"
    hidden.rename(cloud.key)


def test_the_agents_keys_one_after_the_other(cloud, exe_mount, agent):
    agent.add(cloud.new_key("other", "rsa", "-b", "2048", "-N", ""))
    agent.add(cloud.key)
    mount = exe_mount(cloud, variables=agent.env, identity=None)
    box = mount.new("web")
    assert box.ask("echo by agent") == b"by agent\n"


def test_an_rsa_key_of_the_agent(cloud, exe_mount, agent):
    key = cloud.new_key("rsa", "rsa", "-b", "2048", "-N", "")
    cloud.front.allow(cloud.public(key))
    agent.add(key)
    mount = exe_mount(cloud, variables=agent.env, identity=f"{key}.pub")
    assert mount.new("web").ask("echo by agent") == b"by agent\n"


def test_id_exe_is_taken_by_itself(cloud, exe_mount):
    mount = exe_mount(cloud, start=False, identity=None)
    (mount.folder / ".ssh").mkdir(mode=0o700)
    (mount.folder / ".ssh/id_exe").write_bytes(cloud.key.read_bytes())
    (mount.folder / ".ssh/id_exe").chmod(0o600)
    mount.start()
    mount.wait_ready()
    assert mount.new("web").ask("echo id_exe") == b"id_exe\n"


@pytest.mark.parametrize("what, words", [("stranger", "refused"), ("none", "SSH agent"),
                                         ("passphrase", "passphrase")])
def test_a_login_that_is_refused_is_not_tried_again(cloud, exe_mount, what, words):
    identity = None
    if what == "stranger":
        identity = cloud.new_key("stranger")
    elif what == "passphrase":
        identity = cloud.new_key("locked", "ed25519", "-N", "open sesame")
    mount = exe_mount(cloud, "refresh = 1s\n", identity=identity)
    box = mount.new("web", wait=False)
    box.run("true")
    box.wait_status("unreachable")
    assert words in box.error()
    assert box.exit() == "cancelled"
    assert cloud.front.connections() == 1
    looks = cloud.count("ls")
    wait_until(lambda: cloud.count("ls") >= looks + 3)  # each says that it runs
    refused(errno.EHOSTDOWN, box.run, "true")
    assert cloud.front.connections() == 1
    os.rmdir(box)
    wait_until(lambda: mount.names() == [])


def test_a_key_that_nobody_has_registered(cloud, exe_mount):
    """The service lets it in and asks for an address: no job is said to have run there."""
    key = cloud.new_key("stranger")
    cloud.front.allow_stranger(cloud.public(key))
    mount = exe_mount(cloud, identity=key)
    box = mount.new("web")
    box.run("echo hello")
    assert box.exit() in ("lost", "cancelled")
    assert box.out() == ""
    box.wait_status("unreachable")
    assert "does not know the SSH key" in box.error()
    assert cloud.front.connections() == 1


# --- how many ---------------------------------------------------------------------------------

def test_a_user_name_that_routes(cloud, exe_mount):
    """Where `new` and `ls` tell an ssh_user, that one logs in and no other."""
    cloud.front.user = "vm"
    mount = exe_mount(cloud)
    box = mount.new("web")
    assert box.ask("echo $LOGNAME") == b"vm+web\n"
    assert "user vm+web\n" in box.read("info")


def test_a_command_that_a_signal_ends(cloud, exe_mount):
    mount = exe_mount(cloud)
    box = mount.new("web")
    box.run("kill -KILL $$")
    assert box.exit() == "137"


def test_not_ready_yet(cloud, exe_mount):
    """The status is running, SSH is not up yet and share fails: both are asked again."""
    cloud.lobby.not_ready_s = 3600
    mount = exe_mount(cloud)
    box = mount.new("web", wait=False)
    box.run("echo patience")
    box.wait_status("booting")
    guest = cloud.lobby.vms["web"].guest
    os.mkdir(box.path / "ports/8080")
    wait_until(lambda: cloud.count("share port") >= 2)
    assert box.status() == "booting" and cloud.front.connections() == 0
    cloud.lobby.vms["web"].ready_at = 0
    guest.listen()
    assert box.out() == "patience\n"
    wait_until(lambda: cloud.lobby.vms["web"].proxy_port == 8080)
    assert cloud.count("new") == 1


@pytest.mark.deadline(900)
def test_one_connection_for_everything(cloud, exe_mount):
    """100 jobs and 10,000 file operations: no further request, no further connection."""
    mount = exe_mount(cloud, "refresh = 1h\n")
    box = mount.new("web")
    disk = box.ask("echo $SBX_DISK").decode().strip()
    folder = f"{box.path}/root{disk}"
    assert os.listdir(folder) == []
    wait_until(lambda: cloud.count("ls") >= 2)          # the one after the change
    requests, connections = cloud.service.requests, cloud.service.connections
    for n in range(100):
        assert box.ask(f"echo {n}") == b"%d\n" % n
    operations = 0
    for n in range(1000):
        path = f"{folder}/f{n}"
        fd = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
        os.write(fd, b"x" * n)
        os.fsync(fd)
        assert os.fstat(fd).st_size == n
        os.close(fd)
        os.chmod(path, 0o600)
        os.rename(path, path + ".new")
        assert os.stat(path + ".new").st_size == n
        os.unlink(path + ".new")
        operations += 10
    assert operations == 10000
    assert cloud.front.connections() == 1
    assert (cloud.service.requests, cloud.service.connections) == (requests, connections)


@pytest.mark.deadline(900)
def test_fifty_at_once(cloud, exe_mount):
    """5 requests a second, and more than 3 connections a second are punished: all 50 run."""
    cloud.service.rate = (5, 5)
    cloud.front.burst = 3
    mount = exe_mount(cloud, ssh_gap="400ms")
    now_or_never(mount.process.pid, 11)
    lister = subprocess.Popen([sys.executable, "-B", Path(__file__).with_name("lister.py"), mount],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    names = [f"v{n}x" for n in range(50)]
    begun = time.monotonic()
    for name in names:
        os.mkdir(mount / name)
    states = set()
    while states != {"running"}:
        time.sleep(0.05)
        assert len(os.listdir(mount)) == 50
        states = {(mount / n / "status").read_text().strip() for n in names}
        assert cloud.front.bans == 0
        assert states <= {"creating", "booting", "running"}
    took = time.monotonic() - begun
    print(f"50 running after {took:.0f} s, {cloud.front.connections()} connections, "
          f"{cloud.front.bans} bans, {cloud.service.limited} times 429")
    print(lister.communicate()[0], end="")
    metrics = (mount / ".sbxfs/metrics").read_text()
    turns = [re.search(rf"^sbxfs_loop_turn{key} (.*)$", metrics, re.M)[1]
             for key in ("_seconds_count", '_seconds_bucket{le="0.001"}', "_longest_seconds",
                         "_longest_cpu_seconds")]
    print("turns of the loop: {}, of 1 ms at most {}, longest {} s, on a processor {} s"
          .format(*turns))
    for name in names[::10]:
        assert Box(mount, name).ask("echo $SBX_VM").strip()
    assert cloud.front.bans == 0
    assert cloud.count("new") == 50
    assert cloud.front.connections() == 50


def test_dropped_syns(cloud, exe_mount):
    """Nobody answers: the sandbox is unreachable with a sentence, and no SYN is sent for minutes."""
    mount = exe_mount(cloud)
    box = mount.new("web")
    begun = time.time()
    cloud.front.banned_until = time.monotonic() + 3600
    cloud.front.ban(True)
    box_guest = cloud.lobby.vms["web"].guest
    box_guest.cut()
    box.wait_status("unreachable", timeout=60)
    said = box.error()
    assert "drops" in said
    until = re.search(r"the next is tried at (\d\d):(\d\d):(\d\d) UTC", said)
    seconds = sum(int(n) * unit for n, unit in zip(until.groups(), (3600, 60, 1)))
    assert 60 <= (seconds - int(begun)) % 86400 <= time.time() - begun + 241
    refused(errno.EHOSTDOWN, box.run, "true")
    other = mount.new("other", wait=False)
    other.wait_status("unreachable", timeout=60)
    assert "the next is tried at" in other.error()
    assert mount.names() == ["other", "web"]


@pytest.mark.deadline(400)
def test_a_dead_link_is_found(cloud, exe_mount):
    """Everything that is sent is taken and nothing is answered: within 15 s that is known."""
    mount = exe_mount(cloud)
    box = mount.new("web")
    box.run("sleep 1000")
    box.wait_job("running")
    guest = cloud.lobby.vms["web"].guest
    begun = time.monotonic()
    guest.pause()
    assert box.exit() == "lost"
    print(f"found after {time.monotonic() - begun:.1f} s")
    box.wait_status("unreachable", timeout=60)
    assert box.error()
    refused(errno.EHOSTDOWN, os.listdir, box.path / "root")
    guest.resume()
    box.wait_status("running", timeout=60)
    assert box.ask("echo again") == b"again\n"


@pytest.fixture
def far(cloud):
    if os.getuid() != 0:
        pytest.skip("a network in which packets vanish takes root")
    cloud.front.far = Far()
    yield cloud.front.far
    cloud.front.far.close()


@pytest.mark.deadline(400)
@pytest.mark.parametrize("how", ["both", "answers"])
def test_packets_that_vanish(cloud, exe_mount, far, how):
    """Neither side is told, the kernel takes what is sent: within 15 s it is known as well."""
    mount = exe_mount(cloud)
    box = mount.new("web")
    box.run("sleep 1000")
    box.wait_job("running")
    begun = time.monotonic()
    far.cut(how)
    assert box.exit() == "lost"
    print(f"found after {time.monotonic() - begun:.1f} s")
    assert "no answer" in (mount / ".sbxfs/errors").read_text()
    far.mend(how)
    box.wait_status("running", timeout=100)     # a SYN may have gone: then none for a minute
    assert box.ask("echo again") == b"again\n"


# --- what breaks -----------------------------------------------------------------------------------

def test_a_cut_connection(cloud, exe_mount):
    mount = exe_mount(cloud)
    box = mount.new("web")
    box.run("sleep 1000")
    box.wait_job("running")
    cloud.lobby.vms["web"].guest.cut()
    assert box.exit() == "lost"
    assert box.ask("echo again") == b"again\n"
    assert box.status() == "running"
    assert cloud.front.connections() == 2


def test_an_idle_sftp_channel_is_closed_by_the_service(cloud, exe_mount):
    """Nobody notices: files and folders go on, and a file that was changed meanwhile is ESTALE."""
    cloud.front.idle.write_text("0.4")
    mount = exe_mount(cloud)
    box = mount.new("web")
    disk = box.ask("echo $SBX_DISK").decode().strip()
    folder = f"{box.path}/root{disk}"
    with open(f"{disk}/same", "w") as f:
        f.write("same text")
    with open(f"{disk}/changed", "w") as f:
        f.write("old text")

    def idle(use):
        """Use the channel, and wait until the service has closed it."""
        closed = cloud.front.idle_closed()
        use()
        wait_until(lambda: cloud.front.idle_closed() > closed)

    same, changed = (os.open(f"{folder}/{n}", os.O_RDONLY) for n in ("same", "changed"))
    for _ in range(5):
        idle(lambda: Path(f"{folder}/same").read_text())    # asks whether it is the same still
        assert os.pread(same, 9, 0) == b"same text"
        assert sorted(os.listdir(folder)) == ["changed", "same"]
    with open(f"{disk}/changed", "w") as f:
        f.write("a much newer text")
    idle(lambda: Path(f"{folder}/same").read_text())
    with pytest.raises(OSError) as caught:
        print(os.pread(changed, 4, 0))
    assert errno.errorcode[caught.value.errno] == "ESTALE"
    assert os.stat(f"{folder}/same").st_size == 9
    os.close(same)
    os.close(changed)
    assert box.status() == "running" and box.error() == ""
    assert cloud.front.connections() == 1


@pytest.fixture
def sudoer(cloud):
    """The login user is not root, and may use sudo: nobody, where root runs the tests."""
    if os.getuid() == 0:
        cloud.front.log_in_as("nobody")
        return pwd.getpwnam("nobody").pw_uid
    return os.getuid()


def roots_file(box):
    """A file on the VM's disk that its login user may not read, where that can be had."""
    disk = box.ask("echo $SBX_DISK").decode().strip()
    path = Path(disk) / "roots"
    path.write_text("a secret of root")
    path.chmod(0o600)
    return path, box.path / f"root{path}"


def test_sudo(cloud, exe_mount, sudoer):
    """root/ by `sudo -n` of the guest's own SFTP server: what is root's is there."""
    mount = exe_mount(cloud, "sudo = yes\n")
    box = mount.new("web")
    inside, outside = roots_file(box)
    assert outside.read_text() == "a secret of root"
    outside.with_name("new").write_text("by root")
    assert inside.with_name("new").stat().st_uid == os.getuid()
    assert "sftp-server" in cloud.front.sudo_log.read_text()
    assert box.ask("id -u") == b"%d\n" % sudoer        # commands are the login user's
    if os.getuid() == 0:
        assert box.ask(f"cat {inside} 2>&1").endswith(b"Permission denied\n")


def test_without_sudo(cloud, exe_mount, sudoer):
    mount = exe_mount(cloud)
    box = mount.new("web")
    inside, outside = roots_file(box)
    if os.getuid() == 0:
        refused(errno.EACCES, outside.read_text)
    else:
        assert outside.read_text() == "a secret of root"
    assert not cloud.front.sudo_log.exists()


def test_sudo_that_asks(cloud, exe_mount, sudoer):
    """It is refused at once and in its own words, and again allowed when it is."""
    cloud.front.no_sudo.touch()
    mount = exe_mount(cloud, "sudo = yes\n")
    box = mount.new("web")
    refused(errno.EIO, os.listdir, box.path / "root")
    assert "a password is required" in (mount / ".sbxfs/errors").read_text()
    assert box.ask("echo jobs") == b"jobs\n"           # they need none
    cloud.front.no_sudo.unlink()

    def listed():
        try:
            return "etc" in os.listdir(box.path / "root")
        except OSError:
            return False
    wait_until(listed)


def test_hosts_without_a_token(cloud, exe_mount):
    """Jobs and files by SSH alone; no life cycle, and rmdir is EBUSY."""
    guest = cloud.front.make(type("VM", (), {"name": "a", "ready_at": 0})())
    mount = exe_mount(cloud, f"hosts = localhost:{guest.port}\n", api=None, token_file=None,
                      ca_file=None)
    box = Box(mount, "localhost")
    wait_until(lambda: mount.names() == ["localhost"])
    box.wait_status("running")          # it is listed before it was reached
    assert box.ask("echo here") == b"here\n"
    assert "etc" in os.listdir(box.path / "root")
    refused(errno.EBUSY, os.rmdir, box)
    refused(errno.ENODEV, os.mkdir, mount / "new")
    assert "token" in (mount / ".sbxfs/errors").read_text()
    assert box.read("protect") == "1\n"
    box.write("protect", "0\n")
    refused(errno.EBUSY, os.rmdir, box)
    assert cloud.service.requests == 0


def test_a_host_that_is_taken_out(cloud, exe_mount):
    """It is not there any more, and nothing is said to have failed: its machine is not ours."""
    guest = cloud.front.make(type("VM", (), {"name": "a", "ready_at": 0})())
    host = f"hosts = localhost:{guest.port}\n"
    mount = exe_mount(cloud, host, api=None, token_file=None, ca_file=None)
    box = Box(mount, "localhost")
    box.wait_status("running")
    box.write("env", "A=1\n")
    mount.stop()
    mount.start()
    assert box.ask("echo $A") == b"1\n"
    mount.stop()
    mount.config.write_text(mount.config.read_text().replace(host, ""))
    mount.start()
    wait_until(lambda: mount.names() == [])
    assert not [e for e in mount.events() if e["event"] == "failed"]


def test_hosts_of_one_name(cloud, exe_mount):
    """The second has no name left: it is said, not passed over."""
    guest = cloud.front.make(type("VM", (), {"name": "a", "ready_at": 0})())
    mount = exe_mount(cloud, f"hosts = localhost:{guest.port} localhost:1\n", api=None,
                      token_file=None, ca_file=None)
    wait_until(lambda: mount.names() == ["localhost"])
    assert Box(mount, "localhost").ask("echo here") == b"here\n"
    mount.log.wait("hosts: localhost:1 is left out")


def test_exe_vm_host(cloud, exe_mount):
    guest = cloud.front.make(type("VM", (), {"name": "a", "ready_at": 0})())
    mount = exe_mount(cloud, api=None, token_file=None, ca_file=None,
                      variables={"EXE_VM_HOST": f"someone@localhost:{guest.port}"})
    wait_until(lambda: mount.names() == ["localhost"])
    assert Box(mount, "localhost").ask("echo here") == b"here\n"
    assert "user someone" in (mount / "localhost/info").read_text()
