"""Guests that lack what others have: busybox and nothing else, no /proc."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support import alive, wait_until

BUSYBOX = "/bin/busybox"

WRAPPER = """\
#!/bin/busybox sh
{first}
export PATH=/bin
exec /bin/sh "$@"
"""


def applets():
    try:
        return subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True,
                              check=True).stdout.split()
    except FileNotFoundError:
        return None


needs_busybox = pytest.mark.skipif(not applets(), reason="there is no busybox")


def make_bare(box, without=(), first="", shell=None):
    """
    Nothing but busybox from the next boot on; first: what a login does first. Its shell has
    all applets built in, so what shall be missing needs another shell.
    """
    box.write("ctl", "stop")
    box.wait_status("stopped")
    disk = Path(box.info()["folder"])
    if not (disk / "bin").is_symlink():
        pytest.skip("/bin is no link here: the fake guest has the host's")
    (disk / "bin").unlink()
    (disk / "bin").mkdir()
    shutil.copy(BUSYBOX, disk / "bin/busybox")
    for applet in applets():
        if applet not in ("busybox", *without):
            (disk / "bin" / applet).symlink_to("busybox")
    if shell:
        (disk / "bin/sh").unlink()
        (disk / "bin/sh").symlink_to(shell)
    (disk / "bin/login-shell").write_text(WRAPPER.format(first=first))
    (disk / "bin/login-shell").chmod(0o755)
    passwd = disk / "etc/passwd"
    passwd.write_text(passwd.read_text().replace("/bin/bash", "/bin/login-shell"))
    box.write("ctl", "start")
    box.wait_status("running")


@needs_busybox
def test_busybox_is_enough(box):
    make_bare(box)
    box.ask("true")
    missing = wait_until(lambda: box.info().get("guest_missing")).split()
    assert set(missing) == {"bash", "cgroup2"}
    assert box.ask("echo $0; readlink /proc/$$/exe") == b"/bin/sh\n/bin/busybox\n"
    box.run("cat <<E; exit 7\nit's \"quoted\"\nE")
    assert box.out() == "it's \"quoted\"\n" and box.exit() == "7"


@needs_busybox
def test_scripts_and_input_under_busybox(box):
    make_bare(box)
    os.mkdir(box / "jobs/x")
    with open(box / "jobs/x/stdin", "w") as stdin:
        box.write("jobs/x/cmd", "#!/bin/sh\nread a; echo got $a; cat\n")
        stdin.write("one\ntwo\n")
    assert box.read("jobs/x/stdout") == "got one\ntwo\n"
    assert box.ask("#" * 100000 + "\necho long\n") == b"long\n"


@needs_busybox
def test_kill_and_timeout_under_busybox(box):
    make_bare(box)
    os.mkdir(box / "jobs/x")
    box.write("jobs/x/timeout", "1s")
    box.write("jobs/x/cmd", "echo $$; setsid sleep 1000 & echo $!; "
                            "env -i setsid sh -c 'sleep 1000 & echo $!'; echo ready; wait")
    assert box.read("jobs/x/exit") == "124\n"
    # As many as have come so far: all, unless the guest is very slow.
    pids = [int(word) for word in box.read("jobs/x/log").split() if word != "ready"]
    assert not [pid for pid in pids if alive(pid)]
    box.run("sleep 1000")
    box.wait_job("running")
    box.write("ctl", "killall")
    assert box.exit() == "143"


@needs_busybox
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can hide /proc from the guest")
def test_without_proc_the_process_group_is_ended(box):
    make_bare(box, without=("grep", "dd", "setsid", "timeout"), shell="/usr/bin/dash",
              first="/bin/busybox mount -t tmpfs none /proc")
    box.ask("true")
    missing = wait_until(lambda: box.info().get("guest_missing")).split()
    assert set(missing) == {"/proc", "grep", "dd", "bash", "setsid", "timeout", "cgroup2"}
    assert box.ask("echo fine") == b"fine\n"
    box.run("#!/bin/sh\necho never\n")
    assert box.exit() == "126" and box.out() == ""
    os.mkdir(box / "jobs/x")
    box.write("jobs/x/timeout", "500ms")
    box.write("jobs/x/cmd", "echo $$; sleep 1000 & echo $!; wait")
    assert box.read("jobs/x/exit") == "124\n"
    assert not [pid for pid in box.read("jobs/x/log").split() if alive(int(pid))]
    box.run("trap 'echo hup' HUP; trap 'exit 9' TERM; echo ready; "
            "while :; do sleep 0.05; done")
    wait_until(lambda: box.read("log") == "ready\n")
    box.write("jobs/latest/ctl", "signal HUP")
    wait_until(lambda: "hup\n" in box.read("log"))
    box.write("jobs/latest/ctl", "kill")
    assert box.exit() == "9"


# A process whose memory cannot be looked into: whoever reads these files of it waits for ever.
HANG = ("mkfifo pipe; for f in environ cmdline; do mount --bind pipe /proc/$$/$f; done; "
        "echo hangs; while :; do sleep 1000; done")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount in the guest")
def test_a_process_that_holds_up_who_looks_at_it(box):
    """Others are found and ended in spite of it, by every mark, and so is its own job."""
    box.run(HANG)
    wait_until(lambda: box.read("jobs/1/log") == "hangs\n")
    box.run("trap : USR1; ulimit -S -f 1000000; "
            "(setsid sh -c 'trap \"echo usr1\" USR1; echo $$; while :; do sleep 0.01; done' &); "
            "while :; do sleep 1004; done")
    box.run("sleep 1005")
    escaped = int(wait_until(lambda: box.read("jobs/2/log")))
    box.write("jobs/2/ctl", "signal USR1")
    wait_until(lambda: "usr1" in box.read("jobs/2/log"))
    box.write("jobs/2/ctl", "kill")
    assert box.read("jobs/2/exit") == "143\n" and not alive(escaped)
    assert box.read("jobs/1/status") == box.read("jobs/3/status") == "running\n"
    box.write("ctl", "killall")
    assert box.read("jobs/1/exit") == box.read("jobs/3/exit") == "143\n"
    assert not box.mount.job_processes(box.name)


@pytest.mark.deadline(200)
def test_a_guest_that_ends_nothing(mount):
    """What should end the job's processes never comes back: after 45 s it is told as lost."""
    box, other = mount.box(), mount.box()
    for b in (box, other):
        (b.home / ".bashrc").write_text('case $BASH_EXECUTION_STRING in *" kill \'"*) '
                                        "exec sleep 1000;; esac\n")
        b.run("sleep 1001")
        b.run("while [ ! -e go ]; do sleep 0.01; done; echo went on")
        b.run("sleep 1002")
        for job in (1, 2, 3):
            wait_until(lambda: b.read(f"jobs/{job}/status") == "running\n")
    box.write("jobs/1/ctl", "kill")
    other.write("jobs/1/ctl", "signal USR1")
    assert box.read("jobs/1/exit") == "lost\n"
    reason = "what ends processes in the guest did not come back in 45 seconds: nobody knows"
    assert box.read("jobs/1/status") == f"lost {reason}\n"
    wait_until(lambda: "signal USR1: the guest did not answer" in other.error(), 100)
    assert f"{other.name}/jobs/1/ctl" in mount.errors()
    assert other.read("jobs/1/status") == "running\n"
    for b in (box, other):
        (b.home / ".bashrc").unlink()
        (b.home / "go").touch()
        assert b.read("jobs/2/stdout") == "went on\n"
        b.write("jobs/3/ctl", "kill")
        assert b.read("jobs/3/exit") == "143\n"
        b.destroy()


def test_a_usual_guest_lacks_little(box):
    box.ask("true")
    missing = box.info().get("guest_missing", "").split()
    assert set(missing) <= {"cgroup2"}
