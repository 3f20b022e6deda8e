"""How a secret lies on disk: the byte format, and the place it is bound to.

Room rule: AES-256-GCM is used in this file and nowhere else. It knows keys by number and places by name, and no SQL.

Sealed value::

    offset 0   1 byte   format, 1
           1   4 bytes  number of the data key, big-endian
           5   12 bytes nonce, random
           17  ...      AES-256-GCM ciphertext and tag

The additional data names table, column, row and owner, so that a row moved into another place does not open there: a column
name alone would let somebody with write access swap two users' secrets.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mfa_core.errors import StoreCorrupt
from mfa_core.secret import Secret

KEY_BYTES = 32
NONCE_BYTES = 12
_FORMAT = b"\x01"
_HEADER_BYTES = 1 + 4 + NONCE_BYTES
SEAL_BYTES = _HEADER_BYTES + 16
"""By so much a sealed value is longer than what is in it."""

RandomBytes = Callable[[int], bytes]


class UnknownKey(StoreCorrupt):
    """The value is sealed under a key that this keyring does not hold: load the keys again, then give up."""


class Place(NamedTuple):
    """Where a sealed value belongs: it opens only there."""

    table: str
    column: str
    row: int
    owner: int

    def associated_data(self) -> bytes:
        """The additional authenticated data of this place."""
        return f"mfad-v1|{self.table}|{self.column}|{self.row}|{self.owner}".encode()


class Keyring:
    """The data keys and derived-tag keys of one store, unwrapped. Immutable: rotation makes a new one."""

    __slots__ = ("_audit_key", "_ciphers", "_current", "_openers", "_pads", "_random")

    def __init__(
        self, data_keys: Mapping[int, Secret], *, current: int, pepper: Secret, audit_key: Secret, random: RandomBytes
    ) -> None:
        self._ciphers = {number: AESGCM(key.reveal()) for number, key in data_keys.items()}
        # By what a sealed value begins with.
        self._openers = {_FORMAT + number.to_bytes(4, "big"): cipher for number, cipher in self._ciphers.items()}
        self._current = current
        self._pads = _padded(pepper)
        self._audit_key = audit_key
        self._random = random

    @property
    def current(self) -> int:
        """The number of the key that new values are sealed under."""
        return self._current

    @property
    def numbers(self) -> frozenset[int]:
        """The numbers of all data keys that open values."""
        return frozenset(self._ciphers)

    def seal(self, secret: Secret, place: Place) -> bytes:
        """Seal under the current key with a fresh random nonce (NIST SP 800-38D section 8.2.2)."""
        nonce = self._random(NONCE_BYTES)
        body = self._ciphers[self._current].encrypt(nonce, secret.reveal(), place.associated_data())
        return b"".join((_FORMAT, self._current.to_bytes(4, "big"), nonce, body))

    def unseal(self, sealed: bytes, place: Place) -> Secret:
        """Open a value where it belongs.

        Raises:
            UnknownKey: sealed under a key that is not here.
            StoreCorrupt: damaged, or moved from another place.
        """
        cipher = self._openers.get(sealed[:5])
        if cipher is None or len(sealed) <= _HEADER_BYTES:
            raise self._unreadable(sealed, place)
        try:
            return Secret(cipher.decrypt(sealed[5:_HEADER_BYTES], sealed[_HEADER_BYTES:], place.associated_data()))
        except InvalidTag as err:
            raise StoreCorrupt(
                f"{place.table}.{place.column} of row {place.row} does not open: it was changed, or moved from another row",
                cure="look into the audit log for who wrote to the store; revoke the credential and enrol again",
            ) from err

    @staticmethod
    def _unreadable(sealed: bytes, place: Place) -> StoreCorrupt:
        if len(sealed) <= _HEADER_BYTES or sealed[:1] != _FORMAT:
            return StoreCorrupt(
                f"{place.table}.{place.column} of row {place.row} is no sealed value (saw {len(sealed)} bytes)",
                cure="restore this row from a backup, or revoke the credential and enrol again",
            )
        return UnknownKey(
            f"{place.table}.{place.column} of row {place.row} is sealed under data key {sealed_under(sealed)}, "
            "which is not here",
            cure="restore the key table from the same backup as the rows",
        )

    def tag(self, label: str, data: bytes) -> bytes:
        """A keyed tag (HMAC-SHA256) of ``data`` under the store's pepper; ``label`` separates uses."""
        # RFC 2104 section 2 over the padded keys: every login needs one, and hmac.digest makes the pads each time.
        inner, outer = self._pads
        text = label.encode("utf-8", "surrogatepass") + b"\0" + data
        return hashlib.sha256(outer.reveal() + hashlib.sha256(inner.reveal() + text).digest()).digest()

    def audit_mac(self, data: bytes) -> bytes:
        """The MAC that the head of the audit chain carries."""
        return hmac.digest(self._audit_key.reveal(), data, "sha256")


_BLOCK_BYTES = 64
_INNER = bytes([byte ^ 0x36 for byte in range(256)])
_OUTER = bytes([byte ^ 0x5C for byte in range(256)])


def _padded(key: Secret) -> tuple[Secret, Secret]:
    """The key of an HMAC-SHA256, padded for the inner and the outer hash."""
    raw = key.reveal() if len(key) <= _BLOCK_BYTES else hashlib.sha256(key.reveal()).digest()
    padded = raw.ljust(_BLOCK_BYTES, b"\0")
    return Secret(padded.translate(_INNER)), Secret(padded.translate(_OUTER))


def sealed_under(sealed: bytes) -> int:
    """The number of the data key that a sealed value needs."""
    return int.from_bytes(sealed[1:5], "big")


def wrap_key(kek: Secret, key: Secret, *, number: int, purpose: str, random: RandomBytes) -> bytes:
    """Wrap a data key under the key-encryption key: nonce, ciphertext, tag."""
    nonce = random(NONCE_BYTES)
    return nonce + AESGCM(kek.reveal()).encrypt(
        nonce, key.reveal(), f"mfad-v1|keys|wrapped|{number}|{purpose}".encode()
    )


def unwrap_key(kek: Secret, wrapped: bytes, *, number: int, purpose: str) -> Secret:
    """Unwrap a data key.

    Raises:
        StoreCorrupt: another key-encryption key, or a damaged row.
    """
    try:
        return Secret(
            AESGCM(kek.reveal()).decrypt(
                wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], f"mfad-v1|keys|wrapped|{number}|{purpose}".encode()
            )
        )
    except (InvalidTag, ValueError) as err:
        raise StoreCorrupt(
            f"key {number} ({purpose}) does not unwrap under this key-encryption key",
            cure="point key_file at the key file that belongs to this store",
        ) from err


def key_id(kek: Secret) -> str:
    """A public name for a key-encryption key: 16 hex digits that say nothing about it."""
    return hashlib.sha256(b"mfad key-encryption key\0" + kek.reveal()).hexdigest()[:16]
