"""The account's VMs as a tree: found ones, renames, notes, verbs, ports, clones; two backends."""

import errno
import os
import time

import pytest

from conftest import ACCOUNT, ALL
from support import Box, refused, wait_until

REFRESH = "refresh = 1s\n"


def foreign(cloud, name, **fields):
    with cloud.lobby.lock:
        return cloud.lobby.add(ACCOUNT, name, **fields)


def info(mount, name):
    return dict(line.split(" ", 1) for line in (mount / name / "info").read_text().splitlines())


def test_vms_of_the_account_appear_and_are_protected(paper, exe_mount):
    foreign(paper, "theirs", tags=["prod"], comment="do not touch")
    mount = exe_mount(paper, REFRESH)
    wait_until(lambda: mount.names() == ["theirs"])
    assert (mount / "theirs/status").read_text() == "running\n"
    assert (mount / "theirs/protect").read_text() == "1\n"
    assert (mount / "theirs/tags").read_text() == "prod\n"
    assert (mount / "theirs/comment").read_text() == "do not touch\n"
    refused(errno.EBUSY, os.rmdir, mount / "theirs")
    assert "write 0 to its file protect" in (mount / "theirs/error").read_text()
    assert (mount / ".sbxfs/errors").read_text().count("protect first") == 1
    assert paper.service.names() == ["theirs"] and paper.count("rm") == 0
    foreign(paper, "later")
    wait_until(lambda: mount.names() == ["later", "theirs"])
    (mount / "theirs/protect").write_text("0\n")
    os.rmdir(mount / "theirs")
    wait_until(lambda: mount.names() == ["later"])
    assert paper.service.names() == ["later"]
    with paper.lobby.lock:
        del paper.lobby.vms["later"]
    wait_until(lambda: mount.names() == [])


@pytest.mark.parametrize("show, seen", [("all", ["own", "plain", "tagged"]), ("own", ["own"]),
                                        ("tag:prod", ["own", "tagged"])])
def test_show(paper, exe_mount, show, seen):
    foreign(paper, "tagged", tags=["prod"])
    foreign(paper, "plain")
    mount = exe_mount(paper, REFRESH + f"show = {show}\n")
    os.mkdir(mount / "own")
    wait_until(lambda: mount.names() == seen)
    looks = paper.count("ls")
    wait_until(lambda: paper.count("ls") >= looks + 2)
    assert mount.names() == seen


def test_words_of_the_provider(paper, exe_mount):
    for name, word in (("a", "paused"), ("b", "stopped"), ("c", "starting"), ("d", "error"),
                       ("e", "hibernating")):
        foreign(paper, name, status=word)
    mount = exe_mount(paper, REFRESH)
    wait_until(lambda: len(mount.names()) == 5)
    status = {n: (mount / n / "status").read_text().strip() for n in "abcd"}
    assert status == {"a": "paused", "b": "stopped", "c": "booting", "d": "failed"}
    assert '"error"' in (mount / "d/error").read_text()
    # not guessed: what it is shows when somebody has logged in
    assert (mount / "e/status").read_text().strip() in ("booting", "unreachable")
    assert info(mount, "e")["provider_status"] == "hibernating"
    for key, value in (("region", "lon"), ("https_url", "https://a.exe.xyz"), ("cpus", "2")):
        assert info(mount, "a")[key] == value


def test_a_vm_that_somebody_else_removed(paper, exe_mount):
    """It is said, its folder stays; a new one of that name is not taken for it, and not removed."""
    mount = exe_mount(paper, REFRESH)
    mount.make("web")
    with paper.lobby.lock:
        del paper.lobby.vms["web"]
    wait_until(lambda: mount.status("web") == "failed")
    assert "no longer has" in (mount / "web/error").read_text()
    foreign(paper, "web")
    os.rmdir(mount / "web")
    wait_until(lambda: not any(mount.status(n) in ("failed", "destroying") for n in mount.names()))
    assert paper.service.names() == ["web"]
    assert paper.count("rm") == 0
    wait_until(lambda: mount.names() == ["web"])
    assert (mount / "web/protect").read_text() == "1\n"


def test_renamed_at_the_service(paper, exe_mount):
    mount = exe_mount(paper, REFRESH)
    mount.make("web")
    with paper.lobby.lock:
        vm = paper.lobby.vms.pop("web")
        vm.name = "shop"
        paper.lobby.vms["shop"] = vm
    wait_until(lambda: mount.names() == ["shop"])
    os.rmdir(mount / "shop")
    wait_until(lambda: mount.names() == [])
    assert paper.service.names() == []


