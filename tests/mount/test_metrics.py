"""`.sbxfs/metrics`: well-formed, and true."""

import errno
import json
import os
import re
import shutil
import subprocess

import pytest

from support import CONFIG, TOP, ask, refused

parser = pytest.importorskip("prometheus_client.parser",
                             reason="python3-prometheus-client is not installed")


def samples(mount):
    """{(name, labels as a sorted tuple): value}; a text that breaks the format raises."""
    text = (mount / ".sbxfs/metrics").read_text()
    found = {}
    for family in parser.text_string_to_metric_families(text):
        assert family.documentation, family.name
        for s in family.samples:
            key = s.name, tuple(sorted(s.labels.items()))
            assert key not in found, f"{key} is told twice"
            found[key] = s.value
    return found


def value(found, name, **labels):
    return found.get((name, tuple(sorted(labels.items()))), 0)


def test_sandboxes_and_jobs_are_counted(own_mount):
    box = own_mount.box("web")
    own_mount.box("dud", "failcreate", wait=False).wait_status("failed")
    assert box.ask("printf 12345; printf 123 >&2; exit 0") in (b"12345123", b"12312345")
    box.run("exit 7")
    assert box.exit() == "7"
    found = samples(own_mount)
    assert value(found, "sbxfs_sandboxes", backend="fake", state="running") == 1
    assert value(found, "sbxfs_sandboxes", backend="fake", state="failed") == 1
    assert value(found, "sbxfs_sandboxes", backend="fake", state="booting") == 0
    assert value(found, "sbxfs_jobs_total", result="success") == 1
    assert value(found, "sbxfs_jobs_total", result="failure") == 1
    assert value(found, "sbxfs_job_bytes_total", stream="stdout") == 5
    assert value(found, "sbxfs_job_bytes_total", stream="stderr") == 3
    assert value(found, "sbxfs_sandboxes_created_total") == 2
    assert value(found, "sbxfs_sandboxes_connected") == 1
    assert value(found, "sbxfs_jobs", state="running") == 0


def test_limits_and_what_is_used_of_them(new_mount):
    mount = new_mount(CONFIG + "[limits]\nsandboxes = 7\nmemory = 20G\n").start()
    mount.box("web", wait=False)
    found = samples(mount)
    assert value(found, "sbxfs_limit_sandboxes", backend="fake") == 7
    assert value(found, "sbxfs_limit_memory_bytes", backend="fake") == 20 << 30
    assert ("sbxfs_limit_disk_bytes", (("backend", "fake"),)) not in found
    assert value(found, "sbxfs_used_sandboxes", backend="fake") == 1
    assert value(found, "sbxfs_used_memory_bytes", backend="fake") == 1 << 30


def test_bytes_below_root_are_counted(own_mount):
    box = own_mount.box("web")
    before = samples(own_mount)
    (box / "root/tmp").mkdir(exist_ok=True)
    (box / "root/tmp/file").write_bytes(b"x" * 300000)
    box.run("cp /tmp/file /tmp/file2 2>/dev/null || cp tmp/file tmp/file2")
    box.exit()
    after = samples(own_mount)

    def grew(name, **labels):
        return value(after, name, **labels) - value(before, name, **labels)
    assert grew("sbxfs_disk_bytes_total", direction="write") == 300000
    assert grew("sbxfs_sftp_requests_total") > 2


def test_requests_are_timed_and_their_errors_counted(own_mount):
    box = own_mount.box("web")
    before = samples(own_mount)
    for _ in range(10):
        os.stat(box / "status")
        refused(errno.ENOENT, os.stat, own_mount / "nobody")
    after = samples(own_mount)

    def grew(name, **labels):
        return value(after, name, **labels) - value(before, name, **labels)
    assert grew("sbxfs_request_duration_seconds_count", operation="lookup") >= 20
    assert grew("sbxfs_request_errors_total", operation="lookup", errno="ENOENT") >= 10
    inf = {"operation": "lookup", "le": "+Inf"}
    assert value(after, "sbxfs_request_duration_seconds_bucket", **inf) == \
        value(after, "sbxfs_request_duration_seconds_count", operation="lookup")


def test_waiting_for_a_job_is_no_latency(own_mount):
    """A reader that waits for output is counted apart: the histogram stays what sbxfs costs."""
    box = own_mount.box("web")
    before = samples(own_mount)
    assert ask(box / "cmd", "sleep 3; echo x") == b"x\n"
    after = samples(own_mount)
    assert value(after, "sbxfs_requests_waited_total", operation="read") > \
        value(before, "sbxfs_requests_waited_total", operation="read")
    slow = {"operation": "read", "le": "2.5"}      # a busy machine may hold up others for long
    count = value(after, "sbxfs_request_duration_seconds_count", operation="read")
    assert value(after, "sbxfs_request_duration_seconds_bucket", **slow) == count


def test_turns_of_the_loop_are_timed(own_mount):
    box = own_mount.box("web")
    before = samples(own_mount)
    for _ in range(10):
        box.ask("true")         # waits for sshd; a turn may serve several calls that wait for nothing
    after = samples(own_mount)
    for name in ("sbxfs_loop_turn_seconds", "sbxfs_loop_turn_cpu_seconds"):
        assert value(after, f"{name}_count") >= value(before, f"{name}_count") + 10
        assert value(after, f"{name}_bucket", le="+Inf") == value(after, f"{name}_count")
        assert value(after, f"{name}_sum") > value(before, f"{name}_sum") > 0
    longest = value(after, "sbxfs_loop_turn_longest_seconds")
    assert 0 < longest <= value(after, "sbxfs_loop_turn_seconds_sum")
    assert 0 < value(after, "sbxfs_loop_turn_longest_cpu_seconds") <= \
        value(after, "sbxfs_loop_turn_cpu_seconds_sum")


def test_counters_never_go_back(own_mount):
    box = own_mount.box("web")
    before = samples(own_mount)
    box.ask("true")
    box.path.rmdir()
    after = samples(own_mount)
    for (name, labels), was in before.items():
        if name.endswith(("_total", "_bucket", "_count")):
            assert after.get((name, labels), 0) >= was, name


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
def test_promtool_has_nothing_to_say(own_mount):
    own_mount.box("web").ask("exit 1")
    checked = subprocess.run(["promtool", "check", "metrics"], text=True, capture_output=True,
                             input=(own_mount / ".sbxfs/metrics").read_text())
    assert checked.returncode == 0 and not checked.stderr, checked.stderr + checked.stdout


def test_the_dashboard_asks_for_what_is_there(own_mount):
    """Every name in a query of contrib/grafana is a metric that the mount tells."""
    dashboard = json.loads((TOP / "contrib/grafana/sbxfs.json").read_text())
    queries = [t["expr"] for panel in dashboard["panels"] for t in panel["targets"]]
    asked = set(re.findall(r"\b((?:sbxfs|process)_\w+)", " ".join(queries)))
    # of the host that was chosen, and nothing that another program tells under the same name
    chosen = re.findall(r'\b(sbxfs_\w+)\{instance=~"\$instance"', " ".join(queries))
    assert set(chosen) == asked
    assert len(asked) > 10
    refused(errno.ENOENT, os.stat, own_mount / "nobody")    # an error that can be told
    families = {key[0] for key in samples(own_mount)}
    # without a limit they are not there
    optional = {"sbxfs_limit_memory_bytes", "sbxfs_limit_disk_bytes"}
    assert sorted(asked - optional - families) == []
