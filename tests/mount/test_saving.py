"""Programs that save by a temporary file beside and a rename over: as if they had written."""

import errno
import os
import shutil
import subprocess

import pytest

from support import refused, write


def put(path, text):
    path.write_text(text)
    return path


@pytest.mark.parametrize("name, text", [("cwd", "/tmp\n"), ("env", "A=1\nB=2\n")])
def test_rename_over_a_value(box, name, text):
    os.rename(put(box / f".{name}.tmp", text), box / name)
    assert box.read(name) == text
    assert not (box / f".{name}.tmp").exists()
    assert f".{name}.tmp" not in os.listdir(box)


def test_rename_over_ctl_and_cmd(box):
    """A verb is carried out, a command runs."""
    os.rename(put(box / "new-cmd", "echo renamed\n"), box / "cmd")
    assert box.out() == "renamed\n"
    os.rename(put(box / "new-ctl", "stop\n"), box / "ctl")
    box.wait_status("stopped")


def test_rename_over_the_cmd_of_a_named_job(box):
    os.mkdir(box / "jobs/x")
    os.rename(put(box / "jobs/x/tmp", "echo named\n"), box / "jobs/x/cmd")
    assert box.read("jobs/x/stdout") == "named\n"


def test_a_bad_value_is_refused_at_the_rename(box):
    box.write("env", "A=1\n")
    put(box / "tmp", "no equals sign\n")
    refused(errno.EINVAL, os.rename, box / "tmp", box / "env")
    assert box.read("env") == "A=1\n"
    assert (box / "tmp").read_text() == "no equals sign\n"
    assert "NAME=VALUE" in box.error()


@pytest.mark.parametrize("name", [
    "status", "README", "info", "stdout", "exit", "console", "ssh_config"])
def test_rename_over_a_read_only_file(box, name):
    before = box.read(name)
    put(box / "tmp", "text\n")
    refused(errno.EPERM, os.rename, box / "tmp", box / name)
    assert name == "info" or box.read(name) == before


def test_rename_over_folders(box):
    put(box / "tmp", "text\n")
    for name in ("jobs", "root"):
        with pytest.raises(OSError):
            os.rename(box / "tmp", box / name)
    assert os.listdir(box / "jobs") == []


def test_a_backup_of_a_fixed_file(box):
    """`mv env env~`, as vim does it: the copy is made, the fixed file stays."""
    box.write("env", "A=1\n")
    os.rename(box / "env", box / "env~")
    assert (box / "env~").read_text() == "A=1\n"
    assert box.read("env") == "A=1\n"
    os.unlink(box / "env~")


def test_scratch_files_are_files(box):
    path = put(box / "scratch", "one\n")
    write(path, "two\n", os.O_APPEND)
    assert path.read_text() == "one\ntwo\n" and path.stat().st_size == 8
    path.chmod(0o600)
    os.truncate(path, 3)
    assert path.read_bytes() == b"one"
    with open(path, "r+b") as file:
        file.seek(10)
        file.write(b"end")
    assert path.read_bytes() == b"one" + b"\0" * 7 + b"end"
    refused(errno.EEXIST, os.open, path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    os.rename(path, box / "other")
    fd = os.open(box / "other", os.O_RDONLY)
    os.unlink(box / "other")
    assert os.read(fd, 100)[:3] == b"one"
    os.close(fd)


def test_scratch_files_are_bounded(box):
    """They are for editors: few, small, and in memory."""
    with pytest.raises(OSError) as caught:
        for n in range(1000):
            put(box / f"scratch-{n}", "x")
    assert caught.value.errno == errno.ENOSPC
    for n in range(1000):
        if (box / f"scratch-{n}").exists():
            os.unlink(box / f"scratch-{n}")
    fd = os.open(box / "large", os.O_WRONLY | os.O_CREAT)
    refused(errno.EFBIG, os.ftruncate, fd, 1 << 30)
    refused(errno.EFBIG, os.pwrite, fd, b"x", 1 << 30)
    os.close(fd)
    os.unlink(box / "large")


def test_scratch_files_go_with_the_sandbox(mount):
    box = mount.box()
    put(box / "scratch", "x")
    box.destroy()
    again = mount.box(box.name)
    assert not (again / "scratch").exists()
    again.destroy()


@pytest.mark.parametrize("program, argv", [
    ("sed", ["sed", "-i", "s/one/two/", "env"]),
    ("perl", ["perl", "-pi", "-e", "s/one/two/", "env"]),
    ("ed", ["sh", "-c", "printf ',s/one/two/\\nw\\nq\\n' | ed -s env"]),
    ("vim", ["vim", "-es", "-u", "NONE", "-c", "%s/one/two/", "-c", "wq", "env"]),
    ("vim", ["vim", "-es", "-u", "NONE", "-c", "set backup backupcopy=no", "-c", "%s/one/two/",
             "-c", "wq", "env"]),
    ("emacs", ["emacs", "-Q", "--batch", "env", "--eval",
               "(progn (search-forward \"one\") (replace-match \"two\") (save-buffer))"]),
    ("python3", ["python3", "-c",
                 "import os\nopen('t', 'w').write('A=two\\n')\nos.replace('t', 'env')"]),
    ("cp", ["sh", "-c", "sed s/one/two/ env > ../copy; cp ../copy env"]),
])
def test_editors_save_values(box, program, argv, tmp_path):
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed")
    box.write("env", "A=one\n")
    if program == "cp":
        argv = [word.replace("../copy", str(tmp_path / "copy")) for word in argv]
    done = subprocess.run(argv, cwd=box, capture_output=True, text=True, timeout=60,
                          env=dict(os.environ, HOME=str(tmp_path), TERM="dumb"))
    assert done.returncode == 0, done.stderr
    assert box.read("env") == "A=two\n"
    assert box.ask("echo $A") == b"two\n"
