"""Tokens as the stand-in checks them: exe0 (signed by an account's key), exe1 (by table)."""

import base64
import json
import re
import struct
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

DEFAULT_CMDS = ["help", "ls", "new", "whoami", "ssh-key list", "share show", "exe0-to-exe1",
                "team", "team members"]
ARMOR = "-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----\n"


class BadToken(Exception):
    """HTTP 401."""


@dataclass
class Permissions:
    account: str
    cmds: list
    key: str                    # what the rate limit counts by
    scope: str = None           # a tag

    def allows(self, path, words):
        if path == "ssh":
            return "ssh" in self.cmds or len(words) > 1 and f"ssh {words[1]}" in self.cmds
        return path in self.cmds


def b64url(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def unb64url(text):
    if not re.fullmatch(r"[A-Za-z0-9_-]+", text):
        raise BadToken("malformed token")
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError as e:
        raise BadToken("malformed token") from e


def no_doubles(pairs):
    if len({k for k, v in pairs}) != len(pairs):
        raise BadToken("duplicate key")
    return dict(pairs)


def strict_integer(text):
    if not re.fullmatch(r"\d+", text):
        raise BadToken("not an integer")
    return int(text)


def not_a_number(text):
    raise BadToken("not an integer")


def check_permissions(data, now=None):
    """The permissions as a dict; anything that the documents do not allow is BadToken."""
    now = time.time() if now is None else now
    text = data.decode("utf-8", "strict") if b"\0" not in data else ""
    if not text or text != text.strip() or "\n" in text:
        raise BadToken("malformed permissions")
    try:
        p = json.loads(text, object_pairs_hook=no_doubles, parse_int=strict_integer,
                       parse_float=not_a_number, parse_constant=not_a_number)
    except json.JSONDecodeError as e:
        raise BadToken("malformed permissions") from e
    if not isinstance(p, dict) or set(p) - {"exp", "nbf", "cmds", "ctx"}:
        raise BadToken("unknown key in permissions")
    for key in ("exp", "nbf"):
        if key in p and not (type(p[key]) is int and 946684800 <= p[key] <= 4102444800):
            raise BadToken(f"{key} out of range")
    if p.get("exp", now + 1) <= now or p.get("nbf", 0) > now:
        raise BadToken("token expired")
    if not isinstance(p.get("cmds", []), list):
        raise BadToken("malformed cmds")
    return p


def sshsig_key(blob):
    """The public key of an SSHSIG blob, as 'type base64'; checks everything but the signature."""
    fields, off = [], 10
    if blob[:6] != b"SSHSIG" or struct.unpack(">I", blob[6:10])[0] != 1:
        raise BadToken("not a signature")
    try:
        for _ in range(5):
            n = struct.unpack(">I", blob[off:off + 4])[0]
            fields.append(blob[off + 4:off + 4 + n])
            if len(fields[-1]) != n:
                raise BadToken("truncated signature")
            off += 4 + n
    except struct.error as e:
        raise BadToken("truncated signature") from e
    key, namespace, reserved, hash_name, _ = fields
    if namespace != b"v0@exe.dev" or reserved or hash_name not in (b"sha512", b"sha256"):
        raise BadToken("wrong namespace")
    n = struct.unpack(">I", key[:4])[0]
    return f"{key[4:4 + n].decode()} {base64.b64encode(key).decode()}"


class Tokens:
    def __init__(self):
        self.keys = {}          # "type base64" -> account
        self.table = {}         # exe1 token -> Permissions
        self.verified = {}      # exe0 token -> (permissions dict, key)
        self.ahead_s = 0        # the service's clock
        self.refused = 0        # requests: 401
        self.seen = set()       # every token that came, for tests that look for leaks

    def register(self, public_key, account):
        """public_key: the text of a .pub file."""
        self.keys[" ".join(public_key.split()[:2])] = account

    def grant(self, token, account, cmds, scope=None):
        self.table[token] = Permissions(account, cmds, token, scope)
        return token

    def revoke(self, token):
        self.table.pop(token, None)

    def check(self, header):
        try:
            return self.whose(header)
        except BadToken:
            self.refused += 1
            raise

    def whose(self, header):
        m = re.fullmatch(r"Bearer ([!-~]+)", header or "")
        if not m or len(m[1]) > 8192:
            raise BadToken("invalid or missing authentication")
        token = m[1]
        self.seen.add(token)
        if token.startswith("exe1."):
            if token not in self.table:
                raise BadToken("unknown token")
            return self.table[token]
        if not token.startswith("exe0.") or token.count(".") != 2:
            raise BadToken("malformed token")
        return self.check_exe0(token)

    def check_exe0(self, token):
        _, payload, signature = token.split(".")
        data, blob = unb64url(payload), unb64url(signature)
        key = sshsig_key(blob)
        account = self.keys.get(key)
        if not account:
            raise BadToken("unknown key")
        if token not in self.verified:
            self.verify(key, data, blob)
            self.verified[token] = True
        p = check_permissions(data, time.time() + self.ahead_s)
        return Permissions(account, p.get("cmds", DEFAULT_CMDS), key)

    def verify(self, key, data, blob):
        with tempfile.TemporaryDirectory() as folder:
            signers, sig = Path(folder) / "signers", Path(folder) / "sig"
            signers.write_text(f"someone {key}\n")
            sig.write_text(ARMOR.format(base64.b64encode(blob).decode()))
            done = subprocess.run(["ssh-keygen", "-Y", "verify", "-f", signers, "-I", "someone",
                                   "-n", "v0@exe.dev", "-s", sig], input=data,
                                  capture_output=True)
        if done.returncode:
            raise BadToken("bad signature")


def sign(key_file, permissions, namespace="v0@exe.dev"):
    """An exe0 token, as the documents make it."""
    data = permissions if isinstance(permissions, bytes) else \
        json.dumps(permissions, separators=(",", ":")).encode()
    out = subprocess.run(["ssh-keygen", "-Y", "sign", "-f", key_file, "-n", namespace],
                         input=data, capture_output=True, check=True).stdout.decode()
    blob = base64.b64decode("".join(out.split("\n")[1:-2]))
    return f"exe0.{b64url(data)}.{b64url(blob)}"
