#!/usr/bin/python3
"""An SFTP server that lies, for tests: what a guest may put in the place of its own.

It serves a small disk out of nothing, well, but for one bad habit. The habit's
name stands in /habit when it starts; the tests (test_root_hostile.py) write it there.

	/f /g		files of 5 bytes		/big		says that it has 1 GiB
	/sub /sub/f	a folder and a file		/link		a symbolic link
"""

import os
import random
import struct
import sys

INIT, VERSION, OPEN, CLOSE, READ, WRITE, LSTAT, FSTAT, SETSTAT, FSETSTAT, OPENDIR, READDIR, REMOVE, \
    MKDIR, RMDIR, REALPATH, STAT, RENAME, READLINK, SYMLINK = range(1, 21)
STATUS, HANDLE, DATA, NAME, ATTRS = range(101, 106)
EXTENDED, EXTENDED_REPLY = 200, 201
OK, EOF, NO_SUCH_FILE, FAILURE, BAD_MESSAGE = 0, 1, 2, 4, 5

TEXT = b"hello"


def u32(n):
    return struct.pack(">I", n & 0xffffffff)


def u64(n):
    return struct.pack(">Q", n & (1 << 64) - 1)


def string(s):
    return u32(len(s)) + s


def attrs(mode, size=5, flags=0xf, mtime=1000000000):
    return u32(flags) + u64(size) + u32(os.getuid()) + u32(os.getgid()) + u32(mode) + \
        u32(mtime) * 2


FILE, FOLDER, LINK = attrs(0o100644), attrs(0o40755), attrs(0o120777)
DISK = {b"/": FOLDER, b"/f": FILE, b"/g": FILE, b"/sub": FOLDER, b"/sub/f": FILE, b"/link": LINK,
        b"/big": attrs(0o100644, 1 << 30)}


def entry(name, what=FILE):
    return string(name) + string(b"-rw-r--r--    1 root     root            5 Jan  1 00:00 x") + what


def names(*entries, count=None):
    return u32(len(entries) if count is None else count) + b"".join(entries)


class Request:
    """What was asked: the type, the id, and the rest to be taken apart."""

    def __init__(self, packet):
        self.type, (self.id,), self.rest = packet[0], struct.unpack(">I", packet[1:5]), packet[5:]

    def string(self):
        n, = struct.unpack(">I", self.rest[:4])
        s, self.rest = self.rest[4:4 + n], self.rest[4 + n:]
        return s

    def number(self, size):
        n, self.rest = int.from_bytes(self.rest[:size], "big"), self.rest[size:]
        return n


class Server:
    """The good one. A habit overrides what it spoils."""

    def __init__(self):
        self.count, self.told, self.paths = 0, set(), {}

    # --- packets ----------------------------------------------------------------------

    def send(self, data):
        while data:
            data = data[os.write(1, data):]

    def packet(self, kind, body):
        self.send(string(bytes([kind]) + body))

    def answer(self, r, kind, body):
        self.packet(kind, u32(r.id) + body)

    def status(self, r, code, text=b""):
        self.answer(r, STATUS, u32(code) + string(text) + string(b""))

    def take(self, n):
        data = b""
        while len(data) < n:
            data += os.read(0, n - len(data)) or sys.exit(0)
        return data

    def run(self):
        self.take(struct.unpack(">I", self.take(4))[0])
        self.greet()
        while True:
            r = Request(self.take(struct.unpack(">I", self.take(4))[0]))
            self.count += 1
            self.handle(r)

    # --- requests ---------------------------------------------------------------------

    def greet(self):
        self.packet(VERSION, u32(3) + string(b"limits@openssh.com") + string(b"1") +
                    string(b"statvfs@openssh.com") + string(b"2"))

    def handle(self, r):
        calls = {OPEN: self.open, OPENDIR: self.opendir, READ: self.read, READDIR: self.readdir,
                 LSTAT: self.lstat, STAT: self.lstat, FSTAT: self.fstat, READLINK: self.readlink,
                 REALPATH: self.realpath, EXTENDED: self.extended}
        call = calls.get(r.type)
        if not call:
            self.status(r, OK)
            return
        if r.type not in (READ, READDIR, FSTAT, EXTENDED):
            r.path = r.string()
            # who we are, which is asked first of all
            if r.path in (b".", b"/proc/self"):
                self.answer(r, ATTRS, FOLDER)
                return
        elif r.type != EXTENDED:
            r.handle = r.string()
            r.path = self.paths.get(r.handle, b"/f")
        call(r)

    def lstat(self, r):
        if r.path in DISK:
            self.answer(r, ATTRS, self.attrs(r))
        else:
            self.status(r, NO_SUCH_FILE)

    def fstat(self, r):
        self.lstat(r)

    def attrs(self, r):
        return DISK[r.path]

    def open(self, r):
        self.count += 1
        h = b"%d" % self.count
        self.paths[h] = r.path
        self.answer(r, HANDLE, string(h))

    def opendir(self, r):
        Server.open(self, r)

    def read(self, r):
        off, size = r.number(8), r.number(4)
        data = bytes(size) if r.path == b"/big" and off < 1 << 30 else TEXT[off:off + size]
        if data:
            self.answer(r, DATA, string(data))
        else:
            self.status(r, EOF)

    def readdir(self, r):
        if r.handle in self.told:
            self.status(r, EOF)
            return
        self.told.add(r.handle)
        self.answer(r, NAME, names(*self.list(r)))

    def list(self, r):
        if r.path != b"/":
            return [entry(b"."), entry(b".."), entry(b"f")]
        return [entry(b"."), entry(b"..")] + [entry(path[1:], what) for path, what in DISK.items()
                                              if path.count(b"/") == 1 and path != b"/"]

    def readlink(self, r):
        self.answer(r, NAME, names(entry(self.text(r))))

    def text(self, r):
        return b"f"

    def realpath(self, r):
        self.answer(r, NAME, names(entry(self.real(r))))

    def real(self, r):
        return b"/f"

    def extended(self, r):
        if r.string() == b"limits@openssh.com":
            self.answer(r, EXTENDED_REPLY, self.limits())
        else:
            self.answer(r, EXTENDED_REPLY, u64(4096) * 11)

    def limits(self):
        return u64(262144) + u64(261120) + u64(261120) + u64(100)


