"""fs.fuse.max_request_timeout, where the host sets it, never costs the mount."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from support import blocked_in_read, blocked_in_write, wait_until

LIMIT = Path("/proc/sys/fs/fuse/max_request_timeout")
SECONDS = 15            # the kernel looks every 15 s, so nothing shorter can be told apart
HELD = 33               # by then a mount that holds a request has been aborted


@pytest.fixture
def limited(new_mount):
    """A mount that was made under the limit; the next one of the machine is not."""
    if not LIMIT.exists():
        pytest.skip("this kernel has no fs.fuse.max_request_timeout (Linux 6.14)")
    if not os.access(LIMIT, os.W_OK):
        pytest.skip("only root can set fs.fuse.max_request_timeout")
    before = LIMIT.read_text()
    LIMIT.write_text(f"{SECONDS}\n")
    try:
        mount = new_mount().start()
    finally:
        LIMIT.write_text(before)
    assert f"a limit of {SECONDS} s" in "\n".join(mount.log.lines)
    return mount


def test_waits_outlast_the_limit_and_the_mount_lives(limited, spawn):
    box, late = limited.box(), limited.box(None, "boot 3600000", wait=False)
    box.run("while [ ! -e go ]; do sleep 0.01; done; echo done; cat >/dev/null; exit 3")
    job = box / f"jobs/{box.latest()}"
    os.mkdir(box / "jobs/deaf")
    stdin = os.open(box / "jobs/deaf/stdin", os.O_WRONLY)
    box.write("jobs/deaf/cmd", "while [ ! -e go ]; do sleep 0.01; done; wc -c")

    # Programs that take "interrupted" for what it is and go on.
    again = [["cat", job / "stdout"], ["sh", "-c", "read line < $0/stdout; echo $line", job],
             ["python3", "-c", f"print(open('{job}/stdout').read(), end='')"],
             ["dd", f"if={job}/stdout", "status=none"],
             ["perl", "-e", "open F, '<', $ARGV[0]; print <F>", job / "stdout"]]
    again = [spawn(argv, stdout=-1) for argv in again if shutil.which(argv[0])]
    ends = spawn(["cat", job / "exit"], stdout=-1)
    for process in (*again, ends):
        wait_until(lambda p=process: blocked_in_read(p))
    pusher = spawn(["dd", "if=/dev/zero", "bs=1M", "count=4", "iflag=fullblock", "status=none"],
                   stdout=stdin)
    wait_until(lambda: blocked_in_write(pusher))
    # What has a bound of its own is answered as if that had come.
    waits = spawn(["stat", late / "root/etc"], stderr=subprocess.PIPE, text=True)

    time.sleep(HELD)
    assert "Connection timed out" in waits.communicate(timeout=60)[1]
    assert box.status() == "running"
    (box.home / "go").touch()
    for process in again:
        assert process.communicate(timeout=60)[0] == b"done\n", process.args
    assert ends.communicate(timeout=60)[0] == b"3\n"
    assert pusher.wait(60) == 0
    os.close(stdin)
    assert box.read("jobs/deaf/stdout") == f"{4 << 20}\n"
