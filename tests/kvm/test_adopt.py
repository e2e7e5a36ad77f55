"""Machines that a daemon takes up which was not started as the one that started them."""

import json
import os
import re
import shutil
import signal
import socket

import pytest

from drive import Endpoint, alive, wait_until
from test_clones import CREATE, create, destroy, template     # noqa: F401  (makes one)


def closed(url):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", int(url.rsplit(":")[-1]))) != 0


@pytest.mark.deadline(300)
def test_another_runtime_directory(place):
    """As from a login session to one of fstab: its sockets are where they were."""
    drive = place.drive(accel="tcg", templates="on")
    guest = create(drive, "web")
    guest.ssh("cd /tmp; nohup python3 -m http.server 8080 >log 2>&1 </dev/null &")
    drive.ask("open web 8080")
    url = wait_until(lambda: drive.ask("url web 8080").strip())
    before = drive.info("web")
    drive.quit()

    first, place.run = place.run, place.folder / "run2"
    place.run.mkdir(mode=0o700)
    drive = place.drive(accel="tcg", templates="on")
    assert drive.up("web").port == guest.port
    drive.ask("open web 8080")
    assert wait_until(lambda: drive.ask("url web 8080").strip()) == url
    after = drive.info("web")
    assert (after["pid"], after["net_pid"]) == (before["pid"], before["net_pid"])
    assert guest.ssh("echo there") == "there\n"
    drive.ask("pause web")          # which takes QEMU's socket
    drive.wait("^state web paused")
    drive.ask("resume web")
    drive.wait("^state web up ")
    drive.quit()

    # with no sockets left it serves all the same
    shutil.rmtree(first)
    drive = place.drive(accel="tcg", templates="on")
    drive.up("web")
    assert "nothing can be asked of its network" in drive.wait("^trouble web network ")
    assert alive(int(after["net_pid"]))
    assert guest.ssh("echo still") == "still\n" and not closed(url)
    first.mkdir(mode=0o700)
    destroy(drive, place, "web")
    assert not place.processes(str(place.state)) and closed(url)
    assert not list(first.iterdir()) and not list(place.run.iterdir())


# As an sbxfs started QEMU before there was sbxfs-net: its network is its own, with two ports.
EARLIER = r"""
if [ -e "{folder}/earlier" ]; then
	for a; do
		shift
		case $a in
		stream,id=net*) a=user,id=net,ipv6=off,hostfwd=tcp:127.0.0.1:0-:22
			a=$a,hostfwd=tcp:127.0.0.1:0-:2222,hostfwd=tcp:127.0.0.1:0-:8080 ;;
		virtio-net-pci,*) a=virtio-net-pci,netdev=net,romfile= ;;
		esac
		set -- "$@" "$a"
	done
fi
exec "$REAL" "$@"
"""


def forwards(path):
    """{port of the guest: port of the host} of a QEMU whose monitor nobody uses now."""
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(str(path))
        qmp = s.makefile("rw")
        line = '{"execute": "human-monitor-command", "arguments": {"command-line": "info usernet"}}'
        for command in ('{"execute": "qmp_capabilities"}', line):
            qmp.write(command + "\n")
            qmp.flush()
        said = ""
        while "HOST_FORWARD" not in said:
            said = qmp.readline()
    found = re.findall(r"HOST_FORWARD\]\s+\d+\s+\S+\s+(\d+)\s+\S+\s+(\d+)", said)
    return {int(guest): int(host) for host, guest in found}


@pytest.mark.deadline(400)
def test_a_network_of_qemu(place):
    """An earlier sbxfs started it: taken up with its ports, and a restart gives it a network."""
    (place.folder / "earlier").touch()
    place.wrapper("qemu-system-x86_64", EARLIER.format(folder=place.folder))
    keys = dict(accel="tcg", env={"PATH": place.wrapped_path()})
    drive = place.drive(**keys)
    drive.ask(f"create web {CREATE}")
    drive.wait("^state web up ")
    os.kill(int(drive.info("web")["net_pid"]), 9)
    drive.kill()
    ports = forwards(place.run / "web.qmp")
    assert set(ports) == {22, 2222, 8080}
    record = json.loads(place.record("web").read_text())
    for key in ("net_pid", "net_start", "qemu_network", "run_dir"):
        del record[key]
    place.record("web").write_text(json.dumps({**record, "port": ports[22]}))
    for end in ("net", "ctl"):
        (place.run / f"web.{end}").unlink()
    (place.folder / "earlier").unlink()

    drive = place.drive(**keys)
    drive.ask("open web 2222")          # as the fleet asks for what it knows to be open
    said = drive.wait("^trouble web network ")
    assert "lets it reach this host's loopback" in said
    up = [line for line in drive.seen if line.startswith("state web up ")]
    guest = Endpoint(up[0] if up else drive.wait("^state web up "), place)
    assert guest.port == ports[22] and guest.ssh("echo adopted") == "adopted\n"
    urls = [wait_until(lambda p=p: drive.ask(f"url web {p}").strip()) for p in (2222, 8080)]
    assert urls == [f"http://127.0.0.1:{ports[p]}" for p in (2222, 8080)]
    with pytest.raises(RuntimeError, match="port 9000 cannot be opened: an earlier sbxfs"):
        drive.ask("open web 9000")
    drive.ask("close web 8080")
    wait_until(lambda: closed(urls[1]))
    assert drive.ask("url web 8080").strip() == "" and not closed(urls[0])

    with pytest.raises(RuntimeError, match="cannot suspend web: an earlier sbxfs started it"):
        drive.ask("suspend web")

    # in order, what was written a moment ago is there; and also when the daemon is killed meanwhile
    guest.ssh("echo kept >/root/file")
    qemu = int(drive.info("web")["pid"])
    os.kill(qemu, signal.SIGSTOP)
    drive.ask("restart web")
    wait_until(lambda: json.loads(place.record("web").read_text())["phase"] == "starting")
    drive.kill()
    drive = place.drive(**keys)
    drive.wait("^trouble web network ")
    drive.ask("open web 2222")
    os.kill(qemu, signal.SIGCONT)
    drive.wait("^state web booting")
    guest = drive.up("web")
    assert guest.ssh("cat /root/file") == "kept\n" and "net_pid" in drive.info("web")
    drive.ask("open web 22222")
    wait_until(lambda: drive.ask("url web 22222").strip())
    assert wait_until(lambda: drive.ask("url web 2222").strip()) == urls[0]
    destroy(drive, place, "web")
    assert not list(place.run.iterdir()) and not place.processes(str(place.state))