# --- habits -----------------------------------------------------------------------------

class Greeting(Server):
    """greeting-*: before anything was asked"""

    def greet(self):
        how = self.habit
        if how == "greeting-text":
            self.send(b"Welcome to Ubuntu!\n" * 20)
        elif how == "greeting-version":
            self.packet(VERSION, u32(6))
        elif how == "greeting-cut":
            self.packet(VERSION, b"\0\0")
        elif how == "greeting-pairs-cut":
            self.packet(VERSION, u32(3) + string(b"limits@openssh.com") + u32(900) + b"1")
        elif how == "greeting-empty-packet":
            self.send(u32(0))
        elif how == "greeting-huge-packet":
            self.send(u32(0xffffffff) + bytes(100000))
        elif how == "greeting-twice":
            Server.greet(self)
            Server.greet(self)
        elif how == "greeting-answer":
            self.packet(STATUS, u32(0) + u32(0) + string(b"") + string(b""))
        elif how == "greeting-ends":
            sys.exit(3)
        else:
            Server.greet(self)

    def limits(self):
        return {"limits-cut": u64(1) * 3 + b"\0", "limits-tiny": u64(1) * 4,
                "limits-huge": u64(-1) * 4}.get(self.habit) or Server.limits(self)


class Attrs(Server):
    """attrs-*: what is told of files"""

    def attrs(self, r):
        good = DISK[r.path]
        return {
            "attrs-cut": good[:-3], "attrs-flags-only": u32(0xf), "attrs-none": b"",
            "attrs-no-flags": u32(0),
            "attrs-every-flag": u32(0xffffffff) + good[4:] + u32(2) +
            string(b"acl@openssh.com") + string(b"x" * 1000) + string(b"") * 2,
            "attrs-extended-cut": u32(0x8000000f) + good[4:] + u32(0xffffffff) + string(b"x") * 9,
            "attrs-extreme": attrs(0o107777, -1, mtime=-1),
            "attrs-no-type": attrs(0o777), "attrs-impossible-type": attrs(0o177777),
            "attrs-device": attrs(0o20666),
        }[self.habit]


class TypesChange(Server):
    """types-change: each look tells another type"""

    def attrs(self, r):
        self.count += 1
        return (FILE, FOLDER, LINK, attrs(0o20666), attrs(0o140644))[self.count % 5] \
            if r.path == b"/f" else DISK[r.path]


class Becomes(Server):
    """becomes-another: a file that was opened or changed is a folder behind that, all else a file"""

    def __init__(self):
        Server.__init__(self)
        self.now = {}

    def handle(self, r):
        if r.type in (OPEN, SETSTAT, MKDIR, READLINK):
            path = Request(bytes([r.type]) + u32(r.id) + r.rest).string()
            self.now[path] = FOLDER if r.type in (OPEN, SETSTAT) else FILE
        Server.handle(self, r)

    def lstat(self, r):
        if r.path in self.now:
            self.answer(r, ATTRS, self.now[r.path])
        else:
            Server.lstat(self, r)

    def readlink(self, r):
        self.status(r, BAD_MESSAGE)


