"""The stand-in itself does what the service is known to do."""

import http.client
import json
import socket
import ssl
import subprocess
import time

import pytest

from conftest import ACCOUNT, ALL
from door import Door
from lobby import Malformed, lex
from support import wait_until
from tokens import BadToken, check_permissions, sign


class Client:
    def __init__(self, cloud, token=None):
        self.cloud = cloud
        self.token = token or cloud.token_file.read_text().strip()
        self.connection = None

    def connect(self):
        context = ssl.create_default_context(cafile=str(self.cloud.service.ca))
        self.connection = http.client.HTTPSConnection("localhost", self.cloud.service.port,
                                                      context=context, timeout=20)
        return self.connection

    def post(self, body, path="/exec", method="POST", **headers):
        connection = self.connection or self.connect()
        if self.token:
            headers.setdefault("Authorization", f"Bearer {self.token}")
        connection.request(method, path, body if isinstance(body, bytes) else body.encode(),
                           headers)
        answer = connection.getresponse()
        return answer.status, answer.read()

    def error(self, *args, **kwargs):
        status, body = self.post(*args, **kwargs)
        return status, json.loads(body)["error"]


@pytest.fixture
def client(paper):
    return Client(paper)


def test_one_address_one_method_keep_alive(paper, client):
    assert client.post("whoami", method="GET")[0] == 405
    assert client.post("whoami", path="/")[0] == 404
    assert client.post("whoami")[0] == 200
    assert paper.service.connections == 1


def test_the_body_is_verbatim_and_bounded(client):
    assert client.post("whoami", **{"Content-Type": "application/x-www-form-urlencoded"})[0] == 200
    assert client.post('{"command":"ls"}')[0] == 404
    assert client.post("")[0] == 400
    assert client.post("ls 'x")[0] == 400
    assert client.post(b"x" * 65537)[0] == 413


@pytest.mark.parametrize("payload", [
    b' {"cmds":["ls"]}', b'{"cmds":["ls"]}\n', b'{"a":1}', b'{"exp":1.0}', b'{"exp":2e9}',
    b'{"exp":1}', b'{"exp":5000000000}', b'{"cmds":["ls"],"cmds":["rm"]}',
    b'{"ctx":{"a":1,"a":2}}', b'{"exp":1000000000}', b'{"nbf":4000000000}', b'[]', b'{}x'])
def test_permissions_are_strict(paper, payload):
    status, _ = Client(paper, sign(paper.key, payload)).post("whoami")
    assert status == 401
    with pytest.raises(BadToken):
        check_permissions(payload)


def test_tokens_are_verified(paper):
    good = sign(paper.key, {"cmds": ["ls"]})
    assert Client(paper, good).post("ls")[0] == 200
    other = sign(paper.key, {"cmds": ["rm"]})
    mixed = ".".join([good.split(".")[0], other.split(".")[1], good.split(".")[2]])
    assert Client(paper, mixed).post("ls")[0] == 401
    assert Client(paper, sign(paper.new_key("x"), {})).post("ls")[0] == 401
    assert Client(paper, sign(paper.key, {}, "v0@web.exe.xyz")).post("ls")[0] == 401
    assert Client(paper, "exe0.x.y").post("ls")[0] == 401
    assert Client(paper, "exe1.unknown").post("ls")[0] == 401
    assert Client(paper, good + "A" * 8192).post("ls")[0] == 401


def test_commands_and_scopes(paper):
    some = Client(paper, sign(paper.key, {}))
    assert some.post("whoami")[0] == 200
    assert some.error("rm x") == (403, "command not allowed by token permissions")
    assert Client(paper, sign(paper.key, {"cmds": ["ssh-key"]})).post("ssh-key list")[0] == 403
    every = Client(paper, sign(paper.key, {"cmds": ALL + ["ssh-key generate-api-key"]}))
    assert every.post("ssh-key generate-api-key")[0] == 403
    scoped = Client(paper, paper.service.tokens.grant("exe1.s", ACCOUNT, ALL, scope="sandbox"))
    assert every.post("new --name=mine")[0] == 200
    assert json.loads(scoped.post("ls")[1]) == {"vms": []}
    assert scoped.error("rm mine")[0] == 422 and "not found" in scoped.error("rm mine")[1]
    assert scoped.post("new --name=theirs")[0] == 200
    assert [v["tags"] for v in json.loads(scoped.post("ls")[1])["vms"]] == [["sandbox"]]
    assert scoped.post("tag theirs x")[0] == 422
    paper.service.tokens.revoke("exe1.s")
    assert scoped.post("ls")[0] == 401


