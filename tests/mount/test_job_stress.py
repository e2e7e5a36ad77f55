"""Many jobs, much output. STRESS=25 in the environment makes it 25 times as much."""

import hashlib
import os
import threading
import time

import pytest

from support import alive, ask, wait_until

STRESS = int(os.environ.get("STRESS", "1"))


def in_threads(call, count):
    failures = []

    def run(n):
        try:
            call(n)
        except BaseException as e:      # shown by the test
            failures.append((n, e))

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[:3]


@pytest.mark.deadline(900)
def test_every_result_belongs_to_its_command(box):
    """Eight users of one sandbox; 10,000 jobs with STRESS=25."""
    def use(user):
        for n in range(50 * STRESS):
            number = (user * 31 + n) % 256
            if n % 2:
                out = ask(box / "cmd", f"echo {user} {n} $RANDOM $SBXFS_JOB; exit {number}")
                assert out.startswith(f"{user} {n} ".encode()) and out.count(b"\n") == 1
                continue
            name = f"jobs/u{user}-{n}"
            os.mkdir(box / name)
            box.write(f"{name}/cmd", f"echo $RANDOM {user} {n}; exit {number}\n")
            out = box.read(f"{name}/stdout").split()
            assert out[1:] == [str(user), str(n)]
            assert box.read(f"{name}/exit") == f"{number}\n"
            assert box.read(f"{name}/status") == f"exited {number}\n"

    start = time.monotonic()
    in_threads(use, 8)
    print(f"{400 * STRESS} jobs in {time.monotonic() - start:.1f} s")
    assert box.info()["jobs_running"] == "0"


@pytest.mark.deadline(600)
def test_both_streams_are_byte_exact(box):
    """Random bytes to both at once, read while they come; 1 GiB each with STRESS=25."""
    size = 41 * 1024 * 1024 * STRESS
    os.mkdir(box / "jobs/x")
    box.write("jobs/x/cmd",
              f"(head -c {size} /dev/urandom | tee >(sha256sum >err.sum) >&2) & "
              f"head -c {size} /dev/urandom | tee >(sha256sum >out.sum); wait")
    sums = {}

    def read(n):
        name = ("stdout", "stderr")[n]
        digest = hashlib.sha256()
        with open(box / f"jobs/x/{name}", "rb", buffering=0) as f:
            while part := f.read(1 << 20):
                digest.update(part)
        sums[name] = digest.hexdigest()

    in_threads(read, 2)
    assert box.read("jobs/x/exit") == "0\n"
    for name, stream in (("out.sum", "stdout"), ("err.sum", "stderr")):
        # sha256sum may still be at it when tee has ended
        wait_until(lambda file=box.home / name: file.read_text().endswith("\n"))
        assert sums[stream] == (box.home / name).read_text().split()[0]
    assert os.stat(box / "jobs/x/log").st_size == 2 * size


def test_a_reader_that_stops_delays_nobody(box):
    """Half a read, then nothing for long: neither the command nor another reader waits for it."""
    size = 30_000_000
    lazy = None
    box.run(f"head -c 100000 /dev/zero; head -c {size} /dev/zero; date +%s%N >ended; echo end")
    try:
        lazy = os.open(box / "stdout", os.O_RDONLY)
        assert os.read(lazy, 10)
        assert box.exit() == "0"
        assert len(box.read_bytes("stdout")) == size + 100004
        assert box.ask("echo others") == b"others\n"
        time.sleep(2 * STRESS)
        assert os.read(lazy, 1 << 20)
    finally:
        if lazy is not None:
            os.close(lazy)


@pytest.mark.deadline(300)
def test_forty_kills_at_once(box):
    jobs = range(1, 41)
    for n in jobs:
        box.run("echo $$; sleep 1000 & setsid sleep 1000 & wait")
    wait_until(lambda: all(box.read(f"jobs/{n}/log") for n in jobs), 200)
    shells = [int(box.read(f"jobs/{n}/log")) for n in jobs]
    box.write("ctl", "killall")
    assert {box.read(f"jobs/{n}/exit") for n in jobs} == {"143\n"}
    assert not [pid for pid in shells if alive(pid)]
    assert not box.mount.job_processes(box.name)
