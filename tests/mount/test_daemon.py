"""The command: options, config file, mount point, going into the background, signals."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from support import CONFIG, alive, find_sbxfs, matches, sanitized, wait_until


def sbxfs(*args, mount=None, **kwargs):
    return subprocess.run([find_sbxfs(), *args], text=True, capture_output=True, timeout=60,
                          stdin=subprocess.DEVNULL, env=mount.env if mount else None, **kwargs)


def refusal(mount, *args):
    """What the command says when it refuses: one line."""
    done = sbxfs(*args, mount=mount)
    assert done.returncode not in (0, None) and done.returncode > 0, done
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    said = [line for line in lines if line.startswith("sbxfs: ")]
    assert len(said) == 1, done.stderr
    return said[0]


# --- options ------------------------------------------------------------------

@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help(option):
    done = sbxfs(option)
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.startswith("usage: sbxfs ")
    for word in ("-f", "-c CONFIG", "-o OPTION", "MOUNTPOINT"):
        assert word in done.stdout


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_version(option):
    done = sbxfs(option)
    assert done.returncode == 0
    assert re.fullmatch(r"sbxfs \d+\.\d+\.\d+\n", done.stdout)


def test_no_mount_point(new_mount):
    assert "mount point" in refusal(new_mount())


@pytest.mark.parametrize("option", ["-x", "--nonsense", "-c", "-o"])
def test_bad_option(new_mount, option):
    mount = new_mount()
    assert "option" in refusal(mount, mount.path, option)


def test_bad_mount_option(new_mount):
    mount = new_mount()
    assert "log=loud" in refusal(mount, "-f", "-c", mount.config, "-o", "log=loud", mount.path)
    refusal(mount, "-f", "-c", mount.config, "-o", "no_such_option", mount.path)
    assert not mount.mounted()


# --- the config file ----------------------------------------------------------

@pytest.mark.parametrize("text, line, words", [
    ("[mount]\nbackends = fake\nspeed = 9\n", 3, "speed"),
    ("[mount]\nbackends = fake\n[fake]\n\n; a comment\ncolour = red\n", 6, "colour"),
    ("[nonsense]\nkey = 1\n", 2, "nonsense"),
    ("[mount]\nbackends = fake\nthis is no key\n", 3, "key = value"),
    ("[mount]\nbackends = fake\n[defaults]\nmemory = much\n", 4, "memory = much"),
    ("[mount]\nbackends = fake\n[defaults]\ncpus = 0\n", 4, "cpus = 0"),
    ("[mount]\nbackends = nobody\n", 2, "nobody"),
])
def test_bad_config(new_mount, text, line, words):
    """The file, the line, and what is wrong with it."""
    mount = new_mount(text)
    said = refusal(mount, "-c", mount.config, mount.path)
    assert f"{mount.config}, line {line}:" in said
    assert words in said
    assert not mount.mounted()


def test_bad_value_of_a_backend(new_mount):
    mount = new_mount(CONFIG + "maxsessions = none\n")
    assert "maxsessions = none" in refusal(mount, "-c", mount.config, mount.path)


def test_config_that_is_not_there(new_mount):
    mount = new_mount()
    assert "/no/such/file" in refusal(mount, "-c", "/no/such/file", mount.path)


def test_config_in_its_usual_place(new_mount):
    mount = new_mount()
    place = mount.folder / "config/sbxfs"
    place.mkdir()
    mount.config.rename(place / "config")
    mount.command = lambda *options: [find_sbxfs(), *options, str(mount.path)]
    mount.start()
    assert "fake ready" in (mount / ".sbxfs/backends").read_text()


def test_defaults_of_new_sandboxes(new_mount):
    mount = new_mount(CONFIG + "[defaults]\nimage = fake\ncpus = 3\nmemory = 768M\ndisk = 3G\n")
    mount.start()
    info = mount.box(wait=False).info()
    assert [info[key] for key in ("image", "cpus", "memory", "disk")] == ["fake", "3", "768M", "3G"]


# --- the mount point ----------------------------------------------------------

def test_mount_point_that_is_absent(new_mount):
    mount = new_mount()
    mount.path.rmdir()
    said = refusal(mount, "-c", mount.config, mount.path)
    assert str(mount.path) in said and "mkdir" in said


def test_mount_point_that_is_a_file(new_mount):
    mount = new_mount()
    mount.path.rmdir()
    mount.path.touch()
    assert "not a folder" in refusal(mount, "-c", mount.config, mount.path)


def test_mount_point_that_is_busy(new_mount, own_mount):
    other = new_mount()
    said = refusal(other, "-c", other.config, own_mount.path)
    assert "in use" in said and str(own_mount.path) in said
    assert own_mount.box("web").ask("echo fine") == b"fine\n"


def test_a_second_daemon_on_the_same_state(own_mount):
    """Two daemons would both think that they own the sandboxes."""
    second = own_mount.folder / "second"
    second.mkdir()
    said = refusal(own_mount, "-c", own_mount.config, second)
    assert str(own_mount.process.pid) in said and "another sbxfs" in said
    assert own_mount.box("web").ask("echo fine") == b"fine\n"


def test_relative_mount_point(own_mount):
    own_mount.stop()
    here = ["env", "-C", str(own_mount.folder), find_sbxfs()]
    there = ["-c", "config/sbxfs.conf", "./sandboxes/"]
    own_mount.command = lambda *options: [*here, *options, *there]
    own_mount.start()
    assert own_mount.mounted()


def test_files_of_the_daemon_are_private(own_mount):
    box = own_mount.box()
    box.run("echo secret")
    box.exit()
    for folder, folders, files in os.walk(own_mount.folder / "state/sbxfs"):
        if "disk" in folders:
            folders.remove("disk")      # the fake guest's own
        for name in folders + files:
            path = Path(folder) / name
            if not path.is_symlink() and not name.endswith(".pub"):
                assert not path.stat().st_mode & 0o077, path


def test_the_mount_is_nosuid_and_nodev(own_mount):
    fields, = own_mount.mountinfo()
    assert {"nosuid", "nodev"} <= set(fields[5].split(","))
    assert "fuse.sbxfs" in fields


# --- the background -----------------------------------------------------------

def daemon_pid(mount):
    return int((mount.folder / "state/sbxfs/lock").read_text())


@pytest.fixture
def background(new_mount):
    mount = new_mount()
    yield mount
    if mount.mounted():
        pid = daemon_pid(mount)
        mount.unmount()
        wait_until(lambda: not alive(pid))


def test_the_command_returns_when_the_mount_answers(background):
    mount = background
    done = sbxfs("-c", mount.config, mount.path, mount=mount)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert os.listdir(mount) == []
    assert (mount / ".sbxfs/version").read_text()
    pid = daemon_pid(mount)
    assert os.getsid(pid) == pid
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in range(3)} == {"/dev/null"}
    box = mount.box()
    assert box.ask("echo hello") == b"hello\n"
    box.destroy()
    mount.unmount()
    wait_until(lambda: not alive(pid))
    assert not mount.mounted()


def test_what_goes_wrong_in_the_background_is_told(background):
    """The command waits, so it can still say it, and fails."""
    background.path.rmdir()
    done = sbxfs("-c", background.config, background.path, mount=background)
    assert done.returncode != 0 and "mkdir" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can use mount(8)")
def test_mount_of_the_system(background, monkeypatch):
    """mount -t fuse.sbxfs, as in fstab."""
    mount = background
    place = mount.folder / "config/sbxfs"
    place.mkdir()
    mount.config.rename(place / "config")
    for name, value in mount.env.items():
        monkeypatch.setenv(name, value)
    (mount.folder / "bin").mkdir()
    (mount.folder / "bin/sbxfs").symlink_to(find_sbxfs())
    monkeypatch.setenv("PATH", f"{mount.folder}/bin:{os.environ['PATH']}")
    done = subprocess.run(["mount", "-t", f"fuse.{mount.folder}/bin/sbxfs", "sbxfs", mount.path,
                           "-o", "rw,noauto,log=debug"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "fake ready" in (mount / ".sbxfs/backends").read_text()


@pytest.mark.parametrize("signo", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_end_it_cleanly(own_mount, signo):
    box = own_mount.box()
    box.run("sleep 1000")
    box.wait_job("running")
    own_mount.process.send_signal(signo)
    assert own_mount.process.wait(60) == 0
    wait_until(lambda: not own_mount.mounted())
    own_mount.ended()
    own_mount.start()
    assert box.exit() == "lost"


def test_nothing_is_left_in_the_run_folder(own_mount):
    own_mount.box().ask("true")
    own_mount.stop()
    left = [path for path in matches(own_mount.folder / "run", "**/*") if not path.is_dir()]
    assert left == []


# --- what it costs ------------------------------------------------------------

def cpu_ticks(pid):
    text = Path(f"/proc/{pid}/stat").read_text()
    return sum(map(int, text[text.rindex(")") + 2:].split()[11:13]))


def rss(pid):
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", text).group(1)) << 10


def test_idle_costs_nothing(own_mount):
    """With a connection up, and nothing asked for."""
    own_mount.box().ask("true")
    pid = own_mount.process.pid

    def quiet():
        before = cpu_ticks(pid)
        time.sleep(2)
        return cpu_ticks(pid) == before

    wait_until(quiet)


@pytest.mark.deadline(400)
@pytest.mark.skipif(sanitized(), reason="AddressSanitizer keeps what has been freed")
def test_memory_while_a_gigabyte_is_read(own_mount, spawn):
    """cat stdout | md5sum of 1 GiB: below 64 MiB, at every moment."""
    box = own_mount.box()
    pid = own_mount.process.pid
    size = 1 << 30
    box.run(f"head -c {size} /dev/zero")
    reader = spawn(["cat", box / "stdout"], stdout=-1)
    md5 = spawn(["md5sum"], stdin=reader.stdout, stdout=-1)
    highest = 0
    while md5.poll() is None:
        highest = max(highest, rss(pid))
        time.sleep(0.02)
    assert md5.stdout.read().split()[0] == b"cd573cfaace07e7949bc0c46028904ff"
    assert highest < 64 << 20, f"{highest >> 20} MiB"
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text()).group(1)
    assert int(peak) < 64 << 10


@pytest.mark.skipif(sanitized(), reason="AddressSanitizer keeps what has been freed")
def test_memory_does_not_grow_with_jobs(own_mount):
    box = own_mount.box()
    for _ in range(100):
        box.ask("echo hello")
    before = rss(own_mount.process.pid)
    for _ in range(500):
        box.ask("echo hello")
    assert rss(own_mount.process.pid) - before < 2 << 20


def test_descriptors_do_not_leak(own_mount):
    box = own_mount.box()
    fds = Path(f"/proc/{own_mount.process.pid}/fd")
    box.ask("true")
    before = len(list(fds.iterdir()))
    for n in range(200):
        box.run(f"echo {n}; echo {n} >&2")
        assert box.out() == f"{n}\n"
        assert box.exit() == "0"
    os.listdir(box.disk)
    wait_until(lambda: len(list(fds.iterdir())) <= before + 3)
