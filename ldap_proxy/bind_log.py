"""What is written about each bind, for people and for log collectors?

Room rule: one JSON object a line, with the same keys whatever happened, and nothing of a credential in it. Lines are gathered
on the loop and written by a thread, so that a slow disk holds nobody up; what does not fit is counted, and said in the next
line. So is what is more than enough: anybody may be refused, as often as he likes, and must not fill the disk by it.
"""

from __future__ import annotations

import json
import logging
import os
import select
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Final

from ldap_proxy.results import Outcome

MAX_WAITING_OCTETS: Final = 16 * 1024 * 1024
"""Of lines that wait for the disk: some 40,000."""
MAX_LINE: Final = 4096
"""Octets of one line: what a pipe takes at once (PIPE_BUF). Two names as long as they may be leave room for all else."""
_MAX_NAME: Final = 1300
"""Octets of a DN or a user name as it is written; of a longer one, which nobody has, the first ``_CUT_TO`` characters are."""
_CUT_TO: Final = 100
OTHERS_PER_S: Final = 200.0
"""Lines of binds that let nobody in, in the long run; of each process."""
OTHERS_AT_ONCE: Final = 1000.0
"""Of these, after a quiet time."""
_LETS_IN: Final = frozenset({Outcome.ACCEPTED, Outcome.EXEMPT})
"""What takes a credential: all else, anonymous binds too, can be had without one."""
WRITE_EVERY_S: Final = 0.25
STUCK_S: Final = 5.0
"""How long standard error may take nothing, and how long a stop waits for what is still to be written."""
_STDERR: Final = 2
_quoted: Final = json.encoder.encode_basestring_ascii
"""Into ASCII: a line holds whatever a client sent as a name, and must stay one line for every reader."""

log = logging.getLogger(__name__)


class BindLog:
    """Appends to ``path``, which the user of mfad alone can read; "-" is stderr, None nowhere. One thread of its own.

    ``clock`` is Unix seconds.
    """

    def __init__(self, path: Path | None, *, clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        self._lines: deque[tuple[Path, bytes]] = deque()
        self._added = 0
        self._written = 0
        """Octets, each counted by one thread alone: the loop's and the writer's."""
        self._left_out = 0
        self._others_left = OTHERS_AT_ONCE
        self._others_at = clock()
        self._second = -1
        self._second_text = ""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="bind-log", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def write(
        self,
        *,
        event: str,
        listener: str,
        application: str,
        source: str,
        dn: str,
        user: str,
        way: str,
        outcome: str,
        reason: str,
        code: int,
        server: str,
        directory_s: float,
        took_s: float,
    ) -> None:
        """Add the line of one bind; of those that let nobody in only so many. Never blocks.

        ``directory_s`` of ``took_s`` seconds it waited for the directory.
        The keys are not gathered in a dict: that, and what json makes of it, took longer than a service account's whole bind.
        """
        path = self._path
        if path is None:
            return
        if self._added - self._written >= MAX_WAITING_OCTETS or (outcome not in _LETS_IN and not self._has_room()):
            self._left_out += 1
            return
        before = ""
        if self._left_out:
            before, self._left_out = f', "lines_left_out_before": {self._left_out}', 0
        line = (
            f'{{"time": "{self._now()}", "kind": "bind", "event": {_quoted(event)}, "listener": {_quoted(listener)}, '
            f'"application": {_quoted(application)}, "source": {_quoted(source)}, "dn": {_name(dn)}, "user": {_name(user)}, '
            f'"way": {_quoted(way)}, "outcome": {_quoted(outcome)}, "reason": {_quoted(reason)}, "code": {code:d}, '
            f'"server": {_quoted(server)}, "directory_ms": {directory_s * 1000:.2f}, '
            f'"milliseconds": {took_s * 1000:.2f}{before}}}\n'
        ).encode()
        self._added += len(line)
        self._lines.append((path, line))

    def _has_room(self) -> bool:
        """Take room for a line that let nobody in, if there is any. A clock that is set back brings none."""
        now = self._clock()
        left = min(OTHERS_AT_ONCE, self._others_left + max(0.0, now - self._others_at) * OTHERS_PER_S)
        self._others_at = now
        self._others_left = left - 1 if left >= 1 else left
        return left >= 1

    def use(self, path: Path | None) -> None:
        """Write to ``path`` what is added from now on."""
        self._path = path

    def close(self) -> None:
        """Write what waits, then end; a reader of stderr that takes nothing is waited for only so long."""
        self._stopping.set()
        if self._thread.ident is None:
            return
        self._thread.join(2 * STUCK_S)
        if self._thread.is_alive():
            log.error("the bind log takes nothing: %d lines are lost", len(self._lines))

    def _now(self) -> str:
        now = self._clock()
        second = int(now)
        if second != self._second:
            self._second, self._second_text = second, datetime.fromtimestamp(second, UTC).isoformat()[:-6]
        return f"{self._second_text}.{int((now - second) * 1000):03d}+00:00"

    def _work(self) -> None:
        while not self._stopping.wait(WRITE_EVERY_S):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        if not self._lines:
            return
        waiting = [self._lines.popleft() for _ in range(len(self._lines))]
        for path, group in groupby(waiting, itemgetter(0)):
            lines = [line for _, line in group]
            try:
                if str(path) == "-":
                    _to_stderr(lines)
                else:
                    _to_file(path, lines)
            except OSError as err:
                log.error("the bind log %s cannot be written: %s; up to %d lines are lost", path, err, len(lines))
            self._written += sum(map(len, lines))


def _name(text: str) -> str:
    quoted = _quoted(text)
    return quoted if len(quoted) <= _MAX_NAME else _quoted(f"{text[:_CUT_TO]}...")


def _to_file(path: Path, lines: list[bytes]) -> None:
    # Opened for each write: whoever rotates the file needs to tell nobody.
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(b"".join(lines))
        while view:
            view = view[os.write(descriptor, view) :]
    finally:
        os.close(descriptor)


def _to_stderr(lines: list[bytes]) -> None:
    """Whole lines in each write, none longer than what a pipe takes at once: several processes share it."""
    ready = select.poll()
    ready.register(_STDERR, select.POLLOUT)
    for part in _parts(lines):
        view = memoryview(part)
        while view:
            if not ready.poll(STUCK_S * 1000):
                raise TimeoutError(f"nobody has read it for {STUCK_S:.0f} s")
            view = view[os.write(_STDERR, view) :]


def _parts(lines: Iterable[bytes]) -> Iterator[bytes]:
    part = b""
    for line in lines:
        if part and len(part) + len(line) > MAX_LINE:
            yield part
            part = b""
        part += line
    if part:
        yield part
