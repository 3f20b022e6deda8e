"""The messages of a host that joins, and of one that renews its certificate."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mfa_core.secret import Secret
from mfa_runtime.protocol.message import Id, Label, Message, Octets, Pem, SecretOctets, chars, plain
from mfa_runtime.protocol.words import KeyProtection

HPKE_PUBLIC_OCTETS = 32
"""An X25519 public key (RFC 7748)."""
SIGNER_OCTETS = 32
"""An Ed25519 public key (RFC 8032)."""
MAX_SIGNERS = 16

Signer = Annotated[bytes, Octets(SIGNER_OCTETS, SIGNER_OCTETS)]
KeyId = Annotated[str, Field(pattern=r"\A[0-9a-f]{16}\z")]


class JoinRequest(Message):
    """A host asks to belong. ``token`` is what stands between the dots of ``mfad1.TOKEN.CA``, 20 octets."""

    token: Annotated[Secret, SecretOctets(20)]
    host_name: Annotated[str, chars(256, 1)]
    csr: Pem
    hpke_public: Annotated[bytes, Octets(HPKE_PUBLIC_OCTETS, HPKE_PUBLIC_OCTETS)]
    key_protection: KeyProtection
    software: Annotated[str, plain(64)]


class JoinAnswer(Message):
    """Who the host is from now on, and whom it believes. ``trust`` may hold several CA certificates."""

    LIMIT = 256 * 1024

    host_id: Id
    host_name: Annotated[str, chars(256, 1)]
    host_group: Annotated[str, chars(128, 1)]
    authority_id: Label
    certificate: Pem
    trust: Annotated[str, Field(min_length=1, max_length=131_072)]
    signers: Annotated[dict[KeyId, Signer], Field(min_length=1, max_length=MAX_SIGNERS)]


class RenewRequest(Message):
    """A host asks for a new certificate for the key in ``csr``."""

    csr: Pem


class RenewAnswer(Message):
    """The new certificate. The old one may be shown until the new one was."""

    LIMIT = 256 * 1024

    certificate: Pem
    trust: Annotated[str, Field(min_length=1, max_length=131_072)]


def read_join_request(octets: bytes) -> JoinRequest:
    """Raises: ProtocolError."""
    return JoinRequest.read(octets)


def read_join_answer(octets: bytes) -> JoinAnswer:
    """Raises: ProtocolError."""
    return JoinAnswer.read(octets)


def read_renew_request(octets: bytes) -> RenewRequest:
    """Raises: ProtocolError."""
    return RenewRequest.read(octets)


def read_renew_answer(octets: bytes) -> RenewAnswer:
    """Raises: ProtocolError."""
    return RenewAnswer.read(octets)
