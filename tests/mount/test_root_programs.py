"""Archivers, copiers and build tools, working below root/."""

import json
import os
import shutil

import pytest

from support import needs, run, wait_until


@pytest.fixture
def sample(tmp_path):
    """A tree with a bit of everything that root/ keeps."""
    t = tmp_path / "sample"
    (t / "sub/deeper").mkdir(parents=True)
    for n in range(60):
        p = t / ("sub" if n % 2 else "sub/deeper") / f"f{n}"
        p.write_bytes(os.urandom(n * n * 40))
        os.chmod(p, 0o600 | (n % 8) << 3)
        os.utime(p, (1000000000 + n, 1100000000 + n))
    os.symlink("sub/f1", t / "link")
    os.link(t / "sub/f3", t / "hard")
    (t / "empty").mkdir()
    for n, name in enumerate((".", "empty", "sub/deeper", "sub")):
        os.utime(t / name, (1, 1200000000 + n))
    os.utime(t / "link", (1, 1300000000), follow_symlinks=False)
    return t


def same(a, b):
    assert run("diff", "-r", "--no-dereference", a, b) == ""
    for where, folders, files in os.walk(a):
        for name in folders + files:
            x, y = os.lstat(os.path.join(where, name)), \
                os.lstat(os.path.join(where.replace(str(a), str(b), 1), name))
            assert (x.st_mode, x.st_mtime) == (y.st_mode, y.st_mtime), (where, name)


@needs("tar")
def test_tar(d, h, sample):
    run("tar", "-C", sample.parent, "-cf", d / "t.tar", "sample")
    run("tar", "-C", d, "-xpf", d / "t.tar")
    same(sample, d / "sample")
    same(sample, h / "sample")
    assert os.stat(h / "sample/hard").st_ino == os.stat(h / "sample/sub/f3").st_ino


def test_cp_a(d, h, sample):
    run("cp", "-a", sample, d / "copy")
    same(sample, h / "copy")
    run("cp", "-a", d / "copy", d / "again")
    same(sample, d / "again")


@needs("rsync")
def test_rsync(d, h, sample):
    run("rsync", "-aH", f"{sample}/", f"{d}/r/")
    same(sample, h / "r")
    # nothing is to be done the second time
    assert run("rsync", "-aHi", f"{sample}/", f"{d}/r/") == ""
    (sample / "sub/f5").write_text("changed")
    assert "sub/f5" in run("rsync", "-aHi", f"{sample}/", f"{d}/r/")
    assert (h / "r/sub/f5").read_text() == "changed"


def test_rm_and_find(d, h, sample):
    shutil.copytree(sample, h / "t", symlinks=True)
    assert run("sh", "-c", "find . | sort", cwd=d / "t") == \
        run("sh", "-c", "find . | sort", cwd=h / "t")
    run("rm", "-r", d / "t")
    assert os.listdir(h) == []
    shutil.copytree(sample, h / "t", symlinks=True)
    wait_until((d / "t").exists)
    shutil.rmtree(d / "t")
    assert os.listdir(h) == []


@needs("make")
@needs("gcc")
def test_make_and_cc(d, h):
    (d / "main.c").write_text('#include "say.h"\nint main(void) { return say(); }\n')
    (d / "say.h").write_text("int say(void);\n")
    (d / "say.c").write_text('#include <stdio.h>\n#include "say.h"\n'
                             'int say(void) { puts("built"); return 0; }\n')
    (d / "Makefile").write_text("prog: main.o say.o\n\tgcc -o $@ main.o say.o\n"
                                "%.o: %.c say.h\n\tgcc -c -o $@ $<\n")
    run("make", "-j2", cwd=d)
    assert run(d / "prog") == "built\n"
    assert "up to date" in run("make", cwd=d)
    # everything was made long ago, but this
    for name in os.listdir(d):
        os.utime(d / name, (1000000000, 1000000000))
    (d / "say.c").write_text((d / "say.c").read_text().replace("built", "again"))
    run("make", cwd=d)
    assert run(h / "prog") == "again\n"