ORDERS = [(413, 401, 400, 404, 403), (403, 404, 400, 401, 413), (404, 400, 413, 403, 401),
          (400, 403, 401, 413, 404)]


@pytest.mark.parametrize("order", ORDERS)
def test_checks_in_any_order(paper, order):
    """What is wrong in one way is told as that; what is wrong in two, as the first of them."""
    paper.service.order = order
    some = Client(paper, sign(paper.key, {"cmds": ["ls", "nonsense"]}))
    wrong = {413: "ls " + "x" * 65536, 400: "ls 'x", 404: "nonsense", 403: "rm x"}
    assert {status: some.error(line)[0] for status, line in wrong.items()} == \
        {status: status for status in wrong}
    assert some.post("ls")[0] == 200
    stranger = Client(paper, "exe1.unknown")
    assert stranger.error("ls")[0] == 401
    for status, line in wrong.items():
        # whether a token allows it cannot be known of none
        first = 401 if status == 403 else min(status, 401, key=order.index)
        assert stranger.error(line)[0] == first
    assert some.error("fantasy")[0] == min(403, 404, key=order.index)
    assert some.error("rm '" + "x" * 65536)[0] == min(413, 400, key=order.index)


def test_odd_answers(paper, client):
    client.token = sign(paper.key, {"cmds": ALL + ["domain add", "integrations add"]})
    assert client.error("nonsense") == (404, "unknown command")
    paper.lobby.odd.add("unknown-200")
    assert client.error("nonsense") == (200, "unknown command")
    assert client.error("domain add x example.org")[0] == 200
    assert client.post("integrations add http --name=x") == (200, b"")
    assert client.post("integrations add http --name=x --json")[0] == 422
    client.post("new --name=a")
    assert "tags" not in json.loads(client.post("ls")[1])["vms"][0]
    new = json.loads(client.post("new --name=b --json")[1])
    assert new["vm_name"] == "b" and "status" not in new and "region" not in new
    assert json.loads(client.post("cp a c")[1])["name"] == "c"


@pytest.mark.parametrize("odd, trailer", [(None, b"X-Exe-Exit: 3"), ("no-trailer", b""),
                                          ("no-trailer-header", b"X-Exe-Exit: 3")])
def test_ssh_streams(cloud, odd, trailer):
    """Both streams in one, as bytes, chunked; the exit status in a trailer, or lost on the way."""
    cloud.set_token(sign(cloud.key, {"cmds": ["new", "ssh web"]}))
    client = Client(cloud)
    client.post("new --name=web")
    if odd:
        cloud.lobby.odd.add(odd)
    raw = raw_post(cloud, client.token, "ssh web 'printf \"a\\\\000b\"; echo oops >&2; exit 3'")
    assert b"200 OK" in raw and (b"Trailer: X-Exe-Exit" in raw) == (odd != "no-trailer-header")
    assert b"a\0b" in raw and b"oops" in raw
    assert raw.endswith(b"0\r\n" + (trailer + b"\r\n" if trailer else b"") + b"\r\n")
    assert client.post("ssh other true")[0] == 403


def raw_post(cloud, token, body):
    context = ssl.create_default_context(cafile=str(cloud.service.ca))
    with context.wrap_socket(socket.create_connection(("localhost", cloud.service.port)),
                             server_hostname="localhost") as s:
        s.sendall(f"POST /exec HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
                  f"Content-Length: {len(body)}\r\n\r\n{body}".encode())
        raw = b""
        while not raw.endswith(b"\r\n\r\n") or b"\r\n0\r\n" not in raw:
            data = s.recv(65536)
            if not data:
                break
            raw += data
        return raw