class Comes(Becomes):
    """comes-and-goes: twice /new is there when it is to be made, and has gone behind that"""

    def __init__(self):
        Becomes.__init__(self)
        self.asked = 0

    def handle(self, r):
        if r.type == OPEN and r.rest[4:8] == b"/new" and self.asked < 2:
            self.asked += 1
            self.status(r, FAILURE)
        else:
            Server.handle(self, r)

    def open(self, r):
        self.now[r.path] = FILE
        Server.open(self, r)


class Was(Server):
    """was-a-folder: what was a folder for a moment; /g is one whenever it is to be removed"""

    def __init__(self):
        Server.__init__(self)
        self.removals = 0
        self.opened = self.folder = False

    def handle(self, r):
        if r.type == REMOVE:
            self.removals += 1
            self.status(r, FAILURE if r.string() == b"/g" or self.removals < 4 else OK)
        else:
            Server.handle(self, r)

    def open(self, r):
        if self.opened:
            Server.open(self, r)
        else:
            self.opened = self.folder = True
            self.status(r, FAILURE)

    def attrs(self, r):
        folder, self.folder = self.folder, False
        return FOLDER if folder else DISK[r.path]


class Answers(Server):
    """answer-*: to the look at /f"""

    def lstat(self, r):
        if r.path != b"/f":
            Server.lstat(self, r)
            return
        how = self.habit
        if how == "answer-wrong-id":
            self.packet(ATTRS, u32(r.id + 1000) + FILE)
        elif how == "answer-twice":
            self.answer(r, ATTRS, FILE)
            self.answer(r, ATTRS, FILE)
        elif how == "answer-unasked":
            self.packet(DATA, u32(0x7fffffff) + string(b"x" * 1000))
        elif how == "answer-ok":
            self.status(r, OK)
        elif how == "answer-eof":
            self.status(r, EOF)
        elif how == "answer-unknown-status":
            self.status(r, 4000000000, b"x" * 200000)
        elif how == "answer-status-cut":
            self.answer(r, STATUS, b"\0\0")
        elif how == "answer-unknown-type":
            self.answer(r, 77, b"")
        elif how == "answer-name":
            self.answer(r, NAME, names(entry(b"f")))
        elif how == "answer-handle":
            self.answer(r, HANDLE, string(b"h"))
        elif how == "answer-request":
            self.answer(r, OPEN, string(b"/etc/passwd") + u32(1) + u32(0))
        elif how == "answer-empty-packet":
            self.send(u32(0))
        elif how == "answer-huge-packet":
            self.send(u32(0x7fffffff))
        elif how == "answer-half-and-end":
            self.send(u32(100) + bytes([ATTRS]) + u32(r.id))
            sys.exit(0)
        elif how == "answer-quota":
            self.status(r, 15)
        elif how == "answer-quota-text":
            self.status(r, FAILURE, b"Disk quota exceeded")


class Handles(Server):
    """handle-N: handles of N bytes"""

    def open(self, r):
        h = b"h" * int(self.habit[7:])
        self.paths[h] = r.path
        self.answer(r, HANDLE, string(h))

    opendir = open


class HandleCut(Server):
    def open(self, r):
        self.answer(r, HANDLE, u32(200) + b"h")


class Reads(Server):
    """read-*: contents"""

    def read(self, r):
        off, size = r.number(8), r.number(4)
        how = self.habit
        if how == "read-long":
            self.answer(r, DATA, string(bytes(size + 1)))
        elif how == "read-cut":
            self.answer(r, DATA, u32(size) + b"x")
        elif how == "read-empty":
            self.answer(r, DATA, string(b""))
        elif how == "read-by-bytes":
            self.answer(r, DATA, string(b"x")) if off < 300 else self.status(r, EOF)
        elif how == "read-endless":
            self.answer(r, DATA, string(bytes(size)))
        elif how == "read-handle":
            self.answer(r, HANDLE, string(b"h"))
        elif how == "read-silent":
            with open("/asked", "w"):
                pass

    def attrs(self, r):
        # … and is changed meanwhile
        if self.habit == "read-silent" and r.path == b"/f" and os.path.exists("/asked"):
            return attrs(0o100644, mtime=1000000001)
        return Server.attrs(self, r)


