"""idle.py SECONDS LOG SERVER: relay an SFTP server, and end it when it has been idle so long.

LOG gets a line then.
"""

import os
import select
import subprocess
import sys

patience = float(sys.argv[1])
server = subprocess.Popen(sys.argv[3:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
routes = {0: server.stdin.fileno(), server.stdout.fileno(): 1}
while True:
    ready = select.select(list(routes), [], [], patience)[0]
    if not ready:
        server.kill()
        with open(sys.argv[2], "a") as log:
            log.write("closed\n")
        sys.exit(0)
    for fd in ready:
        data = os.read(fd, 65536)
        if not data:
            server.kill()
            sys.exit(0)
        view = memoryview(data)
        while view:
            view = view[os.write(routes[fd], view):]