def test_ssh_words_signals_and_no_input(cloud):
    cloud.set_token(sign(cloud.key, {"cmds": ["new", "ssh"]}))
    client = Client(cloud)
    client.post("new --name=web")
    assert client.post("ssh web echo a 'b  c' '\"d  e\"'") == (200, b"a b c d  e\n")
    assert client.post("ssh web 'cat; tty'")[1] == b"not a tty\n"
    assert raw_post(cloud, client.token, "ssh web 'kill -TERM $$'").endswith(
        b"X-Exe-Exit: 143\r\n\r\n")
    assert client.error("ssh nobody true") == (422, "VM 'nobody' not found")


def test_ssh_comes_as_it_is_produced(cloud):
    cloud.set_token(sign(cloud.key, {"cmds": ["new", "ssh"]}))
    client = Client(cloud)
    client.post("new --name=web")
    go = cloud.folder / "go"
    connection = client.connect()
    connection.request("POST", "/exec", f"ssh web 'echo first; until [ -e {go} ]; do :; done'",
                       {"Authorization": f"Bearer {client.token}"})
    answer = connection.getresponse()
    assert answer.read1(100) == b"first\n"
    go.touch()
    assert answer.read() == b""


def test_a_client_that_hangs_up_kills_nothing(cloud):
    """Nor does the limit of time for `ssh`, where there is one."""
    cloud.set_token(sign(cloud.key, {"cmds": ["new", "ssh"]}))
    client = Client(cloud)
    client.post("new --name=web")
    go, done = cloud.folder / "go", cloud.folder / "done"
    slow = f"ssh web 'echo first; until [ -e {go} ]; do :; done; touch {done}'"
    connection = client.connect()
    connection.request("POST", "/exec", slow, {"Authorization": f"Bearer {client.token}"})
    assert connection.getresponse().read1(100) == b"first\n"
    connection.close()
    go.touch()
    wait_until(done.exists)
    done.unlink()
    go.unlink()
    cloud.service.stream_limit_s = 0.2
    client.connect()
    with pytest.raises((http.client.IncompleteRead, ssl.SSLError, ConnectionError)):
        client.post(slow)
    go.touch()
    wait_until(done.exists)


def test_a_stream_that_is_cut(cloud):
    cloud.set_token(sign(cloud.key, {"cmds": ["new", "ssh"]}))
    client = Client(cloud)
    client.post("new --name=web")
    cloud.service.cut_stream_at = 1
    with pytest.raises((http.client.IncompleteRead, ssl.SSLError, ConnectionError)):
        client.post("ssh web 'echo a; sleep 1; echo b'")


def test_the_time_limit(paper, client):
    paper.service.limit_s = 0.1
    paper.lobby.take_s["new"] = 0.5
    assert client.post("new --name=late")[0] == 504
    wait_until(lambda: paper.service.names() == ["late"])


def test_the_lexer_and_help(client, paper):
    assert lex("ssh my-vm 'cd /srv && ls | head -3'") == ["ssh", "my-vm", "cd /srv && ls | head -3"]
    assert lex('ssh my-vm "echo \'hello world\'"')[2] == "echo 'hello world'"
    assert lex("ssh my-vm 'printf '\\''%s\\n'\\'' \"it'\\''s ready\"'")[2] == \
        "printf '%s\\n' \"it's ready\""
    assert lex('a "x\\"y\\$\\z" b\\ c; d') == ["a", 'x"y$\\z', "b c;", "d"]
    for bad in ("'", '"x', "x\\", "  "):
        with pytest.raises(Malformed):
            lex(bad)
    assert client.post("new --help")[0] == 200
    assert client.post("new -name a -no-email")[0] == 200
    assert paper.service.names() == ["a"]


