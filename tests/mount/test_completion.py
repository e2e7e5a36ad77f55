"""contrib/completion: what Tab gives in an interactive bash."""

import os
import pty
import re
import shutil
import subprocess

import pytest

from support import TOP, find_sbxfs

pytestmark = pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")


class Bash:
    """An interactive bash; ^O prints the line as readline has it, and empties it."""

    RC = r"""
PS1= ; bind 'set enable-bracketed-paste off'; bind 'set completion-query-items -1'
line() { printf '<%s>\n' "$READLINE_LINE"; READLINE_LINE= READLINE_POINT=0; }
bind -x '"\C-o": line'
"""

    def __init__(self, folder, path):
        rc = folder / "rc"
        rc.write_text(self.RC + f". {TOP}/contrib/completion/sbxfs\n")
        ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            ["bash", "--noprofile", "--rcfile", rc, "-i"], cwd=folder, start_new_session=True,
            stdin=theirs, stdout=theirs, stderr=theirs,
            env=dict(os.environ, PATH=f"{path}:{os.environ['PATH']}", TERM="dumb",
                     HOME=str(folder), XDG_DATA_HOME=str(folder / "data")))
        os.close(theirs)
        self.fd = ours

    def complete(self, typed):
        """The line after Tab."""
        os.write(self.fd, typed.encode() + b"\t\x0f")
        said = b""
        while not (found := re.search(rb"<([^<>]*)>\r?\n", said)):
            said += os.read(self.fd, 4096)
        return found[1].decode()

    def close(self):
        self.process.kill()
        self.process.wait(60)
        os.close(self.fd)


@pytest.fixture
def bash(tmp_path):
    image = tmp_path / "data/sbxfs/images/bookworm-small"
    image.mkdir(parents=True)
    (image / "image.json").write_text('{\n  "created": "2026-01-31",\n  "system": "Debian"\n}\n')
    (tmp_path / "somewhere").mkdir()
    (tmp_path / "some.conf").touch()
    bash = Bash(tmp_path, os.path.dirname(os.path.abspath(find_sbxfs())))
    yield bash
    bash.close()


@pytest.mark.parametrize("typed, line", [
    ("sbxfs some", "sbxfs somewhere/"),
    ("sbxfs -c some.", "sbxfs -c some.conf "),
    ("sbxfs --v", "sbxfs --version "),
    ("sbxfs -o allow", "sbxfs -o allow_other"),
    ("sbxfs -o conf", "sbxfs -o config="),
    ("sbxfs -o config=some.", "sbxfs -o config=some.conf "),
    ("sbxfs -o log=de", "sbxfs -o log=debug "),
    ("sbxfs -o ro,log=w", "sbxfs -o ro,log=warn "),
    ("sbxfs -o ro,allow", "sbxfs -o ro,allow_other"),
    ("sbxfs -o log=debug some", "sbxfs -o log=debug somewhere/"),
    ("sbxfs -o log=debug -c some.", "sbxfs -o log=debug -c some.conf "),
    ("sbxfs-image im", "sbxfs-image import "),
    ("sbxfs-image te", "sbxfs-image template "),
    ("sbxfs-image build --su", "sbxfs-image build --suite "),
    ("sbxfs-image import mine some.", "sbxfs-image import mine some.conf "),
    ("sbxfs-image verify b", "sbxfs-image verify bookworm-small "),
    ("sbxfs-image --images data/sbxfs/images rm b",
     "sbxfs-image --images data/sbxfs/images rm bookworm-small "),
])
def test_words(bash, typed, line):
    assert bash.complete(typed) == line


def test_sandboxes_and_jobs(bash, mount):
    """Of any mount of sbxfs, from wherever one is."""
    start = f"tab{os.getpid()}"         # there may be other mounts
    box = mount.box(start + "-x", wait=False)
    os.mkdir(box / "jobs/mine")
    assert bash.complete(f"sbx-run {start}") == f"sbx-run {box.name} "
    assert bash.complete(f"sbx-attach {box.name} mi") == f"sbx-attach {box.name} mine "
    assert bash.complete("sbx-run --ti") == "sbx-run --timeout "
    box.destroy()
