"""Hashes of one-time codes: recovery codes (80 bits), the recovery key (120 bits), bypass codes (60 bits).

Room rule: argon2 is imported here and in :mod:`mfa_runtime.password_hash`.

NIST SP 800-63B-4 section 3.1.2.2: look-up secrets of at least 112 bits need an approved one-way function, shorter ones a
password hash. Codes are random, so a small work factor is enough (8 MiB, one pass: 5 ms); a keyed tag under the store's
pepper goes in first, so that a copy of the rows without the key file gives nothing to guess against. The tag names the row and
its owner: somebody with write access cannot put the hash of his own code into another user's row.
"""

from __future__ import annotations

import argon2
from argon2.exceptions import InvalidHashError, VerificationError

from mfa_core.secret import Secret
from mfa_runtime.sealing import Keyring, Place

_hasher = argon2.PasswordHasher(time_cost=1, memory_cost=8 * 1024, parallelism=1, hash_len=32, salt_len=16)

DUMMY = _hasher.hash(b"no code has this hash: it makes an unknown user cost what a known one does")
NOWHERE = Place("one_time_codes", "hash", 0, 0)
"""Where the code of an unknown user would lie."""


def place_of(row: int, owner: int) -> Place:
    """Where the hash of a code lies: the number of its row, and of the user."""
    return Place("one_time_codes", "hash", row, owner)


def hash_code(code: Secret, place: Place, *, keyring: Keyring) -> str:
    """The text to store for a code (its canonical form, without separators)."""
    return _hasher.hash(_tag(code, place, keyring))


def matches(stored: str, code: Secret, place: Place, *, keyring: Keyring) -> bool:
    """Whether ``code`` has this hash in this place. About 5 ms and 8 MiB: run it in a bounded pool."""
    try:
        return _hasher.verify(stored, _tag(code, place, keyring))
    except (VerificationError, InvalidHashError):
        return False


def _tag(code: Secret, place: Place, keyring: Keyring) -> bytes:
    return keyring.tag(place.associated_data().decode("ascii"), code.reveal())
