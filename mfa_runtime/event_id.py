"""Names for attempts: unique, sortable by time, short enough to read over the telephone."""

from __future__ import annotations

from collections.abc import Callable

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def new_event_id(now: float, random: Callable[[int], bytes]) -> str:
    """A ULID: 48 bits of milliseconds and 80 random bits in Crockford's base32, 26 characters.

    Ids of one store rise with time, so that the index over them grows at its end.
    """
    value = (int(now * 1000) & ((1 << 48) - 1)) << 80 | int.from_bytes(random(10), "big")
    return "".join([_ALPHABET[(value >> shift) & 31] for shift in _SHIFTS])


_SHIFTS = range(125, -5, -5)
