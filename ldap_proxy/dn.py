"""Which entry does a DN name, however it is spelt?

Room rule: RFC 4514 text in, a value that compares, or :class:`NotADn`. Nothing is decided on it alone: the directory confirms.
"""

from __future__ import annotations

from dataclasses import dataclass


class NotADn(ValueError):
    """The text is no DN. The message quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class Dn:
    """A DN, normalised. ``rdns``: from the leaf up, each the sorted pairs of type and value of one RDN."""

    rdns: tuple[tuple[tuple[str, str], ...], ...] = ()
