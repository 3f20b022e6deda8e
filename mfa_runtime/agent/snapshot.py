"""May anything of this answer be used? What a signed sync answer must be before a word of it is believed.

Room rule: pure. The octets and their signature come in, the answer comes out, or why not; the old cache stays in every case but
the good one.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from mfa_core.offline import MAX_OFFLINE_S
from mfa_core.secret import Secret
from mfa_runtime.protocol.message import ProtocolError
from mfa_runtime.protocol.sealed import open_sealed, sync_context
from mfa_runtime.protocol.signed import BadSignature, verify
from mfa_runtime.protocol.syncing import SealedEntry, SyncAnswer, read_entries, read_sync_answer

MAX_CLOCK_OFFSET_S = 90.0
"""More between this host's clock and the authority's is worth telling: alone, the host would refuse every code by time."""


class Why(enum.StrEnum):
    """What is wrong with an answer; the value stands in the audit log."""

    TAMPERED = "tampered"
    """The signature is not of these octets, or of nobody that this host was given."""
    FOREIGN_AUTHORITY = "foreign_authority"
    FOREIGN_HOST = "foreign_host"
    REPLAYED = "replayed"
    """It answers another question than was asked now."""
    REORDERED = "reordered"
    """It is not younger than one that was used before."""
    UNREADABLE = "unreadable"


class SnapshotRefused(ProtocolError):
    """A sync answer that nothing was used of. ``why`` says what is wrong with it."""

    def __init__(self, why: Why, message: str, *, cure: str) -> None:
        super().__init__(message, cure=cure)
        self.why = why


@dataclass(frozen=True, slots=True)
class Expected:
    """What an answer must be: for this host, of its authority, to the question with this ``nonce``, and after ``seq``."""

    host_id: int
    authority_id: str
    signers: Mapping[str, bytes]
    nonce: bytes
    seq: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An answer that was found good, and the secrets in it by credential."""

    answer: SyncAnswer
    entries: Mapping[int, SealedEntry]


def read_snapshot(body: bytes, signature: str, expected: Expected, private: Secret) -> Snapshot:
    """Check an answer, and open what is sealed in it with this host's key.

    Raises:
        SnapshotRefused: nothing of it may be used.
    """
    try:
        verify(signature, body, expected.signers)
    except BadSignature as err:
        raise SnapshotRefused(Why.TAMPERED, str(err), cure=err.cure) from err
    try:
        answer = read_sync_answer(body)
    except ProtocolError as err:
        raise SnapshotRefused(Why.UNREADABLE, str(err), cure=err.cure) from err
    _check(answer, expected)
    entries: dict[int, SealedEntry] = {}
    if answer.sealed is not None:
        context = sync_context(
            authority_id=answer.authority_id, host_id=answer.host_id, seq=answer.seq, nonce=answer.nonce
        )
        try:
            entries = {one.credential: one for one in read_entries(open_sealed(private, context, answer.sealed))}
        except ProtocolError as err:
            raise SnapshotRefused(Why.UNREADABLE, str(err), cure=err.cure) from err
    return Snapshot(answer, entries)


def _check(answer: SyncAnswer, expected: Expected) -> None:
    if answer.authority_id != expected.authority_id:
        raise SnapshotRefused(
            Why.FOREIGN_AUTHORITY,
            "the answer is of another authority than this host joined",
            cure="see agent.authorities; to move this host to another authority, join again",
        )
    if answer.host_id != expected.host_id:
        raise SnapshotRefused(
            Why.FOREIGN_HOST,
            f"the answer is for host {answer.host_id}, and this is host {expected.host_id}",
            cure="somebody between host and authority changes answers: look for a proxy",
        )
    if answer.nonce != expected.nonce:
        raise SnapshotRefused(
            Why.REPLAYED,
            "the answer is to another question than was asked now: an old one was sent again",
            cure="somebody between host and authority sends old answers: look for a proxy or a cache",
        )
    if answer.seq <= expected.seq:
        raise SnapshotRefused(
            Why.REORDERED,
            f"the answer has number {answer.seq}, and {expected.seq} was seen before",
            cure="if the authority's clock was set back by far, wait, or join again; else somebody sends old answers",
        )
    if answer.more != (answer.page is not None) or (answer.more and answer.digest is not None):
        raise SnapshotRefused(
            Why.UNREADABLE, "the answer says that there is more and does not say what, or the reverse",
            cure="ask whether both sides are mfad of the same version",
        )  # fmt: skip
    if answer.not_after > answer.server_time + MAX_OFFLINE_S + 1.0:
        raise SnapshotRefused(
            Why.UNREADABLE, f"the lease lasts longer than {MAX_OFFLINE_S:.0f} s, which no host honours",
            cure="set a shorter max_offline for the host group",
        )  # fmt: skip


def clock_offset_s(answer: SyncAnswer, now: float) -> float:
    """By how much this host's clock is ahead of the authority's, seconds."""
    return now - answer.server_time