def test_names_and_readiness(paper, client):
    paper.lobby.foreign_names.add("taken")
    assert client.error("new --name=taken") == (422, "this VM name is not available")
    paper.lobby.digits_refused = True
    assert client.post("new --name=web-1")[0] == 422
    paper.lobby.not_ready_s = 3600
    assert client.post("new --name=web")[0] == 200
    assert json.loads(client.post("ls web")[1])["vms"][0]["status"] == "running"
    assert json.loads(client.post("ls x*")[1])["vms"] == []
    assert "failed to connect" in client.error("share port web 80")[1]
    paper.lobby.vms["web"].ready_at = time.monotonic()
    assert client.post("share port web 80")[0] == 200


@pytest.mark.parametrize("retry", [None, 7])
def test_too_many(paper, client, retry):
    paper.service.rate, paper.service.retry = (0.001, 2), retry
    assert [client.post("whoami")[0] for _ in range(3)] == [200, 200, 429]
    connection = client.connect()
    connection.request("POST", "/exec", b"whoami", {"Authorization": f"Bearer {client.token}"})
    assert connection.getresponse().headers.get("Retry-After") == (str(retry) if retry else None)
    other = Client(paper, paper.service.tokens.grant("exe1.o", ACCOUNT, ALL))
    assert other.post("whoami")[0] == 200       # the limit is a key's


def test_a_second_new_after_a_lost_answer(paper, client):
    faults = ["lose"]
    paper.service.fault = lambda path: faults.pop() if faults else None
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError, ssl.SSLError)):
        client.post("new --name=web")
    client.connect()
    assert client.error("new --name=web") == (422, "this VM name is not available")


# --- SSH ------------------------------------------------------------------------------------

def ssh(cloud, guest, *args, user="whoever", key=None, **kwargs):
    return subprocess.run(["ssh", "-F", "none", "-p", str(guest.port), "-i", key or cloud.key,
                           "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o",
                           f"UserKnownHostsFile={cloud.front.known_hosts()}", f"{user}@localhost",
                           *args], capture_output=True, timeout=100, **kwargs)


@pytest.fixture
def guest(cloud):
    Client(cloud).post("new --name=web --env=A=b")
    return cloud.lobby.vms["web"].guest


def test_one_host_key_and_keys_of_the_account(cloud, guest):
    assert ssh(cloud, guest, "echo hello").stdout == b"hello\n"
    assert ssh(cloud, guest, "true", key=cloud.new_key("stranger")).returncode == 255
    Client(cloud).post("new --name=other")
    assert ssh(cloud, cloud.lobby.vms["other"].guest, "true").returncode == 0


@pytest.fixture
def door(cloud):
    door = Door(cloud.front, cloud.service)
    yield door
    door.close()


def test_the_lobby_over_ssh(cloud, door):
    """The same commands: text for people unless --json, exit status 0 or 1, one host key."""
    done = ssh(cloud, door, "new --name=web")
    assert done.returncode == 0 and b"Creating web using image exeuntu..." in done.stdout
    assert b"ssh web.exe.xyz" in done.stdout
    assert ssh(cloud, door, "ls").stdout == b"web  running\n"
    assert json.loads(ssh(cloud, door, "ls", "--json").stdout)["vms"][0]["vm_name"] == "web"
    assert ssh(cloud, door, "whoami").stdout == b"Email Address: ann@example.org\n"
    done = ssh(cloud, door, "new --json --name=web")
    assert done.returncode == 1
    assert json.loads(done.stdout) == {"error": "this VM name is not available"}
    done = ssh(cloud, door, "rm nobody")
    assert (done.returncode, done.stdout) == (1, b"VM 'nobody' not found\n")
    assert ssh(cloud, door, "nonsense").returncode == 1
    assert ssh(cloud, door, "comment web \"it's mine\"").returncode == 0
    assert cloud.lobby.vms["web"].comment == "it's mine"


