"""A world of its own for a test: the machine it runs on becomes a host in a network
namespace, with one other machine outside of it, which answers all that a guest must not
reach and what it may reach.

    outside     192.0.2.1, a web page on port 80 and one on the metadata services' addresses,
                a name server on whatever address this machine's resolv.conf names
    host        192.0.2.2, and its loopback
"""

import contextlib
import ctypes
import ipaddress
import os
import re
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

OUTSIDE, HOST, METADATA = "192.0.2.1", "192.0.2.2", "169.254.169.254"
ANSWER = "198.51.100.7"     # to every question for a name
CLONE_NEWNET = 0x40000000


class Page(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"reached\n")

    def log_message(self, *args):
        pass


def serve(address, port=0):
    """A web server in a thread; returns it, its port in server_port."""
    server = ThreadingHTTPServer((address, port), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def name_server():
    """The address that the host asks for names, or None."""
    with open("/etc/resolv.conf") as file:
        for found in re.findall(r"^nameserver\s+(\S+)", file.read(), re.MULTILINE):
            if ipaddress.ip_address(found).version == 4:
                return found
    return None


def answer_names(address):
    """A name server in a thread."""
    names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    names.bind((address, 53))
    threading.Thread(target=answer_each, args=(names,), daemon=True).start()


def answer_each(names):
    while True:
        ask, peer = names.recvfrom(4096)
        end = ask.index(b"\0", 12) + 5
        wants_ipv4 = ask[end - 4:end - 2] == b"\0\1"
        head = ask[:2] + b"\x81\x80\0\1" + (b"\0\1" if wants_ipv4 else b"\0\0") + bytes(4)
        record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + bytes(map(int, ANSWER.split(".")))
        names.sendto(head + ask[12:end] + (record if wants_ipv4 else b""), peer)


def ip(*words):
    subprocess.run(["ip", *words], check=True)


def outside():
    """The process on the other side; a line on its standard input says that the cable is there."""
    print("here", flush=True)
    sys.stdin.readline()
    names = name_server()
    addresses = [ANSWER, METADATA, "100.100.100.200"]
    ip("link", "set", "lo", "up")
    ip("addr", "add", f"{OUTSIDE}/24", "dev", "out")
    if names and not ipaddress.ip_address(names).is_loopback:
        addresses.append(names)
    for address in addresses:
        ip("addr", "add", f"{address}/32", "dev", "lo")
    ip("link", "set", "out", "up")
    serve("0.0.0.0", 80)
    if names in addresses:
        answer_names(names)
    print("ready", flush=True)
    sys.stdin.read()        # until the test is over


@contextlib.contextmanager
def world():
    """This thread, and what it starts, is on the host of that world until the end."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    if libc.unshare(CLONE_NEWNET) < 0:
        raise PermissionError(ctypes.get_errno(), "no network namespace can be made")
    other = None
    try:
        ip("link", "set", "lo", "up")
        other = subprocess.Popen(["unshare", "-n", sys.executable, "-B", __file__], text=True,
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert other.stdout.readline() == "here\n"
        ip("link", "add", "in", "type", "veth", "peer", "name", "out", "netns", str(other.pid))
        ip("addr", "add", f"{HOST}/24", "dev", "in")
        ip("link", "set", "in", "up")
        other.stdin.write("\n")
        other.stdin.flush()
        assert other.stdout.readline() == "ready\n"
        ip("route", "add", "default", "via", OUTSIDE)
        names = name_server()
        if names and ipaddress.ip_address(names).is_loopback:
            answer_names(names)
        yield
    finally:
        if other:
            other.stdin.close()
            other.wait(20)
            other.stdout.close()
        libc.setns(home, CLONE_NEWNET)
        os.close(home)


if __name__ == "__main__":
    outside()
