"""A network of their own for the stand-in's VMs, whose packets can vanish. It takes root.

A process that waits holds the network namespace; with it, or with us, all of this goes.
"""

import ctypes
import os
import socket
import subprocess
import threading
import time

CLONE_NEWNET = 0x40000000


def command(*words):
    subprocess.run(words, check=True, capture_output=True)


class Far:
    def __init__(self):
        pid = os.getpid()
        net = f"10.213.{pid >> 6 & 255}"
        self.near, self.host = (f"{net}.{(pid & 63) * 4 + n}" for n in (1, 2))
        self.device = f"sbx{pid}"
        self.keeper = subprocess.Popen(["unshare", "-n", "cat"], stdin=subprocess.PIPE)
        ours = os.readlink("/proc/self/ns/net")
        end = time.monotonic() + 20
        while os.readlink(f"/proc/{self.keeper.pid}/ns/net") == ours:
            assert self.keeper.poll() is None and time.monotonic() < end
            time.sleep(0.01)
        try:
            command("ip", "link", "add", self.device, "type", "veth", "peer", "name", "out",
                    "netns", str(self.keeper.pid))
            command("ip", "address", "add", f"{self.near}/30", "dev", self.device)
            command("ip", "link", "set", self.device, "up")
            self.inside("ip", "address", "add", f"{self.host}/30", "dev", "out")
            self.inside("ip", "link", "set", "out", "up")
        except BaseException:
            self.close()
            raise

    def inside(self, *words):
        command("nsenter", "-t", str(self.keeper.pid), "-n", *words)

    def socket(self):
        """A TCP socket there: a thread goes, and does not come back."""
        made = []

        def make():
            libc = ctypes.CDLL(None, use_errno=True)
            with open(f"/proc/{self.keeper.pid}/ns/net") as f:
                if libc.setns(f.fileno(), CLONE_NEWNET) < 0:
                    raise OSError(ctypes.get_errno(), "setns")
            made.append(socket.socket())

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        return made[0]

    def cut(self, how):
        """From now on packets vanish, and nobody is told: both ways, or the answers alone."""
        if how == "both":
            self.inside("ip", "link", "set", "out", "down")
        else:
            self.inside("ip", "route", "add", "blackhole", f"{self.near}/32")

    def mend(self, how):
        if how == "both":
            self.inside("ip", "link", "set", "out", "up")
        else:
            self.inside("ip", "route", "del", "blackhole", f"{self.near}/32")

    def close(self):
        self.keeper.stdin.close()
        self.keeper.wait(20)
        subprocess.run(["ip", "link", "del", self.device], capture_output=True)
