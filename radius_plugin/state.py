"""What does a challenge carry away, so that any worker, now or after a restart, can go on with it?

Room rule: the octets of our State attribute (RFC 2865 section 5.24) are known in this file and nowhere else. It answers whether
a State is ours, of this client and this user, and still in time. That it is answered once is the store's business.

State, 51 octets (some clients keep no more than 64)::

    offset 0   1 octet    format, 1
           1   12 octets  nonce, random
           13  38 octets  ChaCha20-Poly1305 ciphertext and tag (RFC 8439) of
                          0   16 octets  id of the challenge, a ULID in binary
                          16  4 octets   Unix seconds after which it is void, big-endian
                          20  1 octet    how many answers were tried
                          21  1 octet    1 when the first factor is done

The additional data names the client and the user name as the client presented it: a State opens for no other. Random nonces
of 96 bits repeat with a chance of 2^-32 after 2^32 challenges under one key.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from mfa_core.errors import PeerProtocolError
from mfa_core.secret import Secret

KEY_SIZE = 32
STATE_SIZE = 51
ATTEMPTS_MAX = 255

_FORMAT = b"\x01"
_NONCE_SIZE = 12
_BODY_AT = 1 + _NONCE_SIZE
_BODY = struct.Struct(">16sIBB")
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_ULID_SIZE = 26
_VALUES = {character: value for value, character in enumerate(_ALPHABET)}
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_SHIFTS = range(120, -10, -10)

RandomBytes = Callable[[int], bytes]


class Why(enum.StrEnum):
    """Why a State does not open: stable words for counters, logs and tests."""

    UNKNOWN = "unknown"
    """Not ours, not whole, of another client, another user name or another key: these cannot be told apart."""
    EXPIRED = "expired"


class StateRefused(PeerProtocolError):
    """The challenge that this State stands for cannot be answered: reject, and count no failure against the user."""

    def __init__(self, why: Why) -> None:
        super().__init__(f"a State that does not open here: {why}", cure="log in again; look at the client if this goes on")
        self.why = why


@dataclass(frozen=True, slots=True)
class Carried:
    """What a challenge carries. ``challenge`` is its id, 26 characters as event ids are; ``expires_at`` is whole Unix seconds.

    ``attempts`` counts the answers that were tried in this dialogue before; ``first_factor_done`` is whether the password was
    good already.
    """

    challenge: str
    expires_at: int
    attempts: int = 0
    first_factor_done: bool = False


class StateSeal:
    """Seals and opens States. The first key seals, all of them open: a new one goes in front, the old one a lifetime later."""

    __slots__ = ("_ciphers", "_random")

    def __init__(self, keys: Sequence[Secret], *, random: RandomBytes) -> None:
        """Take at least one key of 32 octets. Raises: ValueError."""
        if not keys or any(len(key) != KEY_SIZE for key in keys):
            raise ValueError(
                f"{len(keys)} keys of {[len(key) for key in keys]} octets, expected at least one, of {KEY_SIZE} each"
            )
        self._ciphers = [ChaCha20Poly1305(key.reveal()) for key in keys]
        self._random = random

    def seal(self, carried: Carried, *, client: str, user_name: bytes) -> bytes:
        """The value of a State attribute, for this client and this User-Name alone.

        Raises: ValueError for an id that is no ULID, or a number that does not fit.
        """
        if not 0 <= carried.attempts <= ATTEMPTS_MAX or not 0 <= carried.expires_at <= 0xFFFF_FFFF:
            raise ValueError(
                f"{carried.attempts} attempts until {carried.expires_at}, expected up to {ATTEMPTS_MAX} and 32 bits"
            )
        body = _BODY.pack(_to_binary(carried.challenge), carried.expires_at, carried.attempts, carried.first_factor_done)
        nonce = self._random(_NONCE_SIZE)
        return _FORMAT + nonce + self._ciphers[0].encrypt(nonce, body, _bound_to(client, user_name))

    def open(self, state: bytes, *, client: str, user_name: bytes, now: float) -> Carried:
        """What this client and user carried away. ``now`` is Unix seconds.

        Raises: StateRefused.
        """
        if len(state) != STATE_SIZE or state[:1] != _FORMAT:
            raise StateRefused(Why.UNKNOWN)
        bound_to = _bound_to(client, user_name)
        for cipher in self._ciphers:
            try:
                body = cipher.decrypt(state[1:_BODY_AT], state[_BODY_AT:], bound_to)
            except InvalidTag:
                continue
            challenge, expires_at, attempts, done = _BODY.unpack(body)
            if now >= expires_at:
                raise StateRefused(Why.EXPIRED)
            return Carried(_to_text(challenge), expires_at, attempts, bool(done))
        raise StateRefused(Why.UNKNOWN)


def _bound_to(client: str, user_name: bytes) -> bytes:
    name = client.encode("utf-8", "surrogateescape")
    return b"mfad-radius-state-1|%d|%b|%b" % (len(name), name, user_name)


def _to_binary(ulid: str) -> bytes:
    value = 0
    if len(ulid) == _ULID_SIZE:
        for character in ulid:
            value = value << 5 | _VALUES.get(character, 1 << 130)
    else:
        value = 1 << 128
    if value >> 128:
        raise ValueError(f"an id of {len(ulid)} characters, expected the {_ULID_SIZE} of a ULID")
    return value.to_bytes(16, "big")


def _to_text(binary: bytes) -> str:
    value = int.from_bytes(binary, "big")
    return "".join([_PAIRS[(value >> shift) & 1023] for shift in _SHIFTS])
