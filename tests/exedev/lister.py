"""lister.py FOLDER: how long it takes to list FOLDER, until the standard input ends.

A process of its own, since the one of the tests is the service as well. In turn with `ls`
four bytes go to another process and back: what that takes is the scheduler's, and no file
system's. Where it may, all of it runs at real-time priority. Prints a line for each of the two.
"""

import gc
import os
import select
import sys
import time


def now_or_never(pid, priority):
    """Real-time priority, if that is allowed."""
    try:
        os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(priority))
    except OSError:
        pass


def echo(source, to):
    while byte := os.read(source, 1):
        os.write(to, byte)


def main(folder):
    there, back = os.pipe(), os.pipe()
    now_or_never(0, 10)
    if os.fork() == 0:
        now_or_never(0, 11)
        os.close(there[1])
        echo(there[0], back[1])
        os._exit(0)
    took = {"ls": [], "two processes": []}

    def timed(what, work):
        start = time.perf_counter()
        work()
        took[what].append((time.perf_counter() - start) * 1e3)

    def ping():
        for _ in range(4):
            os.write(there[1], b"x")
            os.read(back[0], 1)

    gc.disable()
    while not select.select([0], [], [], 0.003)[0]:
        timed("ls", lambda: os.listdir(folder))
        timed("two processes", ping)
    for what, ms in took.items():
        ms.sort()
        print(f"{what}: median {ms[len(ms) // 2]:.2f} ms, 99 % {ms[int(len(ms) * .99)]:.2f} ms, "
              f"99.9 % {ms[int(len(ms) * .999)]:.2f} ms, longest {ms[-1]:.2f} ms of {len(ms)}, "
              f"{sum(t > 1 for t in ms)} over 1 ms")


if __name__ == "__main__":
    main(sys.argv[1])
