"""The lobby's SSH side: `ssh exe.dev COMMAND`, for the keys of all accounts.

An `sshd -i` a connection, with the host key that all VMs have too. Whatever a key asks for
runs this file as a program (a forced command): door.py SOCKET ACCOUNT, which hands the line to
the command engine in the tests' process and ends with its status. There is no shell, no
SFTP, no forwarding. A key that no account has is asked to register (it must be told of
here, since sshd asks a program for unknown keys only if nobody but root could write it).
"""

import json
import os
import socket
import subprocess
import sys
import threading

REGISTER = """\
Please complete registration by running: ssh exe.dev
Please enter your email address:
"""

CONFIG = """\
HostKey {host_key}
AuthorizedKeysFile {keys}
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PidFile none
"""


class Door:
    def __init__(self, front, service):
        self.front, self.service = front, service
        self.strangers = []
        self.keys = front.folder / "lobby_keys"
        self.config = front.folder / "lobby.conf"
        self.config.write_text(CONFIG.format(host_key=front.host_key, keys=self.keys))
        self.path = str(front.folder / "lobby.sock")
        self.asked = socket.socket(socket.AF_UNIX)
        self.asked.bind(self.path)
        self.sock = socket.socket()
        self.sock.bind(("127.0.0.1", 0))
        self.port = self.sock.getsockname()[1]
        self.processes = []
        for sock, work in ((self.asked, self.answer), (self.sock, self.serve)):
            sock.listen(16)
            threading.Thread(target=self.accept, args=[sock, work], daemon=True).start()

    def accept(self, sock, work):
        while True:
            try:
                conn, _ = sock.accept()
            except OSError:
                return
            with conn:
                work(conn)

    def serve(self, conn):
        """A connection: who may come is written down for it alone."""
        lines = [f'restrict,command="/usr/bin/python3 -B {__file__} {self.path} {account}" {key}\n'
                 for key, account in self.service.tokens.keys.items()]
        lines += [f'restrict,command="/usr/bin/python3 -B {__file__}" {key}\n'
                  for key in self.strangers]
        self.keys.write_text("".join(lines))
        env = dict(os.environ, LD_PRELOAD=str(self.front.shim))
        self.processes.append(subprocess.Popen(
            ["nice", "/usr/sbin/sshd", "-i", "-f", self.config, "-E", f"{self.config}.log"],
            stdin=conn, stdout=conn, stderr=subprocess.DEVNULL, env=env))

    def answer(self, conn):
        account, line = json.loads(conn.makefile().readline())
        conn.sendall(json.dumps(self.service.lobby.run_over_ssh(account, line)).encode())

    def close(self):
        for sock in (self.sock, self.asked):
            sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for process in self.processes:
            process.kill()
            process.wait(20)


def main():
    if len(sys.argv) < 3:
        print(REGISTER, end="")
        return 1
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(sys.argv[1])
        s.sendall(json.dumps([sys.argv[2], os.environ.get("SSH_ORIGINAL_COMMAND", "help")])
                  .encode() + b"\n")
        text, status = json.load(s.makefile())
    print(text, end="")
    return status


if __name__ == "__main__":
    sys.exit(main())