class Silent(Server):
    """write-silent: no word about what was written"""

    def open(self, r):
        DISK.setdefault(r.path, FILE)
        Server.open(self, r)

    def handle(self, r):
        if r.type != WRITE:
            Server.handle(self, r)


class Names(Server):
    """names-*: listings"""

    def list(self, r):
        bad = {"names-empty": b"", "names-slash": b"a/b", "names-nul": b"a\0b", "names-up": b"../x",
               "names-root": b"/", "names-long": b"x" * 256, "names-huge": b"x" * 100000}
        return [entry(b"good"), entry(bad[self.habit])]


class Counts(Server):
    """count-*: listings whose count of names is wrong"""

    def readdir(self, r):
        few = [entry(b"f"), entry(b"g")]
        if r.handle in self.told:
            self.status(r, EOF)
            return
        self.told.add(r.handle)
        self.answer(r, NAME, {
            "count-too-many": names(*few, count=3), "count-absurd": names(*few, count=0xffffffff),
            "count-too-few": names(*few, count=1), "count-cut": b"\0\0",
            "count-entry-cut": names(*few)[:-5],
        }[self.habit])


class Endless(Server):
    """names-endless: a folder without an end"""

    def readdir(self, r):
        self.answer(r, NAME, names(*(entry(b"%d-%d-%s" % (self.count, i, b"x" * 40))
                                     for i in range(1500))))


class Nothing(Server):
    """names-nothing: answers without a name, and no end"""

    def readdir(self, r):
        self.answer(r, NAME, names())


class Links(Server):
    """link-*: what a link says; realpath agrees, and says another thing each time"""

    texts = {
        "link-empty": [b""], "link-nul": [b"a\0b"], "link-long": [b"x/" * 50000],
        "link-absolute": [b"/etc/passwd"], "link-up": [b"../" * 60 + b"etc/passwd"],
        "link-nested": [b"sub/../../../../../../../../etc/passwd"],
        "link-changes": [b"f", b"sub/..", b"..", b"/../..", b"link/../..", b"../" * 9, b"/etc"],
    }

    def text(self, r):
        self.count += 1
        few = self.texts[self.habit]
        return few[self.count % len(few)]

    def real(self, r):
        self.count += 1
        return (b"/../../../etc/passwd", b"..", b"../../..", b"x/../../..")[self.count % 4]


class Floods(Server):
    """flood-*: more than anybody asked for, without an end"""

    def lstat(self, r):
        if r.path != b"/f":
            Server.lstat(self, r)
        elif self.habit == "flood-stderr":
            while True:
                os.write(2, b"blah blah\n" * 1000)
        elif self.habit == "flood-status":
            # an endless answer within one packet's length each, to a call that waits
            while True:
                self.packet(VERSION, u32(3) + (string(b"x" * 100) + string(b"1")) * 1000)
        elif self.habit == "flood-trickle":
            # a packet that never ends, byte by byte
            self.send(u32(200000) + bytes([ATTRS]) + u32(r.id))
            while True:
                self.send(b"x")


class Chaos(Server):
    """chaos-SEED: good answers, some of them spoilt somewhere"""

    def send(self, data):
        rng = self.rng
        if self.count > 4 and rng.random() < 0.15:
            data = bytearray(data)
            for _ in range(rng.choice((1, 1, 4))):
                at = rng.randrange(len(data))
                how = rng.random()
                if how < 0.5:
                    data[at] = rng.randrange(256)
                elif how < 0.7:
                    del data[at:at + rng.randrange(1, 9)]
                elif how < 0.9:
                    data[at:at] = rng.randbytes(rng.randrange(1, 9))
                else:
                    data += data
                if not data:
                    break
        Server.send(self, bytes(data))


HABITS = (("greeting-", Greeting), ("limits-", Greeting), ("attrs-", Attrs), ("types-change", TypesChange),
          ("becomes-another", Becomes), ("comes-and-goes", Comes), ("was-a-folder", Was),
          ("answer-", Answers), ("handle-cut", HandleCut), ("handle-", Handles), ("read-", Reads),
          ("names-endless", Endless), ("names-nothing", Nothing), ("names-", Names),
          ("count-", Counts), ("link-", Links), ("flood-", Floods), ("chaos-", Chaos),
          ("write-silent", Silent), ("good", Server))


def main():
    with open("/habit") as f:
        habit = f.read().strip()
    server = next(kind for start, kind in HABITS if habit.startswith(start))()
    server.habit, server.rng = habit, random.Random(habit)
    server.run()


if __name__ == "__main__":
    main()