@pytest.mark.parametrize("whose", ["own", "theirs"])
def test_a_rename_whose_answer_is_lost(paper, exe_mount, whose):
    """However often the fleet is listed before it is clear: the sandbox is the one that it was,
    and nothing is told that is not so."""
    mount = exe_mount(paper, REFRESH)
    if whose == "own":
        mount.make("before")
    else:
        foreign(paper, "before")
        wait_until(lambda: mount.names() == ["before"])
    (mount / "before/env").write_text("A=1\n")
    tag = info(mount, "before")["tag"]
    faults = ["lose", "refuse", "refuse"]
    paper.service.fault = lambda path: faults.pop(0) if path == "rename" and faults else None
    os.rename(mount / "before", mount / "behind")
    seen = set()
    wait_until(lambda: seen.update(mount.names()) or paper.count("rename") >= 2)
    looks = paper.count("ls")
    wait_until(lambda: seen.update(mount.names()) or paper.count("ls") >= looks + 2)
    assert seen == {"behind"} and paper.service.names() == ["behind"]
    assert (mount / "behind/env").read_text() == "A=1\n" and info(mount, "behind")["tag"] == tag
    assert (mount / "behind/error").read_text() in ("\n", ""), "nothing has failed"
    assert (mount / "behind/protect").read_text() == ("0\n" if whose == "own" else "1\n")


def test_a_listing_of_nothing_that_can_be_read(paper, exe_mount):
    """It is no account without VMs: nobody is given up for it."""
    mount = exe_mount(paper, REFRESH)
    foreign(paper, "theirs")
    wait_until(lambda: mount.names() == ["theirs"])
    paper.lobby.do_ls = lambda account, scope, args: {"vms": [5, None, {}, {"vm_name": 7}]}
    looks = paper.count("ls")
    wait_until(lambda: paper.count("ls") >= looks + 3)
    assert mount.names() == ["theirs"]


def test_a_vm_that_is_listed_after_its_end(paper, exe_mount):
    """The service may take its time: it is looked after, and not asked without a pause."""
    mount = exe_mount(paper)
    mount.make("web")
    lobby, ghosts, times = paper.lobby, [], []
    listed, removed, vm = lobby.do_ls, lobby.do_rm, lobby.vms["web"]

    def do_ls(*args):
        answer = listed(*args)
        answer["vms"] += [lobby.item(ghost) for ghost in ghosts]
        return answer

    def do_rm(*args):
        times.append(time.monotonic())
        answer = removed(*args)
        ghosts.append(vm)
        return answer

    lobby.do_ls, lobby.do_rm = do_ls, do_rm
    os.rmdir(mount / "web")
    wait_until(lambda: len(times) >= 4)
    assert times[2] - times[1] >= 0.5 and times[3] - times[2] >= 1, "the pauses grow"
    assert mount.names() == ["web"]
    ghosts.clear()
    wait_until(lambda: mount.names() == [])


def test_mv_tags_and_comment(paper, exe_mount):
    mount = exe_mount(paper, REFRESH)
    mount.make("web")
    (mount / "web/tags").write_text("prod eu\n")
    (mount / "web/comment").write_text("it's \"mine\" $HOME\n")
    os.rename(mount / "web", mount / "shop")
    wait_until(lambda: paper.service.names() == ["shop"])
    vm = paper.lobby.vms["shop"]
    wait_until(lambda: {"prod", "eu"} <= set(vm.tags) and vm.comment == "it's \"mine\" $HOME")
    (mount / "shop/tags").write_text("eu\n")
    wait_until(lambda: "prod" not in vm.tags)
    assert "sbxfs" in vm.tags and "eu" in vm.tags
    assert mount.names() == ["shop"]
    refused(errno.EINVAL, (mount / "shop/comment").write_text, "x" * 201)
    refused(errno.EINVAL, (mount / "shop/tags").write_text, "sbxfs-mine\n")
    # a name that is taken: told, and it is called as before
    paper.lobby.foreign_names.add("taken")
    os.rename(mount / "shop", mount / "taken")
    wait_until(lambda: mount.names() == ["shop"])
    assert "not available" in (mount / "shop/error").read_text()
    os.rmdir(mount / "shop")
    wait_until(lambda: mount.names() == [])
    assert paper.service.names() == []


