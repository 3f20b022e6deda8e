"""The messages of a sync: what a host has, and what it gets.

The answer is signed as a whole (:mod:`mfa_runtime.protocol.signed`); the secrets in it are sealed to the host
(:mod:`mfa_runtime.protocol.sealed`), so that whoever ends the TLS connection between the two reads no seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from mfa_core.model import CredentialState, Digest, EnrolmentState, FactorKind, Requirement
from mfa_core.secret import Secret
from mfa_runtime.protocol.message import (
    MAX_ID,
    HexDigest,
    Id,
    Label,
    Message,
    Octets,
    Rising,
    SecretOctets,
    Step,
    Time,
    between,
    chars,
    plain,
    unfit,
)
from mfa_runtime.protocol.reporting import JournalHead
from mfa_runtime.protocol.words import MAX_CREDENTIALS, MAX_PAGE_USERS, MAX_WAIT_S, KeyProtection

NONCE_OCTETS = 16
MAX_GONE = 20_000
MAX_RULES_CHARS = 2 << 20
MAX_MATERIAL_OCTETS = 256 * 1024
"""Of one credential: a codebook for 14 days and a quarter more, with 4 octets a code, has 201,600."""
MAX_SEALED_OCTETS = 12 << 20
"""Of a page, packed. A page ends with the user that fills it, and a user may have 32 credentials with codebooks."""

Material = Literal["seed", "codebook", "none"]
HostMaterial = Literal["seed", "codebook", "per_host"]
PageKey = Annotated[str, Field(min_length=1, max_length=128)]


class Cursor(Message):
    """How far a host has read: ``seq`` of one ``generation`` of the authority's store."""

    generation: Label
    seq: Rising


class SyncRequest(Message):
    """A host says what it has, and asks for what is new.

    ``seq`` is that of the last signed answer it took; ``digest`` and ``rules_digest`` are of what it holds, empty for nothing;
    ``wait_s`` how long it would wait for news; ``codes_until`` when its codebooks end (0: it has none); ``now`` its clock;
    ``page`` what the last answer said, where that had more.
    """

    nonce: Annotated[bytes, Octets(NONCE_OCTETS, NONCE_OCTETS)]
    cursor: Cursor | None
    seq: Rising
    digest: HexDigest
    rules_digest: HexDigest
    wait_s: Annotated[float, Field(ge=0.0, le=MAX_WAIT_S)]
    codes_until: Time
    journal: JournalHead
    key_protection: KeyProtection
    now: Time
    software: Annotated[str, plain(64)]
    page: PageKey | None = None


class CredentialDoc(Message):
    """A credential without its secret. ``material`` is what the host gets of that; ``host_id`` 0: it verifies everywhere."""

    id: Id
    kind: FactorKind
    state: CredentialState
    digest: Digest
    digits: Annotated[int, between(6, 10)]
    period_s: Annotated[int, between(0, 3_600)]
    drift_steps: Annotated[int, between(-1_000_000, 1_000_000)]
    last_step: Step
    label: Annotated[str, chars(128)]
    material: Material
    host_id: Annotated[int, between(0, MAX_ID)] = 0


class UserDoc(Message):
    """A user that may log in at this host, with or without credentials. ``version`` rises with every change."""

    id: Id
    name: Annotated[str, chars(256, 1)]
    state: EnrolmentState
    requirement: Requirement
    grace_until: Time
    locked: bool
    version: Rising
    credentials: Annotated[tuple[CredentialDoc, ...], Field(max_length=MAX_CREDENTIALS)]


class TermsDoc(Message):
    """What a host may do alone. ``offline_services`` of ``("*",)`` are all; ``key_protection`` is what its group asks for."""

    host_group: Annotated[str, chars(128, 1)]
    material: HostMaterial
    max_offline_s: Annotated[float, Field(ge=0.0, le=366 * 86_400.0)]
    offline_after_s: Annotated[float, Field(ge=0.0, le=366 * 86_400.0)]
    offline_services: Annotated[tuple[Annotated[str, chars(256, 1)], ...], Field(max_length=256)]
    key_protection: Annotated[str, chars(16, 1)]


class SyncAnswer(Message):
    """What a host gets: a lease always, and what is new. ``more``: ask again with ``page``.

    ``full``: this is a page of all that there is; users that no page had are gone when ``more`` is false. ``digest`` is of all
    users that the host then holds, None where there is more, or where it was not worked out this time; ``rules`` is the text of
    the rules, where the host's digest was another one.
    """

    LIMIT = 16 << 20

    host_id: Id
    authority_id: Label
    nonce: Annotated[bytes, Octets(NONCE_OCTETS, NONCE_OCTETS)]
    seq: Rising
    server_time: Time
    not_after: Time
    full: bool
    more: bool
    page: PageKey | None
    cursor: Cursor
    users: Annotated[tuple[UserDoc, ...], Field(max_length=MAX_PAGE_USERS)]
    gone: Annotated[tuple[Id, ...], Field(max_length=MAX_GONE)]
    sealed: Annotated[bytes, Octets(1, MAX_SEALED_OCTETS)] | None
    digest: HexDigest | None
    rules: Annotated[str, chars(MAX_RULES_CHARS)] | None
    terms: TermsDoc
    journal: JournalHead | Literal["fork"]


class SealedEntry(Message):
    """The secret of one credential: a seed (``first_step`` -1), or packed codes from ``first_step`` on."""

    credential: Id
    first_step: Step
    secret: Annotated[Secret, SecretOctets(MAX_MATERIAL_OCTETS)]


_ENTRIES: TypeAdapter[tuple[SealedEntry, ...]] = TypeAdapter(tuple[SealedEntry, ...])


def write_entries(entries: Sequence[SealedEntry]) -> Secret:
    """What :func:`mfa_runtime.protocol.sealed.seal` takes."""
    return Secret(_ENTRIES.dump_json(tuple(entries)))


def read_entries(opened: Secret) -> tuple[SealedEntry, ...]:
    """What :func:`mfa_runtime.protocol.sealed.open_sealed` gave. Raises: ProtocolError."""
    try:
        return _ENTRIES.validate_json(opened.reveal(), strict=True)
    except ValidationError as err:
        raise unfit("SealedEntry", err) from None


def manifest_digest(versions: Iterable[tuple[int, int]]) -> str:
    """The digest of a set of users, from the id and version of each: the same on both sides, or the host asks for all."""
    lines = "\n".join(f"{user}|{version}" for user, version in sorted(versions))
    return hashlib.sha256(lines.encode("ascii")).hexdigest()


def rules_digest(rules: str) -> str:
    """The digest of the text of the rules."""
    return hashlib.sha256(rules.encode()).hexdigest()


def read_sync_request(octets: bytes) -> SyncRequest:
    """Raises: ProtocolError."""
    return SyncRequest.read(octets)


def read_sync_answer(octets: bytes) -> SyncAnswer:
    """Read what :func:`mfa_runtime.protocol.signed.verify` has found good. Raises: ProtocolError."""
    return SyncAnswer.read(octets)
