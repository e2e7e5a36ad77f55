"""git and SQLite, working below root/."""

import os
import subprocess

import pytest

from support import needs, run


@needs("git")
def test_git(d, h, tmp_path):
    env = dict(os.environ, HOME=str(tmp_path), GIT_CONFIG_NOSYSTEM="1", LC_ALL="C",
               GIT_AUTHOR_NAME="a", GIT_AUTHOR_EMAIL="a@b", GIT_COMMITTER_NAME="a",
               GIT_COMMITTER_EMAIL="a@b")
    (tmp_path / ".gitconfig").write_text("[init]\ndefaultBranch = main\n[safe]\ndirectory = *\n")

    def git(*args, where=None):
        return run("git", *args, cwd=where or d / "repo", env=env)

    git("init", "-q", "repo", where=d)
    for n in range(40):
        (d / "repo" / f"file-{n}").write_text(f"{n}\n" * n)
    os.symlink("file-1", d / "repo/link")
    (d / "repo/script").write_text("#!/bin/sh\n")
    os.chmod(d / "repo/script", 0o755)
    git("add", ".")
    git("commit", "-q", "-m", "one")
    assert git("status", "--porcelain") == ""
    (d / "repo/file-3").write_text("changed\n")
    assert git("status", "--porcelain") == " M file-3\n"
    git("commit", "-q", "-am", "two")
    git("checkout", "-q", "-b", "side", "HEAD~1")
    (d / "repo/file-4").write_text("side\n")
    git("commit", "-q", "-am", "three")
    git("rebase", "-q", "main")
    git("gc", "-q", "--prune=now")
    git("fsck", "--strict", "--no-progress")
    git("worktree", "add", "-q", "--detach", "../tree")
    run("git", "clone", "-q", "repo", "clone", cwd=d, env=env)
    assert git("log", "--format=%s", where=d / "clone") == "three\ntwo\none\n"
    assert git("status", "--porcelain", where=d / "clone") == ""
    assert os.readlink(d / "clone/link") == "file-1"
    # and in the guest it is a repository as well
    assert run("git", "fsck", "--no-progress", "--no-dangling", cwd=h / "clone", env=env) == ""
    assert run("git", "status", "--porcelain", cwd=h / "clone", env=env) == ""


@needs("sqlite3")
@pytest.mark.parametrize("journal", ["delete", "truncate", "persist", "wal"])
def test_sqlite(d, h, journal):
    def sql(text):
        return run("sqlite3", "-bail", str(d / "db"), text)

    sql(f"pragma journal_mode={journal}; create table t(n integer primary key, s text);"
        "begin; with recursive c(n) as (select 1 union all select n+1 from c where n<2000) "
        "insert into t select n, hex(randomblob(50)) from c; commit;")
    sql("update t set s = upper(s); delete from t where n % 3 = 0; vacuum;")
    assert sql("pragma integrity_check; select count(*) from t;") == "ok\n1334\n"
    assert run("sqlite3", str(h / "db"), "pragma integrity_check; select count(*) from t;") == \
        "ok\n1334\n"


