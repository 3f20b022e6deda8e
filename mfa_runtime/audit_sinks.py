"""Where audit events go beside the store: a file of JSON lines, stderr, syslog.

Room rule: sinks receive canonical texts (one ASCII line each) after their commit. The store is the record; a sink that fails is
reported once and tried again, and never refuses a login.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

Sink = Callable[[Sequence[str]], None]

STDERR = Path("-")
SYSLOG_SOCKET = "/dev/log"
_SYSLOG_HEAD = b"<86>mfad: "
"""Facility authpriv (10), level info (6): RFC 3164 section 4.1.1."""

log = logging.getLogger(__name__)


def no_sink(lines: Sequence[str]) -> None:
    """Keep events in the store only."""


class JsonLines:
    """Appends to a file, opened anew when it was rotated away."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._broken = False

    def __call__(self, lines: Sequence[str]) -> None:
        """Append the lines with one write."""
        try:
            if self._fd < 0 or self._was_moved():
                self._open()
            os.write(self._fd, ("\n".join(lines) + "\n").encode("ascii"))
            self._broken = False
        except OSError as err:
            if not self._broken:
                log.error("%s: audit events cannot be appended (they are in the store): %s", self._path, err.strerror)
            self._broken = True
            self.close()

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _was_moved(self) -> bool:
        try:
            return self._path.stat().st_ino != os.fstat(self._fd).st_ino
        except FileNotFoundError:
            return True

    def _open(self) -> None:
        self.close()
        # Non-blocking, for a queue that nobody reads: the thread that commits must not wait for it.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        self._fd = os.open(self._path, flags, 0o600)


def write_stderr(lines: Sequence[str]) -> None:
    """Write the lines to stderr."""
    try:
        sys.stderr.write("\n".join(lines) + "\n")
    except (OSError, ValueError):  # nobody reads it, or it is closed: there is nowhere left to say so
        return


class Syslog:
    """Sends each event as one message of facility authpriv. A full or absent socket loses the copy, not the event.

    Never waits: the thread that commits calls it, and a syslog daemon that reads no more would stop every login. (The handler
    of :mod:`logging` has a blocking socket.)
    """

    def __init__(self, address: str = SYSLOG_SOCKET) -> None:
        self._address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        self._broken = False

    def __call__(self, lines: Sequence[str]) -> None:
        """Send the lines."""
        for line in lines:
            try:
                self._socket.sendto(_SYSLOG_HEAD + line.encode("ascii"), self._address)
                self._broken = False
            except OSError as err:
                if not self._broken:
                    log.error("%s: audit events are lost to syslog (they are in the store): %s", self._address, err.strerror)
                self._broken = True

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def open_sink(*, json_file: Path | None, syslog: bool) -> Sink:
    """The sinks that a configuration names, as one."""
    sinks: list[Sink] = []
    if json_file is not None:
        sinks.append(write_stderr if json_file == STDERR else JsonLines(json_file))
    if syslog:
        sinks.append(Syslog())
    return join(sinks)


def join(sinks: Sequence[Sink]) -> Sink:
    """One sink that feeds all of them."""
    if not sinks:
        return no_sink

    def feed(lines: Sequence[str]) -> None:
        for sink in sinks:
            sink(lines)

    return feed if len(sinks) > 1 else sinks[0]
