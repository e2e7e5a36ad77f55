"""The programs of contrib/bench work: each measures a little, and what it reads and writes is right."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import TOP, find_sbxfs, sanitized

BENCH = TOP / "tests/bench"
RELAY = Path(find_sbxfs()).parent / "tests/bench/relay"

pytestmark = [pytest.mark.deadline(400),
              pytest.mark.skipif(not os.access(RELAY, os.X_OK) or sanitized(),
                                 reason="the build has no tests/bench/relay, or is a slow one")]


def bench(name, tmp_path, *options):
    done = subprocess.run([sys.executable, "-B", BENCH / f"bench_{name}.py", "--selftest", *options],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=350)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_relay(tmp_path):
    """Bytes come through in order, and never before their time."""
    assert "relay of 20 ms" in bench("relay", tmp_path)


def test_root(tmp_path):
    """Against sshfs, at both round trips: a table, the runs as JSON, a picture."""
    results = tmp_path / "root.json"
    said = bench("root", tmp_path, "--systems", "sbxfs,sshfs,sftp", "--rtt", "0,5",
                 "--only", "read,write,copy,find,status", "--results", str(results))
    assert "times sshfs" in said
    assert '"workload": "status warm"' in results.read_text()
    assert results.with_suffix(".svg").read_text().startswith("<svg")


def test_jobs(tmp_path):
    assert "times the bare channel" in bench("jobs", tmp_path)
