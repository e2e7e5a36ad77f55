"""`new` and its answers: lost, late, cut, refused; whose VM it is; 429 and tokens' 403."""

import errno
import os
import random
from collections import Counter

import pytest

from conftest import ACCOUNT, ALL
from support import refused, wait_until
from test_standin import ORDERS
from tokens import sign


@pytest.mark.parametrize("fault", ["refuse", "lose", "reset", "cut", "garbled", "500", "500-run",
                                   "late", "late-never", "slow"])
def test_one_bad_answer(paper, exe_mount, fault):
    """Whatever becomes of the first `new`, there is one VM in the end, and it is this one."""
    mount = exe_mount(paper)
    faults = [fault]
    paper.service.fault = lambda path: faults.pop() if path == "new" and faults else None
    os.mkdir(mount / "web")
    wait_until(lambda: mount.made("web"))
    assert paper.service.names() == ["web"]
    assert paper.lobby.created_ever == ["web"]
    ran = fault in ("lose", "reset", "cut", "garbled", "500-run", "slow")
    if ran:
        assert paper.count("new") == 1      # looked up, not asked again


@pytest.mark.deadline(600)
def test_200_lost_answers(paper, exe_mount):
    """At random; meanwhile some are removed, and some names are other customers'."""
    rng = random.Random(5)
    seen, not_run = Counter(), Counter()
    run = ["lose", "reset", "cut", "garbled", "500-run", "late"]
    kinds = run + ["500", "late-never", "refuse"]

    def fault(path, words):
        if path not in ("new", "rm") or rng.random() >= 0.7:
            return None
        seen[path] += 1
        kind = rng.choice(kinds)
        name = next(w for w in words[1:] if w.startswith("--name=") or path == "rm")
        # One that is never run is given up some time, as it should be.
        not_run[path, name] += kind not in run
        return kind if not_run[path, name] <= 4 else rng.choice(run)

    paper.service.late_s = 0.3
    paper.lobby.foreign_names = {f"v{n}x" for n in range(0, 400, 10)}
    mount = exe_mount(paper, settle="8s")       # a late one may be very late here
    paper.service.fault_of = fault
    removed, n = set(), 0
    while seen["new"] < 200:
        batch = [f"v{k}x" for k in range(n, n + 90)]
        n += 90
        for name in batch:
            os.mkdir(mount / name)
        for name in rng.sample(batch, 20):       # while it is being made
            os.rmdir(mount / name)
            removed.add(name)
        wait_until(lambda: all(mount.made(b) or (mount / b / "status").read_text() == "failed\n"
                               for b in batch if b not in removed), 120, 0.1)
    paper.service.fault_of = lambda path, words: None
    wait_until(lambda: not removed & set(mount.names()), 120, 0.1)
    failed = {b for b in mount.names() if (mount / b / "status").read_text() == "failed\n"}
    assert failed <= paper.lobby.foreign_names
    for name in failed:
        assert "not available" in (mount / name / "error").read_text()
    # none leaked, none twice, none of somebody else's
    assert set(paper.service.names()) == set(mount.names()) - failed
    twice = Counter(paper.lobby.created_ever)
    assert all(twice[b] == 1 for b in mount.names() if b not in failed)
    print(f"{n} mkdirs, {seen['new']} answers of new and {seen['rm']} of rm lost, "
          f"{paper.count('new')} new ran, {len(removed)} removed meanwhile")


def test_refusals_are_told_in_the_services_words(paper, exe_mount):
    mount = exe_mount(paper)
    words = "VM limit of your plan reached: " + "please upgrade, " * 60 + "thank you"
    paper.service.fault = lambda path: (422, words) if path == "new" else None
    os.mkdir(mount / "web")
    wait_until(lambda: (mount / "web/status").read_text() == "failed\n")
    assert (mount / "web/error").read_text() == words + "\n"
    assert words in (mount / ".sbxfs/errors").read_text()
    paper.service.fault = lambda path: None
    os.rmdir(mount / "web")
    wait_until(lambda: mount.names() == [])
    assert paper.service.names() == []


def test_a_name_of_another_customer(paper, exe_mount):
    paper.lobby.foreign_names.add("taken")
    mount = exe_mount(paper)
    os.mkdir(mount / "taken")
    wait_until(lambda: (mount / "taken/status").read_text() == "failed\n")
    assert "not available" in (mount / "taken/error").read_text()
    assert paper.count("new") == 1
    os.rmdir(mount / "taken")
    wait_until(lambda: mount.names() == [])


