"""The stand-in's command engine: what exe.dev's lobby does with a command line.

State is one name table for all accounts (names are unique over all customers), each
VM with its account, tags, comment, sizes and status. Quoting, flags, answers and messages are
as public documents and clients' captures have them; odd ones are switches (Lobby.odd).
"""

import fnmatch
import json
import re
import threading
import time
from dataclasses import dataclass, field


class Refused(Exception):
    """The command ran and failed: HTTP 422, exit status 1."""


class Malformed(Exception):
    """HTTP 400."""


class Unknown(Exception):
    """HTTP 404."""


class Denied(Exception):
    """HTTP 403."""


COMMANDS = {
    "help", "ls", "new", "rm", "restart", "pause", "resume", "rename", "tag", "cp", "resize",
    "comment", "stat", "ssh", "whoami", "share show", "share port", "share set-public",
    "share set-private", "ssh-key list", "ssh-key generate-api-key", "domain add",
    "integrations add", "integrations list", "exe0-to-exe1", "team", "team members",
}
NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
TAG = re.compile(r"[a-z][a-z0-9_-]*")


def lex(line):
    """Words of a command line; nothing is expanded, operators are ordinary words."""
    words, word, i = [], None, 0
    while i < len(line):
        c = line[i]
        if c in " \t\n":
            if word is not None:
                words.append(word)
                word = None
        elif c == "'":
            end = line.find("'", i + 1)
            if end < 0:
                raise Malformed("unbalanced quote")
            word = (word or "") + line[i + 1:end]
            i = end
        elif c == '"':
            word = word or ""
            i += 1
            while i < len(line) and line[i] != '"':
                if line[i] == "\\" and i + 1 < len(line) and line[i + 1] in '"\\$`\n':
                    i += 1
                    word += "" if line[i] == "\n" else line[i]
                else:
                    word += line[i]
                i += 1
            if i >= len(line):
                raise Malformed("unbalanced quote")
        elif c == "\\":
            if i + 1 >= len(line):
                raise Malformed("trailing backslash")
            i += 1
            word = (word or "") + line[i]
        else:
            word = (word or "") + c
        i += 1
    if word is not None:
        words.append(word)
    if not words:
        raise Malformed("empty command")
    return words


def command_of(words):
    """The longest command path that the words begin with, and how many words it has."""
    for n in (2, 1):
        path = " ".join(words[:n])
        if len(words) >= n and path in COMMANDS:
            return path, n
    raise Unknown("unknown command")


VALUE_FLAGS = {"name", "image", "comment", "cpu", "memory", "disk", "env", "integration", "tag",
               "setup-script", "pool", "prompt", "group", "range", "copy-tags", "command", "l-user"}


def parse(words):
    """(flags: name -> list of values, positional words). One dash or two, =v or v."""
    flags, rest, i = {}, [], 0
    while i < len(words):
        m = re.fullmatch(r"--?([a-z][a-z-]*)(?:=(.*))?", words[i], re.S)
        if not m:
            rest.append(words[i])
        else:
            name, value = m.groups()
            if value is None and name in VALUE_FLAGS and i + 1 < len(words):
                i += 1
                value = words[i]
            flags.setdefault(name, []).append(value if value is not None else "true")
        i += 1
    return flags, rest


def size_of(text):
    m = re.fullmatch(r"(\d+)(GB|G|MB|M|)", text)
    if not m:
        raise Refused(f"invalid size {text!r}")
    return int(m[1]) * (1 << 20 if m[2] in ("MB", "M") else 1 << 30)


@dataclass
class VM:
    name: str
    account: str
    tags: list = field(default_factory=list)
    comment: str = ""
    image: str = "boldsoftware/exeuntu"
    cpus: int = 2
    memory: int = 4 << 30
    disk: int = 20 << 30
    status: str = "running"
    created: str = ""
    proxy_port: int = 8000
    proxy_share: str = "private"
    integrations: list = field(default_factory=list)
    env: list = field(default_factory=list)
    ready_at: float = 0
    guest: object = None        # of guests.py: has .address(), .stop(), .pause(), .resume()