def test_pause_resume_restart(cloud, exe_mount):
    mount = exe_mount(cloud, REFRESH)
    box = mount.new("web")
    box.write("ctl", "pause\n")
    box.wait_status("paused")
    assert cloud.lobby.vms["web"].status == "paused"
    refused(errno.EHOSTDOWN, os.listdir, box.path / "root")
    box.write("ctl", "resume\n")
    box.wait_status("running")
    assert box.ask("echo back") == b"back\n"
    box.write("ctl", "restart\n")
    wait_until(lambda: cloud.count("restart") == 1)
    box.wait_status("running")
    assert box.ask("echo anew") == b"anew\n"


def test_a_pause_that_is_refused(cloud, exe_mount):
    mount = exe_mount(cloud, REFRESH)
    box = mount.new("web")
    cloud.service.fault = lambda path: (422, "not for this plan") if path == "pause" else None
    box.write("ctl", "pause\n")
    wait_until(lambda: "not for this plan" in box.error())
    assert box.status() == "running"
    assert box.ask("echo still") == b"still\n"


@pytest.mark.parametrize("verb, fault", [("pause", "lose"), ("restart", "500-run"),
                                         ("resize", "late"), ("comment", "cut")])
def test_a_lost_answer_of_a_verb(paper, exe_mount, verb, fault):
    mount = exe_mount(paper, REFRESH)
    mount.make("web")
    faults = [fault, fault]
    paper.service.fault = lambda path: faults.pop() if path == verb and faults else None
    vm = paper.lobby.vms["web"]
    if verb == "comment":
        (mount / "web/comment").write_text("hello\n")
        wait_until(lambda: not faults and vm.comment == "hello")
    else:
        (mount / "web/ctl").write_text("resize disk=40G\n" if verb == "resize" else f"{verb}\n")
        wait_until(lambda: not faults and paper.count(verb) >= 2)
    if verb == "pause":
        wait_until(lambda: (mount / "web/status").read_text() == "paused\n")
    if verb == "resize":
        wait_until(lambda: vm.disk == 40 << 30)     # counted before it is done
    assert (mount / "web/error").read_text() in ("\n", "") or verb == "restart"


def test_stat_figures(paper, exe_mount):
    mount = exe_mount(paper, REFRESH + "stat = 1s\n")
    foreign(paper, "theirs")
    wait_until(lambda: mount.names() == ["theirs"])
    wait_until(lambda: info(mount, "theirs").get("stat_cpu_percent") == "12.5")
    assert "stat_memory_used_bytes" in (mount / "theirs/info.json").read_text()


def test_names_and_values_are_checked_before_asking(paper, exe_mount):
    mount = exe_mount(paper)
    for bad in ("Web", "1web", "web_1", "web-", "-web"):
        refused(errno.EINVAL, os.mkdir, mount / bad)
    refused(errno.ENAMETOOLONG, os.mkdir, mount / ("a" * 64))
    assert paper.count("new") == 0


def test_a_size_without_its_unit_is_not_sent(paper, exe_mount):
    """It would be bytes: a VM with one megabyte."""
    mount = exe_mount(paper)
    mount.make("web")
    for bad in ("memory=4", "disk=40", "cpus=2 memory=8"):
        refused(errno.EINVAL, (mount / "web/ctl").write_text, f"resize {bad}\n")
    assert 'memory=2G or disk=20G, or several of them, not "memory=8"' in \
        (mount / "web/error").read_text()
    os.mkdir(mount / ".sbxfs/new/big")
    refused(errno.EINVAL, (mount / ".sbxfs/new/big/memory").write_text, "4\n")
    (mount / "web/ctl").write_text("resize memory=8G\n")
    wait_until(lambda: paper.lobby.vms["web"].memory == 8 << 30)
    assert paper.count("resize") == 1


def test_without_the_api_what_is_known_stays(cloud, exe_mount):
    """The service's address is dead at the mount: SSH shows what is true."""
    mount = exe_mount(cloud)
    box = mount.new("web")
    mount.stop()
    mount.config.write_text(cloud.config(api="https://localhost:1/exec"))
    mount.start()
    box.wait_status("running")
    assert box.ask("echo by ssh alone") == b"by ssh alone\n"
    wait_until(lambda: "unavailable" in mount.backends())
    refused(errno.ENODEV, os.mkdir, mount / "new")
    mount.stop()
    mount.config.write_text(cloud.config())
    mount.start()
    box.wait_status("running")
    os.rmdir(box)
    wait_until(lambda: cloud.service.names() == [])


def make_draft(mount, name, **values):
    draft = mount / ".sbxfs/new" / name
    os.mkdir(draft)
    for key, value in values.items():
        (draft / key).write_text(f"{value}\n")
    return draft


