"""What is written about each request, for people and for log collectors?

Room rule: one JSON object a line, with the same keys whatever happened; no password, no code, no State. Lines are gathered on
the loop and written by a thread, so that a slow disk holds nobody up; what does not fit is counted, and said in the next line.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

MAX_WAITING = 50_000
"""Lines that may wait for the disk: about 15 MB."""
WRITE_EVERY_S = 0.25

log = logging.getLogger(__name__)


class AuthenticationLog:
    """Appends to ``path``; "-" is stderr. One thread of its own."""

    def __init__(self, path: Path, *, clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        self._lines: deque[str] = deque()
        self._left_out = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="authentication-log", daemon=True)
        self._thread.start()

    def write(self, **fields: object) -> None:
        """Add one line; ``time`` is put before the fields, as RFC 3339 in UTC. Never blocks."""
        if len(self._lines) >= MAX_WAITING:
            self._left_out += 1
            return
        if self._left_out:
            fields["lines_left_out_before"], self._left_out = self._left_out, 0
        moment = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds")
        # ASCII: a line holds whatever a client sent as a user name, and must stay one line for every reader.
        self._lines.append(json.dumps({"time": moment, **fields}, ensure_ascii=True) + "\n")

    def close(self) -> None:
        """Write what waits, then end."""
        self._stopping.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._stopping.wait(WRITE_EVERY_S):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        if not self._lines:
            return
        text = "".join([self._lines.popleft() for _ in range(len(self._lines))])
        try:
            # Opened for each write: whoever rotates the file needs to tell nobody.
            descriptor = 2 if str(self._path) == "-" else os.open(
                self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640
            )
            try:
                _write_all(descriptor, text.encode())
            finally:
                if descriptor != 2:
                    os.close(descriptor)
        except OSError as err:
            log.error("the authentication log %s cannot be written: %s; %d lines are lost", self._path, err, text.count("\n"))


def _write_all(descriptor: int, octets: bytes) -> None:
    view = memoryview(octets)
    while view:
        view = view[os.write(descriptor, view) :]