class Lobby:
    """All accounts' VMs, and the commands."""

    def __init__(self, make_guest=None):
        self.lock = threading.RLock()
        self.vms = {}                       # by name, all accounts
        self.foreign_names = set()          # taken by other customers
        self.make_guest = make_guest
        self.quota = None                   # VMs an account may have
        self.plan = True
        self.digits_refused = False
        self.not_ready_s = 0                # SSH and share fail so long after new and cp
        self.take_s = {}                    # command -> how long it runs
        self.missing = set()                # commands that it does not have
        self.odd = set()                    # see render(), item() and answer_new()
        self.log = []                       # (command path, words)
        self.count = {}                     # command path -> how often it ran
        self.created_ever = []
        self.removed_ever = []
        self.serial = 0

    def command_of(self, words):
        path, n = command_of(words)
        if path in self.missing:
            raise Unknown("unknown command")
        return path, n

    # --- what an account sees -------------------------------------------------------

    def visible(self, account, scope):
        return [vm for vm in self.vms.values()
                if vm.account == account and (not scope or scope in vm.tags)]

    def find(self, account, scope, name):
        for vm in self.visible(account, scope):
            if vm.name == name:
                return vm
        raise Refused(f"VM {name!r} not found")

    def one(self, account, scope, rest, usage="VM name is required"):
        if not rest:
            raise Refused(usage)
        return self.find(account, scope, rest[0])

    # --- shapes of answers -------------------------------------------------------------

    def address(self, vm):
        host, port, user = vm.guest.address() if vm.guest else (f"{vm.name}.exe.xyz", 22, None)
        out = {"ssh_dest": f"{vm.name}.exe.xyz", "ssh_host": host, "ssh_port": port,
               "ssh_command": f"ssh {vm.name}.exe.xyz"}
        if user:
            out["ssh_user"] = user
        if "dest-only" in self.odd:
            at = f"{user}@" if user else ""
            out = {"ssh_dest": f"{at}{host}:{port}"}
        return out

    def urls(self, vm):
        return {"https_url": f"https://{vm.name}.exe.xyz", "proxy_port": vm.proxy_port,
                "shelley_url": f"https://{vm.name}.shelley.exe.xyz",
                "xterm_url": f"https://{vm.name}.xterm.exe.xyz"}

    def answer_new(self, vm, key="vm_name"):
        out = {"vm" if "vm-key" in self.odd else key: vm.name, "tags": list(vm.tags),
               **self.address(vm), **self.urls(vm)}
        return {"vm": {**out, "vm_name": vm.name}} if "wrapped" in self.odd else out

    def item(self, vm):
        out = {"vm_name": vm.name, "region": "lon", "region_display": "London, UK",
               "status": vm.status, "image": vm.image, "allocated_cpus": vm.cpus,
               "memory_capacity_bytes": vm.memory, "disk_capacity_bytes": vm.disk,
               "created_at": vm.created, "updated_at": vm.created, "comment": vm.comment,
               "proxy_share": vm.proxy_share, "route_known": True, "emoji": "x",
               "access": {"admin": True, "shell": True, "web": True},
               "sharing": {"group": None, "share_link_count": 0},
               **self.address(vm), **self.urls(vm)}
        if vm.tags:                         # left out when there are none
            out["tags"] = list(vm.tags)
        return out

    # --- commands ----------------------------------------------------------------------------

    def run_over_ssh(self, account, line):
        """(what is written, exit status); text unless --json."""
        try:
            words = lex(line)
            answer = self.run(account, line)
            if "--json" in words or "-json" in words:
                return render(answer).decode(), 0
            with self.lock:
                return as_text(command_of(words)[0], answer, self.vms), 0
        except (Refused, Malformed, Unknown, Denied) as e:
            text = str(e)
            return (render({"error": text}).decode() if "json" in line else text + "\n"), 1

    def run(self, account, line, scope=None, allowed=None):
        """The JSON-able answer, or bytes. allowed(path, words) says whether the token may."""
        words = lex(line)
        path, n = self.command_of(words)
        if allowed and not allowed(path, words):
            raise Denied("command not allowed by token permissions")
        args = [w for w in words[n:] if w not in ("--json", "-json")]
        if len(args) != len(words) - n and path.startswith("integrations add"):
            raise Refused("unknown flag --json")
        with self.lock:
            self.count[path] = self.count.get(path, 0) + 1
            self.log.append((path, words))
        if "--help" in args:
            with self.lock:
                self.count[path] -= 1
                self.count[path + " --help"] = self.count.get(path + " --help", 0) + 1
            return {"command": path, "usage": f"{path} [flags]", "examples": []}
        if self.take_s.get(path):
            time.sleep(self.take_s[path])
        with self.lock:
            method = getattr(self, "do_" + path.replace(" ", "_").replace("-", "_"), None)
            if not method:
                return {}
            return method(account, scope, args)

    def do_whoami(self, account, scope, args):
        return {"email": account, "ssh_keys": []}

    def do_ls(self, account, scope, args):
        flags, rest = parse(args)
        pattern = rest[0] if rest else "*"
        vms = [self.item(vm) for vm in self.visible(account, scope)
               if fnmatch.fnmatchcase(vm.name, pattern)]
        return {"vms": vms, **({"shared_vms": []} if "shared" in self.odd else {})}

    def check_free(self, account, name):
        if not NAME.fullmatch(name) or (self.digits_refused and re.search(r"-\d+$", name)):
            raise Refused(f"invalid VM name {name!r}")
        if name in self.vms or name in self.foreign_names:
            raise Refused("this VM name is not available")
        if not self.plan:
            raise Refused("active plan required")
        if self.quota is not None and len(self.visible(account, None)) >= self.quota:
            raise Refused(f"VM limit of your plan reached ({self.quota})")

    def add(self, account, name, **fields):
        self.serial += 1
        vm = VM(name, account, created=f"2026-11-21T08:00:00.{self.serial:06d}Z", **fields)
        vm.ready_at = time.monotonic() + self.not_ready_s
        self.vms[name] = vm
        self.created_ever.append(name)
        if self.make_guest:
            vm.guest = self.make_guest(vm)
        return vm

    def do_new(self, account, scope, args):
        flags, rest = parse(args)
        known = {"name", "image", "comment", "cpu", "memory", "disk", "env", "integration", "tag",
                 "no-email", "setup-script", "standalone", "sandbox", "pool", "no-pool"}
        if set(flags) - known:
            raise Refused(f"unknown flag {sorted(set(flags) - known)[0]}")
        self.serial += 1
        name = (flags.get("name") or rest or [f"generated-{self.serial}-vm"])[0]
        tags = [t for v in flags.get("tag", []) for t in v.split(",")]
        if any(not TAG.fullmatch(t) for t in tags):
            raise Refused("invalid tag")
        if scope and scope not in tags:
            tags.append(scope)
        self.check_free(account, name)
        image = (flags.get("image") or ["exeuntu"])[0]
        if image == "boldsoftware/exeuntu":
            raise Refused("could not pull image")
        vm = self.add(account, name, tags=tags, image=image,
                      cpus=int((flags.get("cpu") or ["2"])[0]),
                      memory=size_of((flags.get("memory") or ["4"])[0]),
                      disk=size_of((flags.get("disk") or ["20"])[0]),
                      comment=(flags.get("comment") or [""])[0],
                      integrations=flags.get("integration", []), env=flags.get("env", []))
        return self.answer_new(vm)

    def do_cp(self, account, scope, args):
        flags, rest = parse(args)
        source = self.one(account, scope, rest)
        self.serial += 1
        name = rest[1] if len(rest) > 1 else f"copy-{self.serial}-vm"
        self.check_free(account, name)
        tags = [] if flags.get("copy-tags") == ["false"] else list(source.tags)
        vm = self.add(account, name, tags=tags, image=source.image, cpus=source.cpus,
                      memory=source.memory, disk=source.disk)
        if vm.guest and source.guest:
            vm.guest.copy_from(source.guest)
        return self.answer_new(vm, "name")

    def do_rm(self, account, scope, args):
        if not args:
            raise Refused("VM name is required")
        for name in args:
            self.find(account, scope, name)
        for name in args:
            vm = self.vms.pop(name)
            self.removed_ever.append(name)
            if vm.guest:
                vm.guest.stop()
        return {"deleted": list(args), "failed": []}

    def do_restart(self, account, scope, args):
        vm = self.one(account, scope, args)
        if vm.guest:
            vm.guest.restart()
        vm.status = "running"
        vm.ready_at = time.monotonic() + self.not_ready_s
        return {}

    def do_pause(self, account, scope, args):
        vm = self.one(account, scope, args)
        if vm.status == "paused":
            raise Refused("VM is already paused")
        if vm.guest:
            vm.guest.pause()
        vm.status = "paused"
        return {}

    def do_resume(self, account, scope, args):
        vm = self.one(account, scope, args)
        if vm.status != "paused":
            raise Refused("VM is already running")
        if vm.guest:
            vm.guest.resume()
        vm.status = "running"
        return {}

    def do_rename(self, account, scope, args):
        vm = self.one(account, scope, args)
        if len(args) != 2:
            raise Refused("usage: rename <old> <new>")
        self.check_free(account, args[1])
        del self.vms[vm.name]
        vm.name = args[1]
        self.vms[vm.name] = vm
        return {}

    def do_tag(self, account, scope, args):
        if scope:
            raise Refused("a key for one tag cannot change tags")
        remove = bool(args) and args[0] == "-d"
        args = args[1:] if remove else args
        vm = self.one(account, scope, args)
        if len(args) < 2 or any(not TAG.fullmatch(t) for t in args[1:]):
            raise Refused("invalid tag")
        for tag in args[1:]:
            if remove and tag in vm.tags:
                vm.tags.remove(tag)
            elif not remove and tag not in vm.tags:
                vm.tags.append(tag)
        return {}

    def do_comment(self, account, scope, args):
        vm = self.one(account, scope, args)
        if len(args) != 2 or len(args[1].encode()) > 200:
            raise Refused("usage: comment <vm> <text>, at most 200 bytes")
        vm.comment = args[1]
        return {}

    def do_resize(self, account, scope, args):
        flags, rest = parse(args)
        vm = self.one(account, scope, rest)
        disk = size_of((flags.get("disk") or [f"{vm.disk >> 20}MB"])[0])
        if disk < vm.disk:
            raise Refused("disk can only grow")
        vm.disk = disk
        vm.memory = size_of((flags.get("memory") or [f"{vm.memory >> 20}MB"])[0])
        vm.cpus = int((flags.get("cpu") or [str(vm.cpus)])[0])
        return {}

    def do_stat(self, account, scope, args):
        vm = self.one(account, scope, parse(args)[1])
        return {"vm_name": vm.name, "cpu": {"percent": 12.5}, "memory_used_bytes": 1 << 29}

    def reachable(self, account, scope, args):
        vm = self.one(account, scope, args)
        if time.monotonic() < vm.ready_at:
            raise Refused("failed to connect to VM: handshake failed")
        return vm

    def do_share_port(self, account, scope, args):
        vm = self.reachable(account, scope, args)
        if len(args) > 1:
            vm.proxy_port = int(args[1])
        return {"port": vm.proxy_port}

    def do_share_set_public(self, account, scope, args):
        self.reachable(account, scope, args).proxy_share = "public"
        return {}

    def do_share_set_private(self, account, scope, args):
        self.reachable(account, scope, args).proxy_share = "private"
        return {}

    def do_share_show(self, account, scope, args):
        self.reachable(account, scope, args)
        return {"links": [], "users": []}

    def do_domain_add(self, account, scope, args):
        return {"domain": args[-1], "error": f"DNS for {args[-1]} does not point to exe.dev",
                "status": "error"}

    def do_integrations_add(self, account, scope, args):
        return b""

    def do_ssh_key_generate_api_key(self, account, scope, args):
        raise Denied("command not allowed by token permissions")


def as_text(path, answer, vms):
    """What a person sees over SSH without --json."""
    if path == "whoami":
        return f"Email Address: {answer['email']}\n"
    if path in ("new", "cp"):
        name = answer.get("vm_name") or answer["name"]
        return (f"Creating {name} using image {vms[name].image}...\n\nCoding agent\n"
                f"{answer['shelley_url']}\n\nApp (HTTPS proxy -> :{answer['proxy_port']})\n"
                f"{answer['https_url']}\n\nSSH\nssh {name}.exe.xyz\n")
    if path == "ls":
        return "".join(f"{vm['vm_name']}  {vm['status']}\n" for vm in answer["vms"])
    if isinstance(answer, bytes):
        return answer.decode()
    return "".join(f"{k}: {v}\n" for k, v in answer.items())


def render(answer):
    return answer if isinstance(answer, bytes) else json.dumps(answer).encode() + b"\n"
