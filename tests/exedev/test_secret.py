"""Where the token is not, and where it never goes."""

import base64
import errno
import fcntl
import os
import re
import resource
import select
import signal
import socket
import struct
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path

import pytest

from conftest import ACCOUNT, ALL
from support import Mount, refused, sanitized, wait_until
from tokens import check_permissions, sign


def needles(token):
    """The token, and pieces of it: any 40 characters of what is secret in it."""
    if token.startswith("exe0."):
        secret = token.split(".")[2]
        raw = base64.urlsafe_b64decode(secret + "=" * (-len(secret) % 4))
        plain = base64.b64encode(raw).decode()
        # The tail: what stands before is the public key.
        return [token.encode(), secret[-48:-4].encode(), plain[-48:-8].encode(), raw[-40:]]
    return [token.encode(), token[5:].encode()]


def holds(data, token):
    return any(n in data for n in needles(token))


def every_file(folder):
    for root, _, files in os.walk(folder):
        for name in files:
            path = Path(root) / name
            if path.is_file() and not path.is_symlink():
                yield path


def use(mount, cloud):
    """What talks to the service, with failures that are told in sentences."""
    mount.wait_ready()
    box = mount.new("web", wait=False)
    wait_until(lambda: cloud.service.names() == ["web"])
    cloud.service.fault = lambda path: (422, "no") if path == "new" else None
    mount.new("bad", wait=False).wait_status("failed")
    cloud.service.fault = lambda path: None
    return box


def core_of(pid, folder):
    """What a core file of the process would hold: SIGABRT, and the core it leaves."""
    pattern = Path("/proc/sys/kernel/core_pattern")
    with open(pattern) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)    # another run of these tests has the same machine
        before = pattern.read_text()
        pattern.write_text(f"{folder}/core.%p\n")
        try:
            os.kill(pid, signal.SIGABRT)
            # It is ours, so it stays as a zombie; its memory goes when the core has been written.
            wait_until(lambda: not Path(f"/proc/{pid}/maps").read_text())
        finally:
            pattern.write_text(before)
    return (Path(folder) / f"core.{pid}").read_bytes()


@pytest.mark.parametrize("source", ["file", "EXE_TOKEN", "EXE_API_TOKEN", "signing_key"])
def test_the_token_is_nowhere(cloud, exe_mount, source, tmp_path):
    variables, without = {}, {}
    token = cloud.token_file.read_text().strip()
    if source in ("EXE_TOKEN", "EXE_API_TOKEN"):
        token = cloud.service.tokens.grant("exe1.Zq8vK2rT5wX9yB3nM6pL1jH4gF7dS0aQeUiO", ACCOUNT, ALL)
        variables, without = {source: token}, {"token_file": None}
    elif source == "signing_key":
        without = {"token_file": None, "signing_key": cloud.key}
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    mount = exe_mount(cloud, variables=variables, **without)
    resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))
    box = use(mount, cloud)
    assert box.ask("echo $EXE_TOKEN$EXE_API_TOKEN") == b"\n"
    tokens = cloud.service.tokens.seen
    assert token in tokens or source == "signing_key"
    pid = mount.process.pid
    for path in ["cmdline", "environ"]:
        data = Path(f"/proc/{pid}/{path}").read_bytes()
        assert not any(holds(data, t) for t in tokens), path
    for top in (mount.path / ".sbxfs", mount.path / "web/info", mount.folder / "state",
                mount.folder / "run"):
        for path in [top] if top.is_file() else every_file(top):
            if path.name in ("events", "stdin"):
                continue
            assert not any(holds(path.read_bytes(), t) for t in tokens), path
    log = "\n".join(mount.log.lines).encode()
    assert b"debug" in log and not any(holds(log, t) for t in tokens)
    if os.getuid() == 0 and not sanitized() and os.access("/proc/sys/kernel/core_pattern", os.W_OK):
        # No private memory, be it a heap, a stack or a thread's.
        assert int(Path(f"/proc/{pid}/coredump_filter").read_text(), 16) & 0x21 == 0
        core = core_of(pid, tmp_path)
        # Registers and mappings are in it, so it is a whole one.
        assert core[:4] == b"\x7fELF" and b"libcurl.so" in core and b"sbxfs" in core
        assert not any(holds(core, t) for t in tokens)
        mount.process.wait(30)
        mount.ended()


