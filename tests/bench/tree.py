"""Files to measure with: a tree like that of a program's source, a repository, a C project."""

import os
import random
import subprocess

NEEDLE = "the-one-needle-in-this-hay"
OLD = 1600000000        # a time long ago: git need not doubt files as old as its index


def quiet(*argv):
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def make_tree(folder, count):
    """count text files, 0.2 to 12 KiB (3 KiB on average), 20 a folder, folders five deep at most."""
    dice = random.Random(count)
    words = ["".join(dice.choices("abcdefghijklmnopqrstuvwxyz", k=dice.randint(2, 9)))
             for _ in range(2000)]
    folders = [folder]
    folder.mkdir()
    depth = {folder: 0}
    for number in range(count):
        if number % 20 == 0 and number:
            above = dice.choice([f for f in folders if depth[f] < 5])
            below = above / f"{dice.choice(words)}-{number // 20}"
            below.mkdir()
            depth[below] = depth[above] + 1
            folders.append(below)
        size = min(200 + int(dice.expovariate(1 / 2800)), 12000)
        text = " ".join(dice.choices(words, k=size // 6))[:size] + "\n"
        if number == count * 3 // 4:
            text += NEEDLE + "\n"
        path = folders[-1] / f"{dice.choice(words)}-{number}.txt"
        path.write_text(text)
        os.utime(path, (OLD, OLD))
    for path in folders:
        os.utime(path, (OLD, OLD))


def need_stock(folder, count):
    """A folder with tree/ and tree.tar, made once."""
    stock = folder / f"tree-{count}"
    if not stock.exists():
        stock.mkdir()
        make_tree(stock / "tree", count)
        quiet("tar", "-cf", stock / "tree.tar", "-C", stock, "tree")
    return stock


def make_repository(folder):
    """
    All files committed. Inode numbers and change times differ from mount to mount:
    git is told, as its manual recommends, to look at sizes and times alone.
    """
    git = ["git", "-c", "safe.directory=*", "-C", folder]
    if not (folder / ".git").exists():
        quiet(*git, "init", "-q")
        for key, value in (("core.checkStat", "minimal"), ("core.trustctime", "false"),
                           ("user.name", "bench"), ("user.email", "bench@localhost"),
                           ("gc.auto", "0")):
            quiet(*git, "config", key, value)
        quiet(*git, "add", "-A")
        quiet(*git, "commit", "-q", "-m", "all")
    quiet(*git, "status")


def make_project(folder, count):
    """A program of count C files that include ten headers of their own each."""
    folder.mkdir()
    for h in range(10):
        (folder / f"part{h}.h").write_text(
            f"#ifndef PART{h}\n#define PART{h}\n"
            + "".join(f"static inline int part{h}_{i}(int x) {{ return x * {i} + {h}; }}\n"
                      for i in range(50)) + "#endif\n")
    for c in range(count):
        (folder / f"unit{c}.c").write_text(
            "#include <stdio.h>\n#include <string.h>\n"
            + "".join(f'#include "part{h}.h"\n' for h in range(10))
            + f"int unit{c}(int x);\nint unit{c}(int x)\n{{\n"
            + "".join(f"\tx += part{h}_{(c + h) % 50}(x);\n" for h in range(10))
            + "\treturn x;\n}\n")
    (folder / "main.c").write_text(
        "".join(f"int unit{c}(int x);\n" for c in range(count))
        + "int main(void)\n{\n\tint x = 1;\n"
        + "".join(f"\tx += unit{c}(x) % 7;\n" for c in range(count))
        + "\treturn x == 0;\n}\n")
    (folder / "Makefile").write_text(
        "objects = main.o " + " ".join(f"unit{c}.o" for c in range(count))
        + "\nprogram: $(objects)\n\t$(CC) -o $@ $(objects)\n"
        + "%.o: %.c part*.h\n\t$(CC) -O1 -c -o $@ $<\n")
