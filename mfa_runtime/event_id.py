"""Names for attempts: unique, sortable by time, short enough to read over the telephone."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
"""Two characters at a time, ten bits: base64.b32hexencode takes three times as long, and every attempt has an id."""
_TIME_SHIFTS = range(40, -10, -10)
_RANDOM_SHIFTS = range(70, -10, -10)


def new_event_id(now: float, random: Callable[[int], bytes]) -> str:
    """A ULID: 48 bits of milliseconds and 80 random bits in Crockford's base32, 26 characters.

    Ids of one store rise with time, so that the index over them grows at its end.
    """
    value = int.from_bytes(random(10), "big")
    return _of_time(int(now * 1000)) + "".join([_PAIRS[(value >> shift) & 1023] for shift in _RANDOM_SHIFTS])


@lru_cache(maxsize=4)  # many attempts share a millisecond
def _of_time(milliseconds: int) -> str:
    value = milliseconds & 0xFFFF_FFFF_FFFF
    return "".join([_PAIRS[(value >> shift) & 1023] for shift in _TIME_SHIFTS])
