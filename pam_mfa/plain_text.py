"""What of a text may reach a terminal or a log?

Room rule: everything that makes text from outside harmless lives here. Texts that a person reads lose control characters and
bidirectional overrides; values that a log quotes become printable ASCII. This file does not know where the text goes.
"""

from __future__ import annotations

import unicodedata

_OVERRIDES = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2028\u2029\u2066\u2067\u2068\u2069\ufeff")
"""Direction marks and line separators: they make a terminal show another text than the one that was sent."""


def _kept(character: str) -> str:
    if character == "\t":
        return " "
    if character in _OVERRIDES:
        return ""
    category = unicodedata.category(character)
    if category == "Cc":
        return ""
    return "?" if category == "Cs" else character


def cut_utf8(text: str, limit: int) -> str:
    """Return the longest head of ``text`` that is at most ``limit`` bytes of UTF-8. Never cuts a character in two."""
    raw = text.encode()
    return text if len(raw) <= limit else raw[:limit].decode(errors="ignore")


def one_line(text: str, *, limit: int) -> str:
    """Return ``text`` for a prompt or a log line: no control characters, line ends as blanks, at most ``limit`` bytes."""
    if not (text.isascii() and text.isprintable()):
        text = "".join(map(_kept, text.replace("\r\n", " ").replace("\n", " ")))
    return cut_utf8(text, limit)


def paragraph(text: str, *, limit: int) -> str:
    """Return ``text`` for INFO or ERROR: as :func:`one_line`, but line feeds stay."""
    if not (text.isascii() and text.isprintable()):
        text = "\n".join("".join(map(_kept, line)) for line in text.split("\n"))
    return cut_utf8(text, limit)


def quoted(value: bytes | str, *, limit: int = 64) -> str:
    """Return what a peer sent as ``"printable ASCII"``, escaped like a Python literal, for a log line.

    Quotes, backslashes and blanks cannot end the value, and a longer one than ``limit`` ends in dots.
    """
    raw = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
    shown = "".join(chr(byte) if 0x20 <= byte < 0x7F and byte not in b'"\\' else f"\\x{byte:02x}" for byte in raw[:limit])
    return f'"{shown}..."' if len(raw) > limit else f'"{shown}"'
