"""What an `ls` lacks: one odd answer ends no fleet, and what has really gone is told soon."""

import os

import pytest

from conftest import ACCOUNT
from support import wait_until

REFRESH = "refresh = 1s\n"


def add(cloud, *names):
    with cloud.lobby.lock:
        for name in names:
            cloud.lobby.add(ACCOUNT, name)


def drop(cloud, *names):
    with cloud.lobby.lock:
        for name in names:
            del cloud.lobby.vms[name]


class Answers:
    """What `ls` answers from now on: odd() says of each answer which names it leaves out."""

    def __init__(self, cloud):
        self.given = []         # the names in each
        self.odd = lambda: ()
        real = cloud.lobby.do_ls

        def do_ls(*args):
            answer = real(*args)
            without = self.odd()
            answer["vms"] = [vm for vm in answer["vms"] if vm["vm_name"] not in without]
            self.given.append([vm["vm_name"] for vm in answer["vms"]])
            return answer

        cloud.lobby.do_ls = do_ls

    def wait(self, more):
        so_far = len(self.given)
        wait_until(lambda: len(self.given) >= so_far + more)

    def once(self, *names):
        """The next answer lacks these; returns when two that are as they should be have followed."""
        left = [names]
        self.odd = lambda: left.pop() if left else ()
        self.wait(3)
        self.odd = lambda: ()


def ended(mount):
    """Who was told as gone or failed, at any time."""
    return [e["sandbox"] for e in mount.events()
            if e["event"] in ("destroyed", "failed")]


@pytest.mark.parametrize("lacks", ["all", "most"])
def test_one_odd_answer_is_not_believed(paper, exe_mount, lacks):
    """Neither of the VMs that were found, whose notes would be lost, nor of our own."""
    mount = exe_mount(paper, REFRESH)
    answers = Answers(paper)
    mount.make("web")           # until it is made it is not among those that can be missing
    add(paper, "one", "two")
    wait_until(lambda: mount.names() == ["one", "two", "web"])
    wait_until(lambda: "web" in answers.given[-1])
    (mount / "one/env").write_text("A=1\n")
    answers.once(*(["one", "two", "web"] if lacks == "all" else ["one", "web"]))
    assert mount.names() == ["one", "two", "web"] and ended(mount) == []
    assert (mount / "one/env").read_text() == "A=1\n"
    mount.log.wait("it is asked again")


def test_the_first_answer_is_not_believed_more(paper, exe_mount):
    """At the mount it is compared with what was there at the last one."""
    mount = exe_mount(paper, REFRESH)
    add(paper, "theirs")
    os.mkdir(mount / "web")
    wait_until(lambda: mount.names() == ["theirs", "web"])
    (mount / "theirs/env").write_text("A=1\n")
    wait_until(lambda: (mount / "web/status").read_text() != "creating\n")
    mount.stop()
    answers, left = Answers(paper), [("theirs", "web")]
    answers.odd = lambda: left.pop() if left else ()
    mount.start()
    wait_until(lambda: len(answers.given) >= 3)
    assert answers.given[0] == [] and ended(mount) == []
    assert mount.names() == ["theirs", "web"]
    assert (mount / "theirs/env").read_text() == "A=1\n"


def test_a_removal_does_not_believe_it_either(paper, exe_mount):
    """The look before `rm` finds nothing: the VM is removed all the same, and not forgotten."""
    answers = Answers(paper)
    mount = exe_mount(paper, "refresh = 1h\n")
    wait_until(lambda: answers.given == [[]])
    os.mkdir(mount / "web")
    wait_until(lambda: answers.given == [[], ["web"]])      # the one after a change
    left = [["web"]]
    answers.odd = lambda: left.pop() if left else ()
    os.rmdir(mount / "web")
    wait_until(lambda: mount.names() == [])
    assert answers.given[2:] == [[], ["web"], []]
    assert paper.service.names() == [] and paper.count("rm") == 1


@pytest.mark.parametrize("count", [1, 3])
def test_an_account_that_is_emptied(paper, exe_mount, count):
    """It takes two answers, and no more than the time to the next."""
    mount = exe_mount(paper, REFRESH)
    answers = Answers(paper)
    names = [f"v{n}x" for n in range(count)]
    add(paper, *names)
    mount.make("web")
    wait_until(lambda: mount.names() == [*names, "web"])
    wait_until(lambda: "web" in answers.given[-1])
    drop(paper, *names, "web")
    wait_until(lambda: mount.names() == ["web"] and (mount / "web/status").read_text() == "failed\n")
    assert "no longer has" in (mount / "web/error").read_text()
    assert answers.given[-2:] == [[], []]
    os.rmdir(mount / "web")         # it is known by now: nothing more is waited for
    wait_until(lambda: mount.names() == [])
    assert paper.count("rm") == 0


def test_one_of_many_is_told_with_the_next_answer(paper, exe_mount):
    add(paper, "one", "two", "three")
    answers = Answers(paper)
    mount = exe_mount(paper, "refresh = 1h\n")
    wait_until(lambda: len(answers.given) == 1)
    os.mkdir(mount / "web")
    wait_until(lambda: len(answers.given) == 2)
    assert mount.names() == ["one", "three", "two", "web"]
    drop(paper, "two")
    (mount / "web/comment").write_text("a change\n")
    wait_until(lambda: mount.names() == ["one", "three", "web"])
    assert len(answers.given) == 3


def test_our_own_removal_is_not_slowed(paper, exe_mount):
    """Of the only VM: a look before it, one after it, and it has gone."""
    answers = Answers(paper)
    mount = exe_mount(paper, "refresh = 1h\n")
    wait_until(lambda: answers.given == [[]])
    os.mkdir(mount / "web")
    wait_until(lambda: answers.given == [[], ["web"]])
    os.rmdir(mount / "web")
    wait_until(lambda: mount.names() == [])
    assert answers.given[2:] == [["web"], []]
