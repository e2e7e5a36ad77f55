"""The fixed files: what each holds, what may be written, what is refused."""

import errno
import json
import os
import stat
import subprocess

import pytest

from support import find_sbxfs, refused, wait_until, write

ABOUT = {"README", "version", "backends", "errors", "metrics", "events", "new", "trash", "by-tag"}
TEXTS = {"README", "status", "info", "info.json", "error", "ctl", "cwd", "env", "ssh_config",
         "timeout", "ttl", "idle", "tags", "comment", "protect"}
JOB_VIEWS = {"cmd", "stdin", "stdout", "stderr", "log", "exit"}
READ_ONLY = {"README", "status", "info", "info.json", "error", "ssh_config", "console",
             "stdout", "stderr", "log", "exit"}
FIXED = TEXTS | JOB_VIEWS | {"console", "jobs", "ports", "root"}
JOB_FILES = {"cmd", "stdin", "stdout", "stderr", "log", "exit", "status", "ctl", "cwd", "env",
             "info"}


# --- .sbxfs -------------------------------------------------------------------

def test_top_lists_sandboxes_only(mount, box):
    """`ls` and `*` show sandboxes; .sbxfs is there for who knows it."""
    assert box.name in os.listdir(mount)
    assert ".sbxfs" not in os.listdir(mount)
    assert (mount / ".sbxfs").is_dir()


def test_about_files(mount):
    assert set(os.listdir(mount / ".sbxfs")) == ABOUT


def test_version_is_that_of_the_command(mount):
    shown = subprocess.run([find_sbxfs(), "--version"], text=True, capture_output=True, check=True)
    assert shown.stdout == f"sbxfs {(mount / '.sbxfs/version').read_text()}"


def test_backends_has_a_line_each(mount):
    lines = (mount / ".sbxfs/backends").read_text().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("fake ready ")
    assert "caps=stop,restart,console" in lines[0]


def test_errors_tells_time_operation_path_and_sentence(mount):
    refused(errno.EINVAL, os.mkdir, mount / "Bad Name")
    line = mount.errors().splitlines()[-1]
    when, operation, rest = line.split(" ", 2)
    assert when.endswith("Z") and len(when) == 20
    assert operation == "mkdir"
    assert rest.startswith("Bad Name ")
    assert "a-z" in rest


def test_errors_keeps_the_last_hundred(mount):
    for n in range(105):
        refused(errno.EINVAL, os.mkdir, mount / f"Bad{n}")
    lines = mount.errors().splitlines()
    assert len(lines) == 100
    assert "Bad104" in lines[-1] and "Bad5 " in lines[0]


# --- a sandbox's files --------------------------------------------------------

def test_a_sandbox_lists_its_fixed_files(box):
    assert set(os.listdir(box)) == FIXED


def test_a_file_that_is_not_there_is_not_there(box):
    refused(errno.ENOENT, os.stat, box / "snapshots")
    refused(errno.ENOENT, open, box / "statu")


def test_types_and_owner(box):
    for name in FIXED:
        st = os.lstat(box / name)
        assert stat.S_ISDIR(st.st_mode) == (name in {"jobs", "ports", "root"}), name
        assert name == "root" or st.st_uid == os.getuid(), name
        assert bool(st.st_mode & 0o222) == (name not in READ_ONLY), name


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_text_has_its_true_size_and_one_newline_at_its_end(box, name):
    text, size = box.read_bytes(name), os.stat(box / name).st_size
    while box.read_bytes(name) != text:         # counters in it have moved meanwhile
        text, size = box.read_bytes(name), os.stat(box / name).st_size
    assert size == len(text)
    if text:
        assert text.endswith(b"\n") and not text.endswith(b"\n\n")


def test_reads_at_any_offset(box):
    whole = box.read_bytes("README")
    fd = os.open(box / "README", os.O_RDONLY)
    assert os.pread(fd, 10, 5) == whole[5:15]
    assert os.pread(fd, 10, 0) == whole[:10]
    assert os.pread(fd, 10, len(whole)) == b""
    assert os.pread(fd, 10, len(whole) + 1000) == b""
    os.close(fd)


