"""The stand-in's HTTPS side: POST /exec, statuses, limits, faults, counters.

Faults are asked of Service.fault(path) for each request that would run a command:
	None
	"refuse"	the connection is closed before anything is run
	"lose"		it runs, and the connection is closed instead of an answer
	"reset"		the same by a reset
	"cut"		it runs, and the answer breaks off in its body
	"garbled"	it runs, and the answer is half of its JSON, well delivered
	"500", "500-run"	status 500 without, or after, running it
	"late"		504 at once; it runs to its end behind
	"late-never"	504, and it never runs
	"slow"		the body comes byte by byte
	"302"		sent elsewhere
	a tuple (status, text)	that error
"""

import atexit
import functools
import http.server
import select
import shutil
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
import time
from email.utils import formatdate
from pathlib import Path

from lobby import Denied, Lobby, Malformed, Refused, Unknown, lex, render
from tokens import BadToken, Tokens

BODY_MAX = 65536
ORDER = (413, 401, 400, 404, 403)       # not known of the service: a switch


class TooLarge(Exception):
    """HTTP 413."""


@functools.cache
def certificates():
    """The folder of a CA of our own and a certificate for localhost, for all services."""
    folder = Path(tempfile.mkdtemp(prefix="sbxfs-exe-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)

    def openssl(*args):
        subprocess.run(["openssl", *map(str, args)], check=True, cwd=folder,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-days", 30, "-subj", "/CN=a CA for tests", "-keyout", "ca.key", "-out", "ca.pem")
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
            "/CN=localhost", "-keyout", "server.key", "-out", "server.csr")
    (folder / "ext").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
            "-CAcreateserial", "-days", 30, "-extfile", "ext", "-out", "server.pem")
    return folder


class Bucket:
    """429: so many requests a second, and a burst, of which so many are left."""

    def __init__(self, rate, burst, left=None):
        self.rate, self.burst, self.when = rate, burst, time.monotonic()
        self.level = burst if left is None else left

    def take(self):
        now = time.monotonic()
        self.level = min(self.burst, self.level + (now - self.when) * self.rate)
        self.when = now
        if self.level < 1:
            return False
        self.level -= 1
        return True


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request, client_address):
        pass


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self):
        if self.service.tls:
            self.request = self.service.tls.wrap_socket(self.request, server_side=True)
        super().setup()
        with self.service.lock:
            self.service.connections += 1

    def log_message(self, *args):
        pass

    def answer(self, status, body, headers=()):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if self.slow:
            for i in range(len(body)):
                self.wfile.write(body[i:i + 1])
                time.sleep(0.002)
        else:
            self.wfile.write(body)

    def error(self, status, text, headers=()):
        self.answer(status, render({"error": text}), headers)

    def take_body(self):
        return self.rfile.read(min(int(self.headers.get("Content-Length") or 0), 1 << 20))

    def do_other(self):
        self.slow = False
        self.take_body()
        self.error(405, "method not allowed")

    do_GET = do_PUT = do_DELETE = do_HEAD = do_PATCH = do_other

    def hang_up(self, reset=False):
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                       struct.pack("ii", 1, 0))
        self.close_connection = True
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.connection.close()

    # --- a request ------------------------------------------------------------------

    def do_POST(self):
        self.slow = False
        with self.service.lock:
            self.service.requests += 1
        if self.path != self.service.path:
            self.take_body()
            self.error(404, "not found")
            return
        body = self.take_body()
        try:
            who = self.check(body)
            if who is not None:
                self.execute(who, body)
        except TooLarge as e:
            self.error(413, str(e), [("Connection", "close")])
        except BadToken as e:
            self.error(401, str(e))
        except Malformed as e:
            self.error(400, str(e))
        except Unknown as e:
            self.error(200 if "unknown-200" in self.service.lobby.odd else 404, str(e))
        except Denied as e:
            self.error(403, str(e))
        except Refused as e:
            self.error(422, str(e))
        except (ConnectionError, ssl.SSLError, OSError):
            self.close_connection = True

    def check(self, body):
        """Who it is, or None where 429 was the answer; the checks in the service's order."""
        service, who = self.service, None
        for status in service.order:
            if status == 413 and len(body) > BODY_MAX:
                raise TooLarge("request body too large")
            if status == 401:
                who = service.tokens.check(self.headers.get("Authorization"))
                if not service.take(who.key):
                    with service.lock:
                        service.limited += 1
                    self.error(429, "rate limit exceeded", service.retry_after())
                    return None
            if status in (400, 403, 404):
                self.check_line(status, body.decode("utf-8", "replace"))
        return who

    def check_line(self, status, line):
        """One of them; what it needs to know and cannot, since that is wrong too, passes."""
        words, lobby = [], self.service.lobby
        try:
            words = lex(line)
        except Malformed:
            if status == 400:
                raise
            return
        try:
            path, _ = lobby.command_of(words)
        except Unknown:
            if status == 404:
                raise
            path = " ".join(words[:1])
        if status == 403:
            try:
                who = self.service.tokens.check(self.headers.get("Authorization"))
            except BadToken:
                return
            if not who.allows(path, words):
                raise Denied("command not allowed by token permissions")

    def execute(self, who, body):
        line = body.decode("utf-8", "replace")
        words = lex(line)
        path, _ = self.service.lobby.command_of(words)
        fault = None if "--help" in words else self.service.fault_of(path, words)
        if fault in ("refuse", "500", "late-never", "302") or isinstance(fault, tuple):
            self.fail_before(fault)
            return
        if path == "ssh" and "--help" not in words:
            self.stream(who, words)
            return
        if fault == "late":
            threading.Thread(target=self.behind, args=(who, line), daemon=True).start()
            self.error(504, "command timed out")
            return
        answer = self.within_limit(who, line)
        if answer is not None:
            self.deliver(answer, fault)

    def fail_before(self, fault):
        if fault == "refuse":
            self.hang_up()
        elif fault == "302":
            self.answer(302, b"", [("Location", "http://127.0.0.1:1/elsewhere")])
        elif isinstance(fault, tuple):
            self.error(*fault)
        else:
            self.error(500 if fault == "500" else 504, "internal error")

    def behind(self, who, line):
        time.sleep(self.service.late_s)
        try:
            self.service.lobby.run(who.account, line, who.scope, who.allows)
        except (Refused, Denied):
            pass

    def within_limit(self, who, line):
        """The answer; at the time limit 504, and the command goes on."""
        result = {}

        def work():
            try:
                result["answer"] = self.service.lobby.run(who.account, line, who.scope, who.allows)
            except Exception as e:
                result["error"] = e

        if not self.service.limit_s:
            work()
        else:
            thread = threading.Thread(target=work, daemon=True)
            thread.start()
            thread.join(self.service.limit_s)
            if thread.is_alive():
                self.error(504, "command timed out")
                return None
        if "error" in result:
            raise result["error"]
        return render(result["answer"])

    def deliver(self, body, fault):
        if fault in ("lose", "reset"):
            self.hang_up(fault == "reset")
        elif fault == "cut":
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:len(body) // 2])
            self.wfile.flush()
            self.hang_up()
        elif fault == "500-run":
            self.error(500, "internal error")
        else:
            self.slow = fault == "slow"
            self.answer(200, body[:len(body) // 2] if fault == "garbled" else body)

    # --- ssh VM COMMAND ------------------------------------------------------------------

    def stream(self, who, words):
        lobby = self.service.lobby
        if not who.allows("ssh", words):
            raise Denied("command not allowed by token permissions")
        if len(words) < 2:
            raise Refused("VM name is required")
        vm = lobby.find(who.account, who.scope, words[1])
        lobby.count["ssh"] = lobby.count.get("ssh", 0) + 1
        if time.monotonic() < vm.ready_at:
            raise Refused("failed to connect to VM")
        process = vm.guest.run(" ".join(words[2:]))
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        if "no-trailer-header" not in lobby.odd:
            self.send_header("Trailer", "X-Exe-Exit")
        self.end_headers()
        sent, end = 0, time.monotonic() + (self.service.stream_limit_s or 1e6)
        while select.select([process.stdout], [], [], end - time.monotonic())[0]:
            chunk = process.stdout.read1(65536)
            if not chunk:
                break
            self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            self.wfile.flush()
            sent += len(chunk)
            if self.service.cut_stream_at and sent >= self.service.cut_stream_at:
                self.hang_up()
                return
        else:
            self.hang_up()
            return
        status = process.wait()
        status = 128 - status if status < 0 else status
        trailer = b"" if "no-trailer" in lobby.odd else b"X-Exe-Exit: %d\r\n" % status
        self.wfile.write(b"0\r\n" + trailer + b"\r\n")


class Service:
    """The whole stand-in: state, tokens, HTTPS. Guests are the caller's (Lobby.make_guest)."""

    def __init__(self, make_guest=None, tls=True):
        self.lock = threading.Lock()
        self.lobby = Lobby(make_guest)
        self.tokens = Tokens()
        self.fault = lambda path: None
        self.fault_of = lambda path, words: self.fault(path)
        self.rate = None                # (requests a second, burst[, left of it])
        self.retry = None               # what Retry-After tells
        self.buckets = {}
        self.path = "/exec"             # elsewhere there is nothing
        self.order = ORDER              # in which a request is checked
        self.limit_s = None             # 504 after that
        self.late_s = 0.05
        self.cut_stream_at = None
        self.stream_limit_s = None      # so long `ssh VM COMMAND` is listened to
        self.requests = self.connections = self.limited = 0
        self.ca = certificates() / "ca.pem" if tls else None
        self.tls = None
        if tls:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(certificates() / "server.pem", certificates() / "server.key")
        handler = type("BoundHandler", (Handler,), {"service": self})
        self.server = Server(("127.0.0.1", 0), handler)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=[0.05], daemon=True)
        self.thread.start()

    @property
    def url(self):
        return f"http{'s' if self.tls else ''}://localhost:{self.port}/exec"

    def take(self, key):
        if not self.rate:
            return True
        with self.lock:
            return self.buckets.setdefault(key, Bucket(*self.rate)).take()

    def retry_after(self):
        """Seconds, or "date": the same as a date, two seconds from now."""
        if self.retry is None:
            return []
        return [("Retry-After", formatdate(time.time() + 2, usegmt=True) if self.retry == "date"
                 else str(self.retry))]

    def names(self, account=None):
        with self.lobby.lock:
            return sorted(n for n, vm in self.lobby.vms.items() if account in (None, vm.account))

    def counts(self):
        with self.lobby.lock:
            return dict(self.lobby.count)

    def close(self):
        self.server.shutdown()
        self.server.server_close()

