"""Whose answer is this? Ed25519 (RFC 8032) over the exact octets of a sync answer.

Room rule: signatures of the protocol are made and checked here. TLS says who is at the other end; the signature says that the
authority itself made the answer, also where a proxy ends TLS or a copy of the cache is looked into later.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from mfa_core.secret import Secret
from mfa_runtime.protocol.message import ProtocolError, decode_octets, encode_octets

HEADER = "Mfad-Signature"
DOMAIN = b"mfad sync v1\n"
"""Stands before the octets, so that no other thing that the key signs can be taken for an answer."""
PRIVATE_OCTETS = 32
_KEY_ID_OCTETS = 8
_WRITTEN = re.compile(r"([0-9a-f]{16}):([A-Za-z0-9+/]{86}==)").fullmatch


class BadSignature(ProtocolError):
    """The answer is not the authority's: use nothing of it, and say so."""


def key_id(public: bytes) -> str:
    """The name of a signing key: the first 8 octets of the SHA-256 of its 32, in hexadecimal."""
    return hashlib.sha256(public).digest()[:_KEY_ID_OCTETS].hex()


class Signer:
    """Signs answers."""

    __slots__ = ("_key", "key_id", "public")

    def __init__(self, private: Secret) -> None:
        """``private`` is the 32 octets of RFC 8032 section 5.1.5. Raises: ValueError, for another length."""
        self._key = Ed25519PrivateKey.from_private_bytes(private.reveal())
        self.public = self._key.public_key().public_bytes_raw()
        self.key_id = key_id(self.public)

    def sign(self, body: bytes) -> str:
        """The value of the header for an answer of these octets."""
        return f"{self.key_id}:{encode_octets(self._key.sign(DOMAIN + body))}"


def new_signing_key() -> Secret:
    """A private key for :class:`Signer`."""
    return Secret(Ed25519PrivateKey.generate().private_bytes_raw())


def verify(header: str, body: bytes, signers: Mapping[str, bytes]) -> str:
    """Check an answer against the keys that the host was given; return the id of the one that signed.

    Raises:
        BadSignature: no signature, of no known key, or of other octets.
    """
    parts = _WRITTEN(header)
    if parts is None:
        raise BadSignature(
            f"{HEADER}: seen {len(header)} characters, expected KEYID:SIGNATURE",
            cure="ask whether a proxy between host and authority takes headers away",
        )
    public = signers.get(parts[1])
    if public is None or key_id(public) != parts[1]:
        raise BadSignature(
            f"{HEADER}: signed by key {parts[1]}, which this host was not given",
            cure="if the authority was set up anew, join again; else somebody else answers in its place",
        )
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(decode_octets(parts[2]), DOMAIN + body)
    except (InvalidSignature, ValueError):
        raise BadSignature(
            f"{HEADER}: the signature of key {parts[1]} is not of these {len(body)} octets",
            cure="somebody between host and authority changes answers: look for a proxy",
        ) from None
    return parts[1]