def test_a_look_that_comes_too_early_for_somebody(paper, exe_mount):
    """One waits to look at the fleet later, another has it listed now: the first is not forgotten."""
    paper.lobby.foreign_names.add("taken")
    faults = ["500"]
    paper.service.fault = lambda path: faults.pop() if path == "new" and faults else None
    mount = exe_mount(paper, "refresh = 1h\n", settle="5s")
    os.mkdir(mount / "taken")
    wait_until(lambda: paper.count("new") == 1)         # the second: "taken", perhaps by the first
    looks = paper.count("ls")
    wait_until(lambda: paper.count("ls") > looks)       # the next look is in 2 s …
    os.mkdir(mount / "other")                           # … and this one's in 1 s
    wait_until(lambda: (mount / "taken/status").read_text() == "failed\n")
    assert "not available" in (mount / "taken/error").read_text()


def test_an_error_at_status_200(paper, exe_mount):
    paper.service.fault = lambda path: (200, "active plan required") if path == "new" else None
    mount = exe_mount(paper)
    os.mkdir(mount / "web")
    wait_until(lambda: (mount / "web/status").read_text() == "failed\n")
    assert "active plan required" in (mount / "web/error").read_text()


@pytest.mark.parametrize("odd", ["wrapped", "vm-key", "dest-only", "shared"])
def test_odd_shapes(paper, exe_mount, odd):
    paper.lobby.odd.add(odd)
    mount = exe_mount(paper)
    os.mkdir(mount / "web")
    wait_until(lambda: mount.made("web"))
    assert paper.count("new") == 1
    info = (mount / "web/info").read_text()
    assert "host web.exe.xyz" in info and "port 22" in info


def test_a_redirect_is_not_followed(paper, exe_mount):
    paper.service.fault = lambda path: "302" if path == "new" else None
    mount = exe_mount(paper)
    os.mkdir(mount / "web")
    wait_until(lambda: (mount / "web/status").read_text() == "failed\n")
    assert "redirect" in (mount / "web/error").read_text()


@pytest.mark.parametrize("retry", [None, 1, "date"])
def test_too_many_requests(paper, exe_mount, retry):
    """429 is waited for, with and without Retry-After: nothing fails, nothing is made twice."""
    paper.service.rate = (5, 2, 0)      # the first one is one too many, however slow we are
    paper.service.retry = retry
    mount = exe_mount(paper)
    names = [f"v{n}x" for n in range(12)]
    for name in names:
        os.mkdir(mount / name)
    wait_until(lambda: all(mount.made(n) for n in names))
    assert paper.service.limited > 0
    assert sorted(paper.lobby.created_ever) == sorted(names)


def test_what_waits_says_so(paper, exe_mount):
    mount = exe_mount(paper).wait_ready()
    paper.service.rate, paper.service.retry = (0.001, 0), 2
    os.mkdir(mount / "web")
    wait_until(lambda: "waits_for exe.dev has had too many requests" in
               (mount / "web/info").read_text())
    assert (mount / "web/status").read_text() == "creating\n"
    paper.service.rate = None
    wait_until(lambda: mount.made("web"))
    assert "waits_for" not in (mount / "web/info").read_text()
    assert paper.lobby.created_ever == ["web"]


def test_what_the_token_does_not_allow(paper, exe_mount):
    """A token of its own says what it allows: refused at once, nothing is sent."""
    paper.set_token(sign(paper.key, {"cmds": ["ls", "new"]}))
    mount = exe_mount(paper)
    assert "grants=new,ls " in mount.backends()
    os.mkdir(mount / "web")
    wait_until(lambda: mount.made("web"))
    refused(errno.EACCES, os.rmdir, mount / "web")
    assert "add rm to its cmds" in (mount / "web/error").read_text()
    assert (mount / ".sbxfs/errors").read_text().count("add rm to its cmds") == 1
    assert mount.made("web")
    assert paper.count("rm") == 0
    assert not (mount / "web/ctl").read_text().split() or \
        "pause" not in (mount / "web/ctl").read_text()


def test_a_token_that_cannot_make(paper, exe_mount):
    paper.set_token(sign(paper.key, {"cmds": ["ls", "rm"]}))
    mount = exe_mount(paper)
    refused(errno.EACCES, os.mkdir, mount / "web")
    assert "add new to its cmds" in (mount / ".sbxfs/errors").read_text()
    assert paper.count("new") == 0 and mount.names() == []


def test_an_opaque_token_is_tried_without_side_effects(paper, exe_mount):
    paper.set_token(paper.service.tokens.grant("exe1.secret", ACCOUNT, ["new", "ls", "rm", "tag"]))
    mount = exe_mount(paper)
    wait_until(lambda: "grants=new,ls,rm,tag " in mount.backends())
    assert paper.count("new", "rm", "tag", "cp", "pause") == 0
    assert paper.count("new --help") == 1


