"""What does a process get that serves one door together with others?

Room rule: how it is written on its command line, and read there. The configuration is not asked: it may have other addresses by
the time that a worker is started again.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from mfa_core.errors import ConfigurationError
from mfa_core.model import Door

Handed = Sequence[tuple[str, socket.socket]]
"""Sockets, each with what it is for, in the words of its door."""


@dataclass(frozen=True, slots=True)
class Inherited:
    """The door, the pipe to the daemon, and the numbers of the sockets with what each is for."""

    door: Door
    pipe: int
    sockets: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, door: Door, pipe: int, handed: Handed) -> Inherited:
        """What a worker gets."""
        return cls(door, pipe, tuple((what, opened.fileno()) for what, opened in handed))

    @property
    def descriptors(self) -> tuple[int, ...]:
        """All of them, to be passed on."""
        return (self.pipe, *(number for _, number in self.sockets))

    def written(self) -> str:
        """For the command line."""
        return json.dumps([self.door.value, self.pipe, self.sockets])

    @classmethod
    def read(cls, text: str) -> Inherited:
        """Take apart what stands on the command line. Raises: ConfigurationError."""
        try:
            door, pipe, sockets = json.loads(text)
            return cls(Door(door), int(pipe), tuple((str(what), int(number)) for what, number in sockets))
        except (ValueError, TypeError):
            raise ConfigurationError("--worker is for mfad itself", cure="set `workers` of the door instead") from None

    def handed(self) -> Handed:
        """The sockets themselves."""
        return [(what, _opened(number)) for what, number in self.sockets]


def _opened(number: int) -> socket.socket:
    opened = socket.socket(fileno=number)
    opened.setblocking(False)
    return opened