def test_drafts(paper, exe_mount):
    mount = exe_mount(paper)
    draft = make_draft(mount, "web", image="ubuntu:24.04", cpus=4, memory="8G", disk="50G",
                       tags="prod eu", comment="it's mine", integrations="github,slack")
    assert "image" in os.listdir(draft)
    refused(errno.EINVAL, (draft / "image").write_text, "two words\n")
    os.rename(draft, mount / "web")
    wait_until(lambda: paper.service.names() == ["web"])
    vm = paper.lobby.vms["web"]
    assert (vm.image, vm.cpus, vm.memory, vm.disk) == ("ubuntu:24.04", 4, 8 << 30, 50 << 30)
    assert vm.integrations == ["github,slack"]
    wait_until(lambda: {"prod", "eu"} <= set(vm.tags) and vm.comment == "it's mine")


def test_sizes_that_nobody_has_set_are_the_services(paper, exe_mount):
    mount = exe_mount(paper, start=False)
    text = mount.config.read_text()
    mount.config.write_text(text.replace("image = exeuntu\nmemory = 4G\ndisk = 20G\n", ""))
    mount.start()
    os.mkdir(mount.wait_ready() / "web")
    wait_until(lambda: paper.service.names() == ["web"])
    words = next(words for path, words in paper.lobby.log if path == "new")
    assert not any(w.startswith(("--cpu", "--memory", "--disk")) for w in words)
    assert "--image=exeuntu" in words
    wait_until(lambda: info(mount, "web").get("memory") in ("4G", str(4 << 30)))


def test_a_clone(cloud, exe_mount):
    mount = exe_mount(cloud, REFRESH)
    box = mount.new("web")
    box.ask("echo text > $SBX_DISK/file")
    (mount / "web/tags").write_text("prod\n")
    wait_until(lambda: "prod" in cloud.lobby.vms["web"].tags)
    os.rename(make_draft(mount, "copy", **{"from": "web"}), mount / "copy")
    copy = Box(mount, "copy")
    copy.wait_status("running")
    assert copy.ask("cat $SBX_DISK/file") == b"text\n"

    def own(name):
        return [t for t in cloud.lobby.vms[name].tags if t.startswith("sbxfs-")]

    wait_until(lambda: len(own("web")) == len(own("copy")) == 1)
    assert own("web") != own("copy")
    assert cloud.count("cp") == 1
    os.rmdir(copy)
    wait_until(lambda: mount.names() == ["web"])
    assert cloud.service.names() == ["web"]


@pytest.mark.parametrize("fault", ["lose", "500", "late", "garbled"])
def test_a_clone_whose_answer_is_lost(paper, exe_mount, fault):
    mount = exe_mount(paper)
    mount.make("web")       # until its answer is here there is no copy of it
    faults = {"cp": [fault], "tag": ["lose"]}
    paper.service.fault = lambda path: faults[path].pop() if faults.get(path) else None
    os.rename(make_draft(mount, "copy", **{"from": "web"}), mount / "copy")
    wait_until(lambda: paper.service.names() == ["copy", "web"] and
               mount.made("copy"))
    assert paper.lobby.created_ever == ["web", "copy"]
    wait_until(lambda: all(sum(t.startswith("sbxfs-") for t in vm.tags) == 1
                           for vm in paper.lobby.vms.values()))


def test_ports(paper, exe_mount):
    paper.lobby.not_ready_s = 1         # share fails with "failed to connect" so long
    mount = exe_mount(paper, REFRESH)
    mount.make("web")
    vm = paper.lobby.vms["web"]
    os.mkdir(mount / "web/ports/8080")
    wait_until(lambda: vm.proxy_port == 8080)
    port = mount / "web/ports/8080"
    assert (port / "url").read_text() == "https://web.exe.xyz\n"
    assert (port / "visibility").read_text() == "private\n"
    (port / "visibility").write_text("public\n")
    wait_until(lambda: vm.proxy_share == "public")
    wait_until(lambda: (port / "visibility").read_text() == "public\n")
    refused(errno.EINVAL, (port / "visibility").write_text, "everybody\n")
    os.mkdir(mount / "web/ports/3000")
    wait_until(lambda: vm.proxy_port == 3000)
    assert (mount / "web/ports/3000/url").read_text() == "https://web.exe.xyz\n"
    assert (port / "url").read_text() == "https://web.exe.xyz:8080\n"
    os.rmdir(mount / "web/ports/3000")
    wait_until(lambda: vm.proxy_port == 8080)
    (port / "visibility").write_text("public\n")
    os.rmdir(port)
    wait_until(lambda: paper.count("share set-private") == 2)
    wait_until(lambda: vm.proxy_share == "private")
    assert os.listdir(mount / "web/ports") == []