@needs("make")
@needs("gcc")
def test_a_library_and_its_dependencies(d, h):
    """ar, a shared library, dependency files of the compiler, ccache-like hard links."""
    for n in range(12):
        (d / f"part{n}.c").write_text(f"int part{n}(int n) {{ return n + {n}; }}\n")
    calls = " + ".join(f"part{n}(0)" for n in range(12))
    (d / "main.c").write_text("#include <stdio.h>\n" +
                              "".join(f"int part{n}(int);\n" for n in range(12)) +
                              f'int main(void) {{ printf("%d\\n", {calls}); return 0; }}\n')
    (d / "Makefile").write_text(
        "OBJECTS = $(patsubst %.c,%.o,$(wildcard part*.c))\n"
        "all: static shared\n"
        "static: main.o libparts.a\n\tgcc -o $@ $^\n"
        "shared: main.o libparts.so\n\tgcc -o $@ main.o -L. -lparts -Wl,-rpath,'$$ORIGIN'\n"
        "libparts.a: $(OBJECTS)\n\tar rcs $@ $^\n"
        "libparts.so: $(OBJECTS)\n\tgcc -shared -o $@ $^\n"
        "%.o: %.c\n\tgcc -fPIC -MMD -c -o $@ $<\n"
        "-include *.d\n"
        "clean:\n\trm -f *.o *.d *.a *.so static shared\n")
    run("make", "-j4", cwd=d)
    assert run(d / "static") == run(d / "shared") == "66\n"
    assert run("make", "-q", "all", cwd=d) == ""
    run("make", "clean", cwd=d)
    assert sorted(os.listdir(h)) == sorted(["Makefile", "main.c"] +
                                           [f"part{n}.c" for n in range(12)])


@pytest.mark.deadline(200)
def test_python_venv(d, h):
    """A virtual environment with what it links to, a package installed in it, its scripts run."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    run("/usr/bin/python3", "-m", "venv", "--without-pip", d / "venv", env=env)
    python = d / "venv/bin/python"
    packages = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))",
                   env=env).strip()
    assert packages.startswith(str(d))
    os.makedirs(f"{packages}/greet")
    with open(f"{packages}/greet/__init__.py", "w") as f:
        f.write("def hello(): return 'hello'\n")
    assert run(python, "-c", "import greet, sys; print(greet.hello(), sys.prefix)", env=env) == \
        f"hello {d}/venv\n"
    cached = list((h / "venv").rglob("greet/__pycache__/*.pyc"))
    assert len(cached) == 1
    # byte code is used as long as the source is the same, to the second
    run(python, "-m", "compileall", "-q", packages, env=env)
    with open(f"{packages}/greet/__init__.py", "w") as f:
        f.write("def hello(): return 'good bye'\n")
    assert run(python, "-c", "import greet; print(greet.hello())", env=env) == "good bye\n"


@needs("npm")
@pytest.mark.deadline(200)
def test_npm_install(d, h, tmp_path):
    """Packages of local archives, with a dependency, a command and a script of their own."""
    def package(name, more, **files):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "package.json").write_text(json.dumps({"name": name, "version": "1.0.0", **more}))
        for file, text in files.items():
            (folder / f"{file}.js").write_text(text)
        run("npm", "pack", "--silent", "--pack-destination", tmp_path, cwd=folder, env=env)
        return f"file:{tmp_path}/{name}-1.0.0.tgz"

    env = dict(os.environ, HOME=str(tmp_path), npm_config_cache=str(tmp_path / "cache"),
               npm_config_offline="true", npm_config_audit="false", npm_config_fund="false",
               npm_config_update_notifier="false")
    below = package("below", {"main": "index.js"}, index="module.exports = () => 'below'\n")
    above = package("above", {"main": "index.js", "bin": {"say": "say.js"},
                              "dependencies": {"below": below}},
                    index="module.exports = () => 'above ' + require('below')()\n",
                    say="#!/usr/bin/env node\nconsole.log(require('above')())\n")
    (d / "app").mkdir()
    (d / "app/package.json").write_text('{"name": "app", "version": "1.0.0"}')
    run("npm", "install", "--silent", above, cwd=d / "app", env=env)
    assert run(d / "app/node_modules/.bin/say", env=env) == "above below\n"
    assert run("node", "-e", "console.log(require('above')())", cwd=d / "app") == "above below\n"
    lock = json.loads((h / "app/package-lock.json").read_text())
    assert "node_modules/below" in lock["packages"]
    run("npm", "ci", "--silent", cwd=d / "app", env=env)
    assert run("npm", "exec", "--silent", "say", cwd=d / "app", env=env) == "above below\n"
    run("npm", "uninstall", "--silent", "above", cwd=d / "app", env=env)
    assert not (h / "app/node_modules/above").exists()
