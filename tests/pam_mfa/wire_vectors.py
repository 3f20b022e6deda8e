"""How are the lines of tests/vectors/pam_wire.txt read? Its header describes them; C and Python tests read them here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

PATH = Path(__file__).resolve().parents[1] / "vectors" / "pam_wire.txt"

_PIECE = re.compile(r"([0-9a-f]*)(?:\{(\d+)\})?")
_REPEATED = re.compile(r"(%[0-9A-F]{2}|[A-Za-z0-9._~-])\{(\d+)\}")


@dataclass(frozen=True, slots=True)
class Vector:
    """One line. ``expected`` is as in the file, with the repetitions written out."""

    name: str
    message: bytes
    expected: str

    @property
    def kind(self) -> str:
        """``ops``, ``begin``, ``answer``; of a refused one who refuses it, or ``any``."""
        return self.expected.split(" ")[self.refused]

    @property
    def refused(self) -> bool:
        return self.expected.startswith("refused ")

    @property
    def fields(self) -> list[tuple[str, bytes]]:
        """NAME and what stands behind its colon, percent-decoded: of LOG the level and the text, of numbers the digits."""
        pairs = [word.split(":", 1) for word in self.expected.split(" ")[1:]]
        return [(name, unquote_to_bytes(value)) for name, value in pairs]


def escape(value: bytes) -> str:
    """A value as the file writes it, without repetitions."""
    return quote(value, safe="")


def _message(text: str) -> bytes:
    pieces = []
    for piece in text.split("_"):
        match = _PIECE.fullmatch(piece)
        assert match is not None, piece
        pieces.append(bytes.fromhex(match[1]) * int(match[2] or 1))
    return b"".join(pieces)


def read_vectors() -> list[Vector]:
    """All vectors, in the order of the file."""
    vectors = []
    for line in PATH.read_text().splitlines():
        if line and not line.startswith("#"):
            name, message, expected = re.split(r" {2,}", line, maxsplit=2)
            expected = _REPEATED.sub(lambda found: found[1] * int(found[2]), expected)
            vectors.append(Vector(name, _message(message), expected))
    return vectors
