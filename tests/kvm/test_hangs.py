"""A QEMU that stands still: what was asked of it fails in time, and nothing is lost by that."""

import json
import os
import signal

import pytest

from drive import wait_until
from test_clones import check_disks, create, destroy, nothing_left, snapshot, snapshots, \
    template     # noqa: F401 (a fixture)


def next_layer(place):
    return json.loads(place.record("web").read_text())["next_layer"]


@pytest.mark.deadline(400)
def test_asked_of_one_that_hangs(place):
    """A snapshot and a pause have a bound; when it goes on it is as it was asked for last."""
    drive = place.drive(accel="tcg", templates="on")
    guest = create(drive, "web")
    guest.ssh("echo before >/root/file")
    qemu = int(drive.info("web")["pid"])
    os.kill(qemu, signal.SIGSTOP)
    drive.ask("snapshot web one")
    assert "did not answer within 20 s" in drive.wait("^trouble web snapshot ")
    assert snapshots(drive, "web") == {} and next_layer(place)
    for command in ("snapshot web two", "suspend web"):
        with pytest.raises(RuntimeError, match="^-16 .*its QEMU does not answer"):
            drive.ask(command)
    drive.ask("pause web")
    assert "did not answer within 20 s" in drive.wait("^trouble web pause ")
    assert not [line for line in drive.seen if "paused" in line.split(" ")[2:3]]

    os.kill(qemu, signal.SIGCONT)
    drive.wait("^state web paused$")
    wait_until(lambda: not next_layer(place))
    drive.ask("resume web")
    guest = drive.up("web")
    assert guest.ssh("cat /root/file; echo after >/root/file; sync") == "before\n"
    snapshot(drive, "web", "two")
    assert int(drive.info("web")["pid"]) == qemu
    check_disks(place)
    drive.ask("restore web two")
    assert drive.up("web").ssh("cat /root/file") == "after\n"

    drive.ask("pause web")
    drive.wait("^state web paused$")
    os.kill(int(drive.info("web")["pid"]), signal.SIGSTOP)
    drive.ask("snapshot web three")
    wait_until(lambda: next_layer(place), 60)
    destroy(drive, place, "web")        # and that it hangs does not hold up its end
    nothing_left(place)
