"""Names for attempts: unique, sortable by time, short enough to read over the telephone."""

from __future__ import annotations

import base64
from collections.abc import Callable

# Both alphabets are in ASCII order, so that the translation keeps the order of ids.
_CROCKFORD = bytes.maketrans(b"0123456789ABCDEFGHIJKLMNOPQRSTUV", b"0123456789ABCDEFGHJKMNPQRSTVWXYZ")


def new_event_id(now: float, random: Callable[[int], bytes]) -> str:
    """48 bits of milliseconds and 80 random bits in Crockford's base32: 26 characters, as a ULID has.

    Ids of one store rise with time, so that the index over them grows at its end.
    """
    raw = (int(now * 1000) & ((1 << 48) - 1)).to_bytes(6, "big") + random(10)
    return base64.b32hexencode(raw)[:26].translate(_CROCKFORD).decode("ascii")