def test_not_over_plain_http(paper, exe_mount):
    mount = exe_mount(paper, start=False, api="http://exe.example/exec")
    mount.launch()
    assert mount.process.wait(60) == 1
    mount.log.wait("must not travel in the open")
    mount.ended()


def test_not_through_a_proxy_in_the_open(exe_mount):
    """Plain HTTP to loopback goes there itself, whatever http_proxy says."""
    from conftest import Cloud
    cloud = Cloud(guests=False, tls=False)
    proxied = []

    class Proxy(BaseHTTPRequestHandler):
        def do_POST(self):
            proxied.append(self.path)
            self.send_error(502)

        def log_message(self, *args):
            pass

    proxy = HTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        mount = exe_mount(cloud, variables={
            "http_proxy": f"http://127.0.0.1:{proxy.server_address[1]}"})
        mount.wait_ready()
        assert proxied == []
    finally:
        cloud.close()
        proxy.shutdown()
        proxy.server_close()


class Relay(BaseHTTPRequestHandler):
    """A proxy that is asked for a tunnel, and reads what goes through it."""

    def do_CONNECT(self):
        self.server.asked.append((self.path, str(self.headers)))
        host, port = self.path.rsplit(":", 1)
        with socket.create_connection((host, int(port))) as far:
            self.send_response(200)
            self.end_headers()
            ends = {self.connection: far, far: self.connection}
            while True:
                for end in select.select(list(ends), [], [])[0]:
                    data = end.recv(65536)
                    if not data:
                        self.close_connection = True
                        return
                    self.server.seen += data
                    ends[end].sendall(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def relay():
    relay = ThreadingHTTPServer(("127.0.0.1", 0), Relay)
    relay.daemon_threads = True
    relay.asked, relay.seen = [], b""
    threading.Thread(target=relay.serve_forever, daemon=True).start()
    yield relay
    relay.shutdown()
    relay.server_close()


def test_through_a_proxy(paper, exe_mount, relay):
    """As curl's users expect; it carries what it cannot read."""
    mount = exe_mount(paper, variables={
        "https_proxy": f"http://127.0.0.1:{relay.server_address[1]}"}).wait_ready()
    os.mkdir(mount / "web")
    wait_until(lambda: paper.service.names() == ["web"])
    assert {path for path, _ in relay.asked} == {f"localhost:{paper.service.port}"}
    told = "".join(headers for _, headers in relay.asked).encode() + relay.seen
    assert len(relay.seen) > 1000
    assert not any(holds(told, t) for t in paper.service.tokens.seen) and b"Bearer" not in told


@pytest.mark.parametrize("variable", ["no_proxy", "NO_PROXY"])
def test_past_a_proxy(paper, exe_mount, relay, variable):
    exe_mount(paper, variables={
        "https_proxy": f"http://127.0.0.1:{relay.server_address[1]}",
        variable: "example.org,localhost"}).wait_ready()
    assert relay.asked == []


def test_a_certificate_of_nobody(paper, exe_mount):
    """TLS is verified: without the stand-in's CA nothing is sent."""
    mount = exe_mount(paper, start=False, ca_file=None)
    mount.start()
    wait_until(lambda: "unavailable" in mount.backends())
    assert "certificate" in mount.backends()
    assert paper.service.requests == 0 and not paper.service.tokens.seen


@pytest.mark.parametrize("variable", ["CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_the_ca_file_of_curls_users(paper, exe_mount, variable):
    exe_mount(paper, ca_file=None, variables={variable: str(paper.service.ca)}).wait_ready()


@pytest.mark.parametrize("api", ["https://ann:secret@localhost/exec", "https://ann@localhost/exec"])
def test_no_password_in_the_address(paper, exe_mount, api):
    """It would be shown in .sbxfs/backends."""
    mount = exe_mount(paper, start=False, api=api)
    mount.launch()
    assert mount.process.wait(60) == 1
    mount.log.wait("no user name or password")
    mount.ended()
    assert not any("secret" in line for line in mount.log.lines)


def test_a_token_file_that_others_can_read(paper, exe_mount):
    paper.token_file.chmod(0o644)
    mount = exe_mount(paper, "refresh = 1s\n")
    assert "chmod 600" in mount.backends()
    assert paper.service.requests == 0
    paper.token_file.chmod(0o600)
    wait_until(lambda: "exe.dev ready" in mount.backends() and "new," in mount.backends())


def test_a_token_file_that_comes_later(paper, exe_mount):
    """As the sentence says what is wrong it can be mended, without another mount."""
    text = paper.token_file.read_text()
    paper.token_file.unlink()
    mount = exe_mount(paper, "refresh = 1s\n")
    assert "cannot be read" in mount.backends()
    refused(errno.ENODEV, os.mkdir, mount / "web")
    assert "cannot be read" in mount.errors()
    paper.token_file.touch(mode=0o600)
    assert paper.service.requests == 0
    paper.token_file.write_text(text)
    wait_until(lambda: "exe.dev ready" in mount.backends())
    os.mkdir(mount / "web")
    wait_until(lambda: paper.service.names() == ["web"])


def test_tokens_of_our_own(paper, exe_mount):
    """Signed for an hour, with the commands that are needed and no other."""
    mount = exe_mount(paper, token_file=None, signing_key=paper.key).wait_ready()
    token = next(iter(paper.service.tokens.seen))
    payload = token.split(".")[1]
    text = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)).decode()
    assert re.fullmatch(r'\{"exp":\d+,"cmds":\["new","ls",.*\]\}', text)
    assert '"ssh"' not in text and "ssh-key" not in text
    assert f"signed by {paper.key}" in mount.backends()


@pytest.fixture
def jump(tmp_path):
    """jump(seconds): the daemon's clocks, and the stand-in's for tokens, are ahead by so much."""
    shim, file = tmp_path / "jump.so", tmp_path / "jump"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", shim,
                    Path(__file__).with_name("jump.c"), "-ldl"], check=True)
    file.write_bytes(struct.pack("d", 0))

    def jump(seconds):
        with open(file, "r+b") as f:
            f.write(struct.pack("d", seconds))

    jump.env = {"LD_PRELOAD": str(shim), "SBX_JUMP": str(file)}
    return jump


