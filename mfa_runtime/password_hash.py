"""How do passwords of our own lie in the store?

As argon2id hashes over a keyed tag, like one-time codes (:mod:`mfa_runtime.one_time_hash`), but with the work factor of what
people choose (a recommendation of OWASP for argon2id: 19 MiB, two passes; some 30 ms). The tag is under the store's pepper and
names the user: a copy of the rows without the key file gives nothing to guess against, and whoever writes to the database can
neither plant a password nor move one to another user.
"""

from __future__ import annotations

import argon2
from argon2.exceptions import InvalidHashError, VerificationError

from mfa_core.secret import Secret
from mfa_runtime.sealing import Keyring, Place

_hasher = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1, hash_len=32, salt_len=16)
_UNKNOWN = 0
"""The number of no user."""

DUMMY = _hasher.hash(b"no password has this hash: it makes an unknown user cost what a known one does")


def hash_password(password: Secret, user_id: int, *, keyring: Keyring) -> str:
    """The text to store for a user."""
    return _hasher.hash(_tag(password, user_id, keyring))


def fits(stored: str | None, password: Secret, user_id: int = _UNKNOWN, *, keyring: Keyring) -> bool:
    """Whether this is the password of the user, for whom ``stored`` was read; None costs the same, and fits nothing."""
    try:
        _hasher.verify(DUMMY if stored is None else stored, _tag(password, user_id, keyring))
    except (VerificationError, InvalidHashError):
        return False
    return stored is not None


def _tag(password: Secret, user_id: int, keyring: Keyring) -> bytes:
    place = Place("passwords", "hash", user_id, user_id)
    return keyring.tag(place.associated_data().decode("ascii"), password.reveal())