@pytest.mark.parametrize("order", ORDERS)
def test_the_order_of_the_services_checks(paper, exe_mount, order):
    """It is not known, and nothing here depends on it: grants, what is refused, a lost token."""
    paper.service.order = order
    paper.lobby.missing = {"pause"}
    paper.set_token(paper.service.tokens.grant("exe1.a", ACCOUNT, ["new", "ls", "rm", "tag"]))
    mount = exe_mount(paper, "refresh = 1s\n")
    wait_until(lambda: "grants=new,ls,rm,tag " in mount.backends())
    os.mkdir(mount / "web")
    wait_until(lambda: mount.made("web"))
    refused(errno.EACCES, os.rename, mount / "web", mount / "shop")
    assert "add rename to its cmds" in (mount / "web/error").read_text()
    paper.service.tokens.revoke("exe1.a")
    wait_until(lambda: "exe.dev refused the token" in mount.backends())
    os.rmdir(mount / "web")
    paper.set_token(paper.service.tokens.grant("exe1.b", ACCOUNT, ["ls", "rm"]))
    wait_until(lambda: mount.names() == [])
    assert paper.service.names() == [] and paper.count("new") == 1
    wait_until(lambda: "grants=ls,rm " in mount.backends())
    refused(errno.EACCES, os.mkdir, mount / "other")


@pytest.mark.parametrize("odd", [None, "unknown-200"])
def test_a_command_that_the_service_does_not_have(paper, exe_mount, odd):
    """The token would allow it: it is not among what can be done here, and not sent."""
    if odd:
        paper.lobby.odd.add(odd)
    paper.lobby.missing = {"pause", "rename"}
    paper.set_token(paper.service.tokens.grant("exe1.a", ACCOUNT, ALL))
    mount = exe_mount(paper)
    wait_until(lambda: "grants=new,ls,rm,restart,resume,cp," in mount.backends())
    os.mkdir(mount / "web")
    wait_until(lambda: mount.made("web"))
    verbs = (mount / "web/ctl").read_text().split()
    assert "restart" in verbs and "pause" not in verbs
    refused(errno.EACCES, os.rename, mount / "web", mount / "shop")
    assert "exe.dev has no command \"rename\"" in (mount / "web/error").read_text()


def test_nothing_at_the_address(paper, exe_mount):
    """That is told as it is, and says nothing of the commands that there are."""
    paper.service.path = "/elsewhere"
    paper.set_token(paper.service.tokens.grant("exe1.a", ACCOUNT, ALL))
    mount = exe_mount(paper, "refresh = 1s\n")
    wait_until(lambda: "is the address right" in mount.backends())
    refused(errno.ENODEV, os.mkdir, mount / "web")
    paper.service.path = "/exec"
    mount.wait_ready()
    os.mkdir(mount / "web")
    wait_until(lambda: mount.made("web"))


def test_a_token_for_one_tag(paper, exe_mount):
    """The least that works: it makes, lists and removes what carries sbxfs's tag, and no other."""
    with paper.lobby.lock:
        paper.lobby.add(ACCOUNT, "theirs")
    paper.set_token(paper.service.tokens.grant("exe1.least", ACCOUNT, ["new", "ls", "rm"],
                                               scope="sbxfs"))
    mount = exe_mount(paper, "refresh = 1s\n")
    wait_until(lambda: "grants=new,ls,rm " in mount.backends())
    os.mkdir(mount / "web")
    wait_until(lambda: mount.made("web"))
    looks = paper.count("ls")
    wait_until(lambda: paper.count("ls") > looks)
    assert mount.names() == ["web"]
    os.rmdir(mount / "web")
    wait_until(lambda: mount.names() == [])
    assert paper.service.names() == ["theirs"]


def test_a_revoked_token(paper, exe_mount):
    """It is said in one sentence; a new one in the file is taken without a new mount."""
    paper.set_token(paper.service.tokens.grant("exe1.old", ACCOUNT, ALL))
    mount = exe_mount(paper, "refresh = 1s\n").wait_ready()
    paper.service.tokens.revoke("exe1.old")
    wait_until(lambda: "exe.dev refused the token" in mount.backends())
    refused(errno.ENODEV, os.mkdir, mount / "web")
    paper.set_token(paper.service.tokens.grant("exe1.new", ACCOUNT, ALL))
    wait_until(lambda: "exe.dev ready" in mount.backends())
    os.mkdir(mount / "web")
    wait_until(lambda: mount.made("web"))