def test_a_token_of_our_own_is_renewed(paper, exe_mount, jump):
    """It is good for an hour, and another one is there ten minutes before that ends."""
    if sanitized():
        pytest.skip("nothing is preloaded before a sanitizer's runtime")
    tokens = paper.service.tokens
    mount = exe_mount(paper, "refresh = 1s\n", token_file=None, signing_key=paper.key,
                      variables=jump.env).wait_ready()

    def looked():
        """The service was asked since, and gave an answer."""
        looks = paper.count("ls")
        wait_until(lambda: paper.count("ls") >= looks + 2)

    assert len(tokens.seen) == 1
    payload = next(iter(tokens.seen)).split(".")[1]
    left = check_permissions(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert 3000 < left["exp"] - time.time() <= 3600
    for seconds, count in ((49 * 60, 1), (51 * 60, 2), (99 * 60, 2), (101 * 60, 3)):
        tokens.ahead_s = seconds
        jump(seconds)
        looked()
        wait_until(lambda: len(tokens.seen) == count)
        assert "exe.dev ready" in mount.backends()
    assert tokens.refused == 0


def test_a_token_signed_by_the_agent(paper, exe_mount):
    out = subprocess.run(["ssh-agent", "-s"], capture_output=True, text=True, check=True).stdout
    env = dict(re.findall(r"(SSH_\w+)=([^;]+);", out))
    try:
        subprocess.run(["ssh-add", "-q", paper.key], env={**os.environ, **env}, check=True)
        hidden = paper.key.rename(paper.folder / "moved")
        mount = exe_mount(paper, token_file=None, signing_key=f"{paper.key}.pub",
                          variables={"SSH_AUTH_SOCK": env["SSH_AUTH_SOCK"]})
        mount.wait_ready()
        hidden.rename(paper.key)
    finally:
        os.kill(int(env["SSH_AGENT_PID"]), signal.SIGTERM)


def test_a_key_that_the_account_does_not_know(paper, exe_mount):
    mount = exe_mount(paper, token_file=None, signing_key=paper.new_key("stranger"))
    wait_until(lambda: "unknown key" in mount.backends())
    assert paper.service.requests <= 3      # it is not asked again and again


def test_no_token_at_all(paper, exe_mount):
    mount = exe_mount(paper, api=None, token_file=None)
    assert "there is no token" in mount.backends()
    assert Mount.running and paper.service.requests == 0