def test_status_is_one_word(box):
    assert box.read("status") == "running\n"


def test_error_is_empty_while_nothing_failed(box):
    assert box.read("error") == ""
    assert os.stat(box / "error").st_size == 0


def test_info_has_a_fact_a_line(box):
    info = box.info()
    assert info["name"] == box.name
    assert info["status"] == "running"
    assert info["backend"] == "fake"
    assert info["image"] == "debian"
    assert info["cpus"].isdigit()
    assert info["memory"][-1] in "MG" and info["disk"][-1] in "MG"
    assert info["created"].endswith("Z")
    assert info["host"] == "127.0.0.1"


def test_info_json_is_the_same_for_programs(box):
    info, facts = box.info(), json.loads(box.read("info.json"))
    while set(box.info()) != set(info):         # something is told that was not known before
        info, facts = box.info(), json.loads(box.read("info.json"))
    assert set(facts) == set(info)
    assert facts["name"] == box.name
    assert facts["port"] == int(info["port"])
    assert isinstance(facts["memory"], int) and facts["memory"] >= 1 << 20


def test_no_file_shows_the_private_key(box):
    """Secrets are never shown: the path of the key may be, the key not."""
    box.run("true")
    box.exit()
    for name in sorted(TEXTS | {"console", "log", "stdout"}):
        assert "PRIVATE KEY" not in box.read(name), name
    assert "PRIVATE KEY" not in "\n".join(box.mount.log.lines)


def test_readme_names_every_file(box):
    text = box.read("README")
    assert len(text.splitlines()) <= 25
    for name in FIXED - {"README"}:
        assert name.split(".")[0] in text, name


def test_console_is_readable(box):
    assert f"{box.name} login:" in box.read("console")


def test_ssh_config_reaches_the_sandbox(box):
    done = subprocess.run(["ssh", "-F", box / "ssh_config", "-o", "BatchMode=yes", box.name,
                           "echo hello; exit 4"], text=True, capture_output=True)
    assert (done.returncode, done.stdout) == (4, "hello\n"), done.stderr


def test_statfs_answers(mount, box):
    assert os.statvfs(mount).f_namemax >= 63
    assert os.statvfs(box / "status").f_bsize > 0


def test_find_walks_the_fixed_files(box):
    """A walk sees every fixed file once and ends (root/ apart)."""
    found = subprocess.run(["find", box, "-path", f"{box.path}/root", "-prune", "-o", "-print"],
                           text=True, capture_output=True, check=True)
    assert len(found.stdout.splitlines()) == len(FIXED)     # the folder itself, root pruned


# --- what is refused ----------------------------------------------------------

@pytest.mark.parametrize("name", sorted(READ_ONLY))
def test_write_to_a_read_only_file(box, name):
    refused(errno.EACCES, os.open, box / name, os.O_WRONLY)
    refused(errno.EACCES, os.open, box / name, os.O_RDWR)
    refused(errno.EACCES, os.open, box / name, os.O_WRONLY | os.O_TRUNC)
    with pytest.raises(OSError):
        os.truncate(box / name, 0)


def test_read_of_stdin(box):
    """It can be written only."""
    refused(errno.EACCES, os.open, box / "stdin", os.O_RDONLY)


@pytest.mark.parametrize("name", sorted(FIXED - {"root"}))
def test_unlink_of_a_fixed_file(box, name):
    refused(errno.EPERM, os.rmdir if name in ("jobs", "ports") else os.unlink, box / name)


def test_nothing_can_be_made_among_the_fixed_files(mount, box):
    for folder in (mount.path, mount / ".sbxfs", box / "jobs", box.path):
        if folder != box.path:      # there editors may put their temporary files
            refused(errno.EPERM, os.open, folder / "another", os.O_WRONLY | os.O_CREAT)
        refused(errno.EPERM, os.symlink, "text", folder / "another")
        refused(errno.EPERM, os.mknod, folder / "another")
        with pytest.raises(OSError) as caught:
            os.link(box / "status", folder / "another")
        assert caught.value.errno in (errno.EPERM, errno.EXDEV)
        refused(errno.ENOENT, os.stat, folder / "another")


