# Does what it is told, line by line, and says what came of it as Python's own library tells it.
import os
import socket
import sys


def write(path):
    with open(path, "w") as f:
        f.write("x" * 100000)
    return "%d bytes" % os.path.getsize(path)


def sync(path):
    with open(path, "a") as f:
        f.write("x")
        f.flush()
        os.fsync(f.fileno())
    return "synced"


def read(path):
    with open(path) as f:
        return "%d bytes" % len(f.read())


def read_once(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        return "%d bytes" % len(os.read(fd, 1000))
    finally:
        os.close(fd)


def dial(port):
    socket.create_connection(("127.0.0.1", int(port)), 60).close()
    return "connected"


for line in sys.stdin:
    what, argument = line.split()
    try:
        said = globals()[what](argument)
    except OSError as e:
        said = "%s: %s" % (type(e).__name__, e)
    print(said, flush=True)
