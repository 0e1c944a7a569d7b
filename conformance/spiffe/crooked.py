"""A process that is not what it was when it connected. Python's own modules alone.

`MODE SOCKET REQUEST [PROGRAM]`: connects, then has REQUEST (bytes of HTTP/2 in hex) sent
  `straight`: by itself;
  `inherited`: by a child that inherited the connection, while the parent waits;
  `orphaned`: by such a child, once the parent is gone;
  `replaced`: by PROGRAM, which takes this process's place (exec).
Prints as JSON whether any message came back, and whether the connection was closed.
"""

import json
import os
import socket
import sys

PATIENCE_SECONDS = 10


def send(connection, request):
    messages, closed, taken = False, False, b""
    connection.settimeout(PATIENCE_SECONDS)
    try:
        connection.sendall(bytes.fromhex(request))
        while not messages and not closed:
            received = connection.recv(65536)
            closed = not received
            taken += received
            while len(taken) >= 9 and len(taken) >= 9 + int.from_bytes(taken[:3], "big"):
                length, kind, flags = int.from_bytes(taken[:3], "big"), taken[3], taken[4]
                messages |= kind == 0 and length > 0
                closed |= kind == 7 or (kind == 1 and flags & 1 == 1)  # GOAWAY, or headers that end the stream
                taken = taken[9 + length :]
    except OSError:
        closed = True
    print(json.dumps({"messages": messages, "closed": closed}), flush=True)


def main(mode, path, request, program=None):
    if mode == "second":
        return send(socket.socket(fileno=int(path)), request)
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    if mode == "straight":
        return send(connection, request)
    if mode == "replaced":
        os.set_inheritable(connection.fileno(), True)
        environment = {"PYTHONHOME": sys.base_prefix, "PATH": os.environ["PATH"]}
        script = [program, os.path.abspath(__file__), "second", str(connection.fileno()), request]
        return os.execve(program, script, environment)
    parent = os.getpid()
    there, go = os.pipe()
    if os.fork() == 0:
        if mode == "orphaned":
            os.close(go)
            os.read(there, 1)  # the end of the pipe is the parent's end
            while os.getppid() == parent:
                pass
        send(connection, request)
        os._exit(0)
    if mode == "orphaned":
        os._exit(0)
    os.wait()
    return None


main(*sys.argv[1:])