def test_no_port_is_public_that_nobody_has_made_so(paper, exe_mount):
    """Neither the one that is opened behind another that was, nor the one that comes back."""
    mount = exe_mount(paper, REFRESH)
    mount.make("web")
    vm, seen = paper.lobby.vms["web"], []
    port, public = paper.lobby.do_share_port, paper.lobby.do_share_set_public

    def do_share_port(*args):
        answer = port(*args)
        seen.append((vm.proxy_port, vm.proxy_share))
        return answer

    def do_share_set_public(*args):
        answer = public(*args)
        seen.append((vm.proxy_port, vm.proxy_share))
        return answer

    paper.lobby.do_share_port, paper.lobby.do_share_set_public = do_share_port, do_share_set_public
    for number in (8080, 9090):
        os.mkdir(mount / f"web/ports/{number}")
        (mount / f"web/ports/{number}/visibility").write_text("public\n")
    os.mkdir(mount / "web/ports/3000")
    wait_until(lambda: len(seen) == 5)
    os.rmdir(mount / "web/ports/3000")
    wait_until(lambda: len(seen) == 6)
    assert seen == [(8080, "private"), (8080, "public"), (9090, "private"), (9090, "public"),
                    (3000, "private"), (9090, "private")]


def test_a_port_that_cannot_be_private_is_not_opened(paper, exe_mount):
    mount = exe_mount(paper, REFRESH)
    mount.make("web")
    vm = paper.lobby.vms["web"]
    os.mkdir(mount / "web/ports/8080")
    (mount / "web/ports/8080/visibility").write_text("public\n")
    wait_until(lambda: vm.proxy_share == "public")
    paper.service.fault = lambda path: (422, "not for this plan") \
        if path == "share set-private" else None
    os.mkdir(mount / "web/ports/9090")
    wait_until(lambda: "not for this plan" in (mount / "web/error").read_text())
    (mount / "web/comment").write_text("behind it\n")
    wait_until(lambda: vm.comment == "behind it")
    assert (vm.proxy_port, vm.proxy_share) == (8080, "public")


def test_two_backends_in_one_mount(cloud, exe_mount):
    """The default, a draft's choice, the overflow; and a cloud VM of the same name as a local one."""
    mount = exe_mount(cloud, REFRESH, start=False)
    text = cloud.config(REFRESH).replace("backends = exe.dev", "backends = fake exe.dev")
    text = text.replace("[defaults]\nimage = exeuntu", "[limits]\nsandboxes = 2\ntrash = 0\n"
                        "[defaults]\noverflow = exe.dev\nimage = fake")
    mount.config.write_text(text + "[fake]\nsharedkey = yes\n")
    mount.start()
    wait_until(lambda: "exe.dev ready" in mount.backends())
    local = mount.new("local")
    assert info(mount, "local")["backend"] == "fake"
    foreign(cloud, "local")
    os.rename(make_draft(mount, "remote", backend="exe.dev"), mount / "remote")
    remote = Box(mount, "remote")
    remote.wait_status("running")
    assert info(mount, "remote")["backend"] == "exe.dev"
    assert (local.ask("echo here"), remote.ask("echo there")) == (b"here\n", b"there\n")
    wait_until(lambda: len(mount.names()) == 3)         # the found one, under another name
    found = next(n for n in mount.names() if n not in ("local", "remote"))
    assert info(mount, found)["vm_name"] == "local"
    assert info(mount, "local")["backend"] == "fake"


def test_overflow(cloud, exe_mount):
    mount = exe_mount(cloud, start=False)
    text = cloud.config().replace("backends = exe.dev", "backends = fake exe.dev")
    text = text.replace("[defaults]\nimage = exeuntu\nmemory = 4G\ndisk = 20G",
                        "[limits]\nmemory = 1536M\ntrash = 0\n[defaults]\noverflow = exe.dev")
    mount.config.write_text(text + "[fake]\nsharedkey = yes\n")
    mount.start()
    wait_until(lambda: "exe.dev ready" in mount.backends())
    mount.new("one")
    two = mount.new("two")
    assert info(mount, "one")["backend"] == "fake"
    assert info(mount, "two")["backend"] == "exe.dev"
    assert "not fake" in two.read("info")
    assert two.ask("echo there") == b"there\n"
    assert cloud.service.names() == ["two"]
