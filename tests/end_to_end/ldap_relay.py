"""What crossed between the door and its directory? A relay that hands octets on, keeps them, and can hold or cut them."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass, field

from tests.end_to_end.ldap_wire import BIND_REQUEST, Pdu, pdus
from tests.end_to_end.slapd import SERVICE_DN


@dataclass(slots=True)
class Crossing:
    """One connection through the relay. ``sent`` went to the directory, ``received`` came from it.

    ``is_the_doors_own``: the door has bound as its service account, to look something up.
    """

    door: socket.socket
    directory: socket.socket
    sent: bytearray = field(default_factory=bytearray)
    received: bytearray = field(default_factory=bytearray)
    is_the_doors_own: bool = False

    def requests(self) -> list[Pdu]:
        """What was asked, in clear."""
        return pdus(bytes(self.sent))

    @property
    def is_left(self) -> bool:
        """Whether the door has closed it."""
        try:
            return self.door.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def end(self) -> None:
        """Cut both halves."""
        for one in (self.door, self.directory):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


class Relay:
    """Listens at :attr:`port`, and connects to ``target`` for each that comes. Close it."""

    def __init__(self, target: tuple[str, int] | str) -> None:
        self.target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.crossings: list[Crossing] = []
        self._threads: list[threading.Thread] = []
        self._flows = threading.Event()
        self._flows.set()
        self._start(self._accept)

    @property
    def url(self) -> str:
        return f"ldap://127.0.0.1:{self.port}"

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                door, _ = self._listener.accept()
                try:
                    directory = socket.socket(socket.AF_UNIX if isinstance(self.target, str) else socket.AF_INET)
                    directory.connect(self.target)
                except OSError:
                    directory.close()
                    door.close()
                    continue
                for one in (door, directory):
                    if one.family == socket.AF_INET:
                        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                crossing = Crossing(door, directory)
                self.crossings.append(crossing)
                self._start(self._pump, crossing, door, directory, crossing.sent)
                self._start(self._pump, crossing, directory, door, crossing.received)

    def _pump(self, crossing: Crossing, source: socket.socket, sink: socket.socket, kept: bytearray) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                # what is kept has been read by us, and may not have been handed on yet
                crossing.is_the_doors_own |= kept is crossing.sent and SERVICE_DN.encode() in data
                kept += data
                if not crossing.is_the_doors_own:
                    self._flows.wait()
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
            return
        crossing.end()

    def hold(self) -> None:
        """From now on what comes is kept, and not handed on; but for the door's own look-ups."""
        self._flows.clear()

    def release(self) -> None:
        """Hand on again, what was held first."""
        self._flows.set()

    def cut(self) -> None:
        """End every connection."""
        for crossing in list(self.crossings):
            crossing.end()

    def close(self) -> None:
        """End all of it."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.release()
        self.cut()
        for thread in self._threads:
            thread.join()
        for crossing in self.crossings:
            crossing.door.close()
            crossing.directory.close()

    # what was seen

    def forget(self) -> Relay:
        """Keep only what comes from now on; this relay."""
        for crossing in list(self.crossings):
            del crossing.sent[:], crossing.received[:]
        return self

    def sent(self) -> bytes:
        """All octets that were meant for the directory."""
        return b"".join(bytes(one.sent) for one in list(self.crossings))

    def received(self) -> bytes:
        """All octets that it said."""
        return b"".join(bytes(one.received) for one in list(self.crossings))

    def requests(self, *tags: int) -> list[Pdu]:
        """What was asked for clients, by connection; only these operations if any are named."""
        asked = [one for crossing in list(self.crossings) if not crossing.is_the_doors_own for one in crossing.requests()]
        return [one for one in asked if not tags or one.tag in tags]

    def crossing_of(self, *tags: int, number: int | None = None) -> Crossing:
        """The one connection of a client on which such an operation was asked."""
        (found,) = [
            one
            for one in list(self.crossings)
            if not one.is_the_doors_own
            and any(pdu.tag in tags and (number is None or pdu.number == number) for pdu in one.requests())
        ]
        return found

    def binds(self) -> list[tuple[str, bytes | None]]:
        """Whom the directory was asked to bind, and by which password; None for SASL."""
        return [(one.name if one.password is not None else "", one.password) for one in self.requests(BIND_REQUEST)]
