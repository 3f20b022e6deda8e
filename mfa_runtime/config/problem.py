"""What is wrong with a configuration file, as values that can be listed all at once.

Room rule: an administrator reads these in a terminal at night: where, what was seen, what was expected, how to mend it. A
value that may be a secret is never quoted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mfa_core.errors import ConfigurationError

_SECRET_MARKS = ("secret", "passw", "passphrase", "token", "seed", "key", "kek", "private")
_SHOWN_CHARS = 60


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake. ``line`` counts from 1, 0 for the file as a whole; ``key`` is a path such as ``policy[2].when``.

    With an empty ``expected``, ``seen`` is a whole sentence.
    """

    file: str
    line: int
    key: str
    seen: str
    expected: str
    cure: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        key = f"{self.key}: " if self.key else ""
        mend = f"; {self.cure}" if self.cure else ""
        told = f"seen {self.seen}, expected {self.expected}" if self.expected else self.seen
        return f"{place}: {key}{told}{mend}"


class ConfigurationProblems(ConfigurationError):
    """A configuration cannot be used. ``problems`` holds all that was found, in the order of the lines; at least one."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: (problem.line, problem.key)))
        # Each line carries its own cure; this one is for all of them.
        super().__init__(
            "\n".join(map(str, self.problems)),
            cure="the files in config/ (mfad, radius, ldap, authority, agent) show every key with its unit and default",
        )


def is_secretive(key: str) -> bool:
    """Say whether a value under ``key`` might be a secret, or one that was meant for a file beside it."""
    return any(mark in key.lower() for mark in _SECRET_MARKS)


def describe(value: object, *, key: str) -> str:
    """Say what was seen under ``key`` without quoting what may be secret; short, and printable on any terminal."""
    match value:
        case None:
            return "nothing"
        case dict():
            return f"a mapping of {len(value)} keys"
        case list() | tuple():
            return f"a list of {len(value)}"
        case _ if is_secretive(key):
            return "a value that is not shown"
        case bool():
            return "true" if value else "false"
        case _:
            text = ascii(value)
            return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}... ({len(text)} characters)"


def key_of(path: Iterable[str | int]) -> str:
    """Write a path as administrators do: ``policy[2].when.network``."""
    written = ""
    for part in path:
        if isinstance(part, int):
            written += f"[{part}]"
        else:
            shown = part if part.isascii() and part.isprintable() and len(part) <= _SHOWN_CHARS else ascii(part[:_SHOWN_CHARS])
            written += f".{shown}" if written else shown
    return written
