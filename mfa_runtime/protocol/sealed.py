"""Who alone can read this? HPKE (RFC 9180) to the key of one host.

Room rule: the only file that imports HPKE. Base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM, one message a key;
what is sealed is packed with zlib before, and what comes out is bounded before it is unpacked.

Sealed value::

    offset 0   32 octets  the encapsulated key
           32  ...        AES-256-GCM ciphertext and tag
"""

from __future__ import annotations

import zlib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from mfa_core.secret import Secret
from mfa_runtime.protocol.message import ProtocolError

PUBLIC_OCTETS = 32
PRIVATE_OCTETS = 32
MAX_OPENED_OCTETS = 16 << 20
"""Of what is inside, unpacked."""
_LEVEL = 1
"""Codes and seeds are random: more work packs them no better."""

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def sync_context(*, authority_id: str, host_id: int, seq: int, nonce: bytes) -> bytes:
    """What a page's seal is bound to (the ``info`` of HPKE): it opens for this host, in this answer, and nowhere else."""
    return f"mfad sync v1|{authority_id}|{host_id}|{seq}|".encode("ascii") + nonce


def new_private_key() -> Secret:
    """A private key for :func:`open_sealed`."""
    return Secret(X25519PrivateKey.generate().private_bytes_raw())


def public_of(private: Secret) -> bytes:
    """The public key that belongs to a private one. Raises: ValueError, if that has not 32 octets."""
    return X25519PrivateKey.from_private_bytes(private.reveal()).public_key().public_bytes_raw()


def seal(public: bytes, context: bytes, plaintext: Secret) -> bytes:
    """Pack and seal to the host with the key ``public``.

    Raises:
        ProtocolError: ``public`` is no key that anything can be sealed to.
        ValueError: ``plaintext`` is larger than the host would open.
    """
    if len(plaintext) > MAX_OPENED_OCTETS:
        raise ValueError(f"{len(plaintext)} octets to be sealed, expected at most {MAX_OPENED_OCTETS}")
    try:
        return _SUITE.encrypt(
            zlib.compress(plaintext.reveal(), _LEVEL), X25519PublicKey.from_public_bytes(public), info=context
        )
    except ValueError:
        # RFC 9180 section 7.1.4: a public key of small order gives a shared secret of zeros.
        raise ProtocolError(
            f"the HPKE key of the host has {len(public)} octets and is no X25519 key", cure="let the host join again"
        ) from None


def open_sealed(private: Secret, context: bytes, sealed: bytes) -> Secret:
    """Open what was sealed to this host in this context.

    Raises:
        ProtocolError: damaged, sealed to another host, from another answer, or larger than anybody may send.
    """
    key = X25519PrivateKey.from_private_bytes(private.reveal())
    try:
        packed = _SUITE.decrypt(sealed, key, info=context)
    except (InvalidTag, ValueError):
        raise ProtocolError(
            f"{len(sealed)} sealed octets do not open with the key of this host in this answer",
            cure="if the state directory is from another host or an older backup, let this host join again",
        ) from None
    unpacking = zlib.decompressobj()
    try:
        opened = unpacking.decompress(packed, MAX_OPENED_OCTETS)
    except zlib.error:
        opened = b""
    if not unpacking.eof or unpacking.unused_data:
        raise ProtocolError(
            f"{len(packed)} octets in a seal are no zlib stream of at most {MAX_OPENED_OCTETS} octets",
            cure="ask whether both sides are mfad of the same version",
        )
    return Secret(opened)
