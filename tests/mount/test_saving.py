"""Programs that save by a temporary file beside and a rename over: as if they had written."""

import errno
import os
import shutil
import subprocess

import pytest

from support import refused, wait_until, write


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


WRITABLE = [("cwd", "/tmp\n"), ("env", "A=1\nB=2\n"), ("timeout", "1h\n"),
            ("comment", "what it is for\n"), ("tags", "blue big\n")]


def temporary_and_rename(path, text):
    beside = path.with_name(f".{path.name}.tmp-1234")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(fd, text.encode())
    os.fchmod(fd, 0o644)
    os.fsync(fd)
    os.close(fd)
    os.replace(beside, path)


def o_creat(path, text):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.write(fd, text.encode())
    os.close(fd)


def truncate_first(path, text):
    with open(path, "r+" if os.stat(path).st_mode & 0o400 else "w") as file:
        file.truncate(0)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def program(*argv):
    def save(path, text):
        if not shutil.which(argv[0]):
            pytest.skip(f"{argv[0]} is not installed")
        beside = subprocess.run([*argv, path], input=text, capture_output=True, text=True,
                                timeout=60)
        assert beside.returncode == 0, beside.stderr
    return save


NODE = "const fs = require('fs'), path = process.argv[1], text = fs.readFileSync(0);"
WAYS = {
    "temporary and rename": temporary_and_rename, "O_CREAT": o_creat, "truncate": truncate_first,
    "Path.write_text": lambda path, text: path.write_text(text),
    "tee": program("tee"), "cp": program("cp", "/dev/stdin"), "dd": program("sh", "-c", "dd of=$0"),
    "shell": program("sh", "-c", "cat > $0"), "sponge by mv": program(
        "sh", "-c", "cat > $0.new && mv $0.new $0"),
    "mkdir -p": program("sh", "-c", 'mkdir -p "$(dirname $0)" && cat > $0'),
    "node writeFile": program("node", "-e", NODE + "fs.writeFileSync(path, text)"),
    "node atomic": program("node", "-e", NODE + """
        fs.mkdirSync(require('path').dirname(path), {recursive: true});
        fs.writeFileSync(path + '.tmp.1', text, {mode: 0o600, flush: true});
        fs.chmodSync(path + '.tmp.1', fs.statSync(path).mode);
        fs.renameSync(path + '.tmp.1', path)"""),
}


@pytest.mark.parametrize("way", WAYS)
def test_write_tools_as_they_are(box, way):
    """On every file that can be written: the value is taken, and read back as it was written."""
    save = WAYS[way]
    names = os.listdir(box)
    for name, text in WRITABLE:
        save(box / name, text)
        assert box.read(name) == text, name
    os.mkdir(box / "jobs/build")
    save(box / "jobs/build/tty", "81x25\n")
    assert box.read("jobs/build/tty") == "81x25\n"
    save(box / "jobs/build/env", "C=3\n")
    save(box / "jobs/build/tty", "\n")
    save(box / "jobs/build/cwd", "/usr\n")
    save(box / "jobs/build/stdin", "typed\n")
    text = "echo $C; pwd; cat\n"
    save(box / "jobs/build/cmd", text)
    assert box.read("jobs/build/cmd") == text
    assert box.read("jobs/build/stdout") == "3\n/usr\ntyped\n"
    save(box / "cmd", "echo latest\n")
    assert box.read("cmd") == "echo latest\n"
    assert box.out() == "latest\n"
    assert sorted(os.listdir(box)) == sorted(names)


def test_rename_over_stdin(box):
    """Before the start it is kept; while it runs it is one more piece, in its order, and the end."""
    os.mkdir(box / "jobs/x")
    put(box / "jobs/x/tmp", "one\n")
    os.rename(box / "jobs/x/tmp", box / "jobs/x/stdin")
    stdin = os.open(box / "jobs/x/stdin", os.O_WRONLY)
    box.write("jobs/x/cmd", "cat; echo end")
    wait_until(lambda: box.read("jobs/x/log") == "one\n")
    os.write(stdin, b"two\n")
    large = "three\n" * 400000
    os.rename(put(box / "jobs/x/tmp", large), box / "jobs/x/stdin")
    os.write(stdin, b"four\n")
    os.close(stdin)
    assert box.read("jobs/x/stdout") == "one\ntwo\n" + large + "four\nend\n"
    os.mkdir(box / "jobs/y")
    box.write("jobs/y/tty", "80x24\n")
    os.rename(put(box / "jobs/y/tmp", "typed\n"), box / "jobs/y/stdin")
    box.write("jobs/y/cmd", "read a; echo got $a")
    assert "got typed" in box.read("jobs/y/stdout")
    put(box / "jobs/y/tmp", "late\n")
    refused(errno.EPIPE, os.rename, box / "jobs/y/tmp", box / "jobs/y/stdin")
    assert "has ended" in box.error()


@pytest.mark.parametrize("argv", [["install", "new", "env"], ["cp", "--remove-destination", "new", "env"]])
def test_programs_that_remove_the_old_file_first(box, argv, tmp_path):
    """They are refused, and nothing has changed."""
    box.write("env", "A=1\n")
    (tmp_path / "new").write_text("A=2\n")
    argv = [argv[0], *argv[1:-2], tmp_path / "new", box / "env"]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode != 0 and "Operation not permitted" in done.stderr
    assert box.read("env") == "A=1\n"


def test_temporary_files_go_after_an_hour(own_mount):
    """Since their last change; not while somebody has them open."""
    box = own_mount.box()
    put(box / "old", "x")
    held = os.open(put(box / "held", "x"), os.O_RDWR)
    own_mount.control("@clock", f"advance {50 * 60 * 1000}")
    put(box / "young", "x")
    assert (box / "old").exists()
    own_mount.control("@clock", f"advance {10 * 60 * 1000}")
    assert not (box / "old").exists() and "old" not in os.listdir(box)
    assert {"held", "young"} <= set(os.listdir(box))
    put(box / "old", "new")
    assert (box / "old").read_text() == "new"
    os.close(held)
    wait_until(lambda: not (box / "held").exists())


def test_the_sentences_of_temporary_files(box):
    with pytest.raises(OSError):
        for n in range(100):
            put(box / f"scratch-{n}", "x")
    assert "64 temporary files" in box.error()


@pytest.mark.parametrize("program, argv", [
    ("vim", ["vim", "-es", "-u", "NONE", "-c", "%s/old/new/", "-c", "wq", "cmd"]),
    ("vim", ["vim", "-es", "-u", "NONE", "-c", "set backup backupcopy=no", "-c", "%s/old/new/",
             "-c", "wq", "cmd"]),
    ("emacs", ["emacs", "-Q", "--batch", "cmd", "--eval",
               "(progn (search-forward \"old\") (replace-match \"new\") (save-buffer))"]),
    ("sed", ["sed", "-i", "s/old/new/", "cmd"]), ("perl", ["perl", "-pi", "-e", "s/old/new/", "cmd"]),
])
def test_saving_a_command_runs_it_once(box, program, argv, tmp_path):
    """Open the last command, change it, save: that is the next job, and one."""
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed")
    box.run("echo old")
    box.exit()
    done = subprocess.run(argv, cwd=box, capture_output=True, text=True, timeout=60,
                          env=dict(os.environ, HOME=str(tmp_path), TERM="dumb"))
    assert done.returncode == 0, done.stderr
    assert box.out() == "new\n" and box.read("cmd") == "echo new\n"
    assert sorted(os.listdir(box / "jobs")) == ["1", "2", "latest"]
