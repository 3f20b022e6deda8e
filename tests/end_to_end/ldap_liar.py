"""What does the door do behind a directory that lies? A directory of the test's own, which says what the test makes it say."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tests.end_to_end.ldap_wire import (
    BIND_REQUEST,
    BIND_RESPONSE,
    EXTENDED_REQUEST,
    EXTENDED_RESPONSE,
    SEARCH_DONE,
    SEARCH_REQUEST,
    UNBIND_REQUEST,
    WHOAMI,
    Pdu,
    entry,
    octets,
    result,
    whole,
)


@dataclass(slots=True)
class Line:
    """One connection of the door to the liar. ``bound`` is the name of its last bind."""

    socket: socket.socket
    bound: str = ""
    requests: list[Pdu] = field(default_factory=list)

    def send(self, *pieces: bytes) -> None:
        self.socket.sendall(b"".join(pieces))

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)


Behaviour = Callable[[Line, Pdu], Iterable[bytes] | None]
"""What to answer to one request; None: as :func:`honest` does."""


def honest(line: Line, request: Pdu) -> Iterable[bytes]:
    """A directory that believes everybody and has one entry."""
    match request.tag:
        case tag if tag == BIND_REQUEST:
            line.bound = request.name
            return [result(request.number, BIND_RESPONSE, 0)]
        case tag if tag == SEARCH_REQUEST:
            found = [entry(request.number, request.name)] if line.bound or not request.name else []
            return [*found, result(request.number, SEARCH_DONE, 0)]
        case tag if tag == EXTENDED_REQUEST and request.oid == WHOAMI:
            who = f"dn:{line.bound}" if line.bound else ""
            return [result(request.number, EXTENDED_RESPONSE, 0, "", octets(who, 0x8B))]
        case tag if tag == EXTENDED_REQUEST:
            return [result(request.number, EXTENDED_RESPONSE, 2, "unsupported")]
        case _:
            return []


class Liar:
    """A directory at :attr:`port`. ``behave`` is asked about each request, and may be changed. Close it."""

    def __init__(self, behave: Behaviour = lambda line, request: None) -> None:
        self.behave = behave
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.lines: list[Line] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"ldap://127.0.0.1:{self.port}"

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                line = Line(connection)
                self.lines.append(line)
                thread = threading.Thread(target=self._serve, args=(line,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, line: Line) -> None:
        buffer = b""
        with contextlib.suppress(OSError):
            while data := line.socket.recv(65_536):
                buffer += data
                while length := whole(buffer):
                    request, buffer = Pdu(buffer[:length]), buffer[length:]
                    line.requests.append(request)
                    if request.tag == UNBIND_REQUEST:
                        return line.end()
                    answers = self.behave(line, request)
                    for piece in honest(line, request) if answers is None else answers:
                        line.send(piece)
        return line.end()

    def requests(self, *tags: int) -> list[Pdu]:
        """What was asked, by connection; only these operations if any are named."""
        asked = [one for line in list(self.lines) for one in list(line.requests)]
        return [one for one in asked if not tags or one.tag in tags]

    def close(self) -> None:
        """End all of it."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for line in list(self.lines):
            line.end()
        for thread in self._threads:
            thread.join()
        for line in self.lines:
            line.socket.close()