def test_mkdir_elsewhere(mount, box):
    refused(errno.EPERM, os.mkdir, mount / ".sbxfs/new-folder")
    refused(errno.EPERM, os.mkdir, box / "new-folder")
    refused(errno.ENOTDIR, os.mkdir, box / "status/new-folder")


def test_fixed_files_cannot_be_moved(mount, box):
    refused(errno.EPERM, os.rename, box / "status", box / "state")
    refused(errno.EPERM, os.rename, box / "jobs", mount / "jobs")


def test_modes_and_owners_of_fixed_files_stay(box):
    refused(errno.EPERM, os.chmod, box / "status", 0o777)
    refused(errno.EPERM, os.chown, box / "cmd", 12345, 12345)


def test_unknown_ctl_verb(box):
    """EINVAL, and a sentence that names what is known."""
    refused(errno.EINVAL, write, box / "ctl", "fly\n")
    assert "fly" in box.error() and "restart" in box.error()
    assert f"{box.name}/ctl" in box.mount.errors().splitlines()[-1]


def test_sentence_can_be_read_back_from_the_same_handle(box):
    fd = os.open(box / "ctl", os.O_RDWR)
    refused(errno.EINVAL, os.write, fd, b"fly\n")
    assert b'not "fly"' in os.read(fd, 1000)
    os.close(fd)


def test_empty_ctl(box):
    refused(errno.EINVAL, write, box / "ctl", "\n")


def test_ctl_lists_its_verbs(box):
    assert box.read("ctl") == "start stop restart pause resume killall resize\n"


# --- values -------------------------------------------------------------------

@pytest.mark.parametrize("text", ["/tmp", "/tmp\n"])
def test_value_is_accepted_with_and_without_newline(box, text):
    box.write("cwd", text)
    assert box.read("cwd") == "/tmp\n"
    assert os.stat(box / "cwd").st_size == 5


def test_value_is_replaced_whole(box):
    box.write("cwd", "/var/lib\n")
    box.write("cwd", "/\n")
    assert box.read("cwd") == "/\n"


def test_bad_value_changes_nothing(box):
    box.write("env", "A=1\n")
    refused(errno.EINVAL, write, box / "env", "A=2\nno equals sign\n")
    assert box.read("env") == "A=1\n"
    assert "line 2" in box.error()


def test_cwd_is_one_line(box):
    refused(errno.EINVAL, write, box / "cwd", "/tmp\n/var\n")
    assert box.read("cwd") == ""


def test_values_with_a_nul_are_refused(box):
    refused(errno.EINVAL, write, box / "cwd", b"/tmp\0x\n")


def test_env_takes_a_line_more(box):
    """`echo B=2 >> env` adds to the lines that are there."""
    box.write("env", "A=1\n")
    write(box / "env", "B=2\n", os.O_APPEND)
    assert box.read("env") == "A=1\nB=2\n"


def test_shell_redirections_of_all_kinds(box):
    for command in ("echo /tmp > cwd", "printf /tmp > cwd", "echo /tmp | tee cwd",
                    "echo /tmp 1<> cwd",
                    "echo /tmp | dd of=cwd status=none", "echo /tmp | cp /dev/stdin cwd"):
        box.write("cwd", "/\n")
        subprocess.run(["sh", "-c", command], cwd=box, check=True, stdout=subprocess.DEVNULL)
        assert box.read("cwd") == "/tmp\n", command


def test_values_outlive_the_daemon(own_mount):
    box = own_mount.box()
    box.write("cwd", "/tmp\n")
    box.write("env", "A=1\nB=two words\n")
    own_mount.stop()
    own_mount.start()
    wait_until(box.path.exists)
    assert box.read("cwd") == "/tmp\n"
    assert box.read("env") == "A=1\nB=two words\n"
