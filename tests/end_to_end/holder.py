"""Holds a mount namespace open, and is its syslog: run by host.py, never imported.

Appends what arrives at /dev/log to the file that is named, a line each, until its standard input ends: then the tests are over,
however they ended.
"""

import os
import selectors
import socket
import sys


def main() -> None:
    """Listen, say ready, write."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log, open(sys.argv[1], "ab", buffering=0) as file:
        log.bind("/dev/log")
        os.chmod("/dev/log", 0o666)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        waiting = selectors.DefaultSelector()
        waiting.register(log, selectors.EVENT_READ)
        waiting.register(sys.stdin, selectors.EVENT_READ)
        while True:
            for key, _ in waiting.select():
                if key.fileobj is not log:
                    return
                file.write(log.recv(65_536).rstrip(b"\0\n") + b"\n")


main()