@needs("git")
def test_git_worktrees_and_conflicts(d, h, tmp_path):
    """Worktrees, stash, a merge with a conflict, submodule-like nesting, repacking, a shallow clone."""
    env = dict(os.environ, HOME=str(tmp_path), GIT_CONFIG_NOSYSTEM="1", LC_ALL="C",
               GIT_AUTHOR_NAME="a", GIT_AUTHOR_EMAIL="a@b", GIT_COMMITTER_NAME="a",
               GIT_COMMITTER_EMAIL="a@b")
    (tmp_path / ".gitconfig").write_text("[init]\ndefaultBranch = main\n[safe]\ndirectory = *\n"
                                         "[advice]\ndetachedHead = false\n")

    def git(*args, where=d / "repo", status=0):
        r = subprocess.run(["git", *map(str, args)], cwd=where, env=env, capture_output=True,
                           text=True)
        assert r.returncode == status, (args, r.stdout, r.stderr)
        return r.stdout

    os.mkdir(d / "repo")
    git("init", "-q")
    (d / "repo/f").write_text("one\ntwo\n")
    git("add", "f")
    git("commit", "-qm", "first")
    git("worktree", "add", "-q", "-b", "side", d / "side")
    assert len(git("worktree", "list").splitlines()) == 2
    (d / "side/f").write_text("one\nside\n")
    git("commit", "-qam", "side", where=d / "side")
    (d / "repo/f").write_text("one\nmain\n")
    git("stash", "-q")
    assert git("status", "--porcelain") == ""
    git("stash", "pop", "-q")
    git("commit", "-qam", "main")
    git("merge", "-q", "side", status=1)
    assert git("status", "--porcelain") == "UU f\n"
    (d / "repo/f").write_text("one\nboth\n")
    git("commit", "-qam", "merged")
    git("worktree", "remove", d / "side")
    assert not (h / "side").exists()
    git("repack", "-adq")
    git("pack-refs", "--all")
    git("reflog", "expire", "--expire=now", "--all")
    git("gc", "-q", "--aggressive", "--prune=now")
    git("clone", "-q", "--depth", "1", f"file://{d}/repo", d / "shallow", where=d)
    assert git("log", "--format=%s", where=d / "shallow") == "merged\n"
    assert git("fsck", "--no-progress", "--strict") == ""


@needs("git")
def test_git_sees_what_the_guest_changed(box, d, tmp_path):
    """The index remembers size and time in seconds: a change of the same size in the same second
    is seen all the same."""
    env = dict(os.environ, HOME=str(tmp_path), GIT_CONFIG_NOSYSTEM="1",
               GIT_AUTHOR_NAME="a", GIT_AUTHOR_EMAIL="a@b", GIT_COMMITTER_NAME="a",
               GIT_COMMITTER_EMAIL="a@b")
    (tmp_path / ".gitconfig").write_text("[safe]\ndirectory = *\n")

    def git(*args):
        return run("git", *args, cwd=d, env=env)

    git("init", "-q")
    (d / "f").write_text("aaaa\n")
    git("add", "f")
    git("commit", "-qm", "one")
    for word in ("bbbb", "cccc", "dddd"):
        assert box.ask(f"cd d && echo {word} > f && echo done") == b"done\n"
        assert git("status", "--porcelain") == " M f\n"
        assert f"+{word}" in git("diff")
        git("commit", "-qam", word)
        assert git("status", "--porcelain") == ""


@needs("sqlite3")
def test_sqlite_with_several_writers(d, h, spawn):
    """Locks hold among the programs of the host: no update is lost, none sees half of another."""
    db = str(d / "db")
    run("sqlite3", db, "pragma journal_mode=delete; create table n(v); insert into n values(0);")
    script = "import sqlite3, sys\n" \
             "c = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)\n" \
             "for _ in range(25):\n" \
             "    c.execute('begin immediate')\n" \
             "    v, = c.execute('select v from n').fetchone()\n" \
             "    c.execute('update n set v = ?', (v + 1,))\n" \
             "    c.execute('commit')\n"
    writers = [spawn(["/usr/bin/python3", "-c", script, db]) for _ in range(3)]
    assert [w.wait() for w in writers] == [0, 0, 0]
    assert run("sqlite3", db, "select v from n; pragma integrity_check") == "75\nok\n"


@needs("sqlite3")
def test_sqlite_recovers_from_a_killed_writer(d, spawn):
    """kill -9 in the middle of a transaction: the hot journal is rolled back by the next one."""
    db = str(d / "db")
    run("sqlite3", db, "create table t(n); insert into t values(1);")
    writer = spawn(["/usr/bin/python3", "-c",
                    "import sqlite3, sys, os\n"
                    "c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
                    "c.execute('pragma cache_size = 5')\n"
                    "c.execute('begin immediate')\n"
                    "for n in range(3000): c.execute('insert into t values(?)', (str(n) * 50,))\n"
                    "print('now', flush=True)\n"
                    "input()\n", db], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert writer.stdout.readline() == b"now\n"
    assert os.path.exists(db + "-journal")
    writer.kill()
    writer.wait()
    assert run("sqlite3", db, "pragma integrity_check; select count(*) from t") == "ok\n1\n"
    assert not os.path.exists(db + "-journal")