def test_the_lobby_knows_accounts_by_their_key(cloud, door):
    bob = cloud.new_key("bob", "rsa", "-b", "2048", "-N", "")
    cloud.service.tokens.register(cloud.public(bob), "bob@example.org")
    assert ssh(cloud, door, "new --name=web").returncode == 0
    assert ssh(cloud, door, "whoami", key=bob).stdout == b"Email Address: bob@example.org\n"
    assert ssh(cloud, door, "ls", key=bob).stdout == b""
    assert ssh(cloud, door, "rm web", key=bob).returncode == 1
    stranger = cloud.new_key("stranger")
    assert ssh(cloud, door, "ls", key=stranger).returncode == 255
    door.strangers.append(" ".join(cloud.public(stranger).split()[:2]))
    done = ssh(cloud, door, "ls", key=stranger)
    assert done.returncode == 1 and b"complete registration by running: ssh exe.dev" in done.stdout
    assert cloud.service.names() == ["web"]


def test_the_lobby_has_no_sftp_and_no_forwarding(cloud, door):
    sftp = subprocess.run(["sftp", "-q", "-F", "none", "-P", str(door.port), "-i", cloud.key, "-o",
                           f"UserKnownHostsFile={cloud.front.known_hosts()}", "localhost"],
                          input=b"ls /etc/passwd\n", capture_output=True, timeout=100)
    assert sftp.returncode != 0 and b"/etc/passwd" not in sftp.stdout
    assert not ssh(cloud, door, "-W", f"localhost:{door.port}", input=b"").stdout


def test_streams_status_sftp_forwarding(cloud, guest):
    done = ssh(cloud, guest, "echo out; echo err >&2; exit 7")
    assert (done.stdout, done.stderr.splitlines()[-1], done.returncode) == (b"out\n", b"err", 7)
    for user in ("root", "exedev", "vm+web"):
        assert ssh(cloud, guest, "echo", user=user).returncode == 0
    sftp = subprocess.run(["sftp", "-q", "-F", "none", "-P", str(guest.port), "-i", cloud.key, "-o",
                           f"UserKnownHostsFile={cloud.front.known_hosts()}", "localhost"],
                          input=b"ls /etc/passwd\n", capture_output=True, timeout=100)
    assert b"/etc/passwd" in sftp.stdout
    # -W: the service's own port, forwarded through it
    out = ssh(cloud, guest, "-W", f"localhost:{guest.port}", input=b"")
    assert out.stdout.startswith(b"SSH-2.0-")


def test_an_exit_signal(cloud, guest):
    done = ssh(cloud, guest, "-v", "kill -KILL $$")
    assert done.returncode == 255 and b"rtype exit-signal" in done.stderr


def test_one_user_name_where_the_name_routes(cloud):
    """The variant in which `new` tells an ssh_user."""
    cloud.front.user = "vm"
    new = json.loads(Client(cloud).post("new --name=web")[1])
    assert new["ssh_user"] == "vm+web"
    guest = cloud.lobby.vms["web"].guest
    assert ssh(cloud, guest, "echo hello", user="vm+web").stdout == b"hello\n"
    assert ssh(cloud, guest, "echo hello", user="vm+other").returncode == 255


def test_bursts_are_dropped_not_refused(cloud, guest):
    front = cloud.front
    front.burst, front.burst_s, front.ban_s = 3, 10, 3600

    def connect(seconds):
        return socket.create_connection(("127.0.0.1", guest.port), seconds)

    knocks = [connect(60) for _ in range(4)]
    banners = [knock.recv(4) for knock in knocks[:3]]
    wait_until(lambda: front.bans == 1 and guest.deaf)  # the fourth was one too many
    with pytest.raises(TimeoutError):                       # a SYN that nobody answers
        connect(0.5)
    front.burst = None
    front.ban(False)
    with connect(60) as again:
        assert again.recv(4) == b"SSH-"
    assert banners == [b"SSH-"] * 3
    for knock in knocks:
        knock.close()


def test_the_login_user_and_its_environment(cloud, guest):
    """--env is for login shells alone; a command is none."""
    assert ssh(cloud, guest, "echo x${A}x").stdout == b"xx\n"
    assert ssh(cloud, guest, "sh -lc 'echo x${A}x'").stdout == b"xbx\n"
    done = ssh(cloud, guest, "echo $LOGNAME; pwd -P; cd; pwd -P", user="exedev")
    assert done.stdout.split()[0] == b"exedev"
    assert done.stdout.split()[-1].decode() == str(guest.disk)
