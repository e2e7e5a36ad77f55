#!/usr/bin/python3
"""bench_relay.py: is the slow network of the measurements what it claims to be?

A round trip of one byte must take what was asked for, and a stream in either direction
must go at 500 MB/s or more, with a delay and without. Run it by contrib/bench relay.
"""

import argparse
import socket
import statistics
import sys
import threading
import time
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))

from lab import Relay       # noqa: E402

RATE = 500e6
CHUNK = bytes(range(256)) * 4096


class Server(threading.Thread):
    """Accepts one connection and does what it was told with it."""

    def __init__(self, serve):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port, self.serve = self.listener.getsockname()[1], serve
        self.start()

    def run(self):
        conn = self.listener.accept()[0]
        with conn:
            self.serve(conn)


def echo(conn):
    conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := conn.recv(65536):
        conn.sendall(data)


def drain(conn):
    """Count to the end of the stream, then say how much came."""
    conn.sendall(b"%d\n" % read_all(conn))


def read_all(conn):
    total, room = 0, bytearray(1 << 20)
    while n := conn.recv_into(room):
        # Its place in the stream is told by the first byte's value.
        assert room[0] == total % 256, "bytes out of order"
        total += n
    return total


def pour(conn, size):
    for _ in range(size // len(CHUNK)):
        conn.sendall(CHUNK)
    conn.shutdown(socket.SHUT_WR)


def through(rtt, serve, talk):
    server = Server(serve)
    relay = Relay(rtt, server.port)
    try:
        with socket.create_connection(("127.0.0.1", relay.ports[0])) as conn:
            conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return talk(conn)
    finally:
        server.join(10)
        relay.stop()


def round_trip(rtt):
    def talk(conn):
        times = []
        for _ in range(50):
            begun = time.perf_counter()
            conn.sendall(b"x")
            conn.recv(1)
            times.append((time.perf_counter() - begun) * 1e3)
        conn.shutdown(socket.SHUT_WR)
        assert conn.recv(1) == b""
        return times

    times = through(rtt, echo, talk)
    return min(times), statistics.median(times)


def upload(rtt, size):
    def talk(conn):
        begun = time.perf_counter()
        pour(conn, size)
        assert int(conn.makefile().readline()) == size
        return size / (time.perf_counter() - begun - rtt / 1e3)

    return through(rtt, drain, talk)


def download(rtt, size):
    def talk(conn):
        begun = time.perf_counter()
        assert read_all(conn) == size
        return size / (time.perf_counter() - begun - rtt / 2e3)

    return through(rtt, lambda conn: pour(conn, size), talk)


def main():
    parser = argparse.ArgumentParser(prog="contrib/bench relay", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--selftest", action="store_true", help="little data, no verdict on the rate")
    args = parser.parse_args()
    size = (8 if args.selftest else 2048) * len(CHUNK)
    bad = 0
    for rtt in (0, 20):
        least, median = round_trip(rtt)
        # Never early; late by what a loaded machine makes of it.
        fine = least >= rtt and (args.selftest or median < rtt + 2)
        rates = [statistics.median(call(rtt, size) for _ in range(1 if args.selftest else 5))
                 for call in (upload, download)]
        fast = args.selftest or min(rates) >= RATE
        bad += not fine or not fast
        print(f"relay of {rtt} ms: round trip {median:.2f} ms (least {least:.2f}), "
              f"up {rates[0] / 1e6:.0f} MB/s, down {rates[1] / 1e6:.0f} MB/s "
              f"(at least {RATE / 1e6:.0f} wanted: {'yes' if fine and fast else 'MISSED'})", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
