"""The messages about how things stand: health, the journal of a host, and refusals."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mfa_runtime.protocol.message import Label, Message, Octets, Rising, Time, between, chars
from mfa_runtime.protocol.words import MAX_BODIES, Refusal

HASH_OCTETS = 32
Hash = Annotated[bytes, Octets(HASH_OCTETS, HASH_OCTETS)]
MAX_BODY_CHARS = 65_536
"""The canonical text of one event; outside texts in it are cut to 256 characters each, of which each may take twelve."""
Body = Annotated[str, Field(min_length=2, max_length=MAX_BODY_CHARS, pattern=r"\A[ -~]+\z")]


class JournalHead(Message):
    """How far a journal goes: its epoch, the number of its last event (0: none) and the hash of that."""

    epoch: Annotated[int, between(1, 2**31 - 1)]
    seq: Rising
    hash: Hash


class JournalRequest(Message):
    """Events of a host's journal, in their order; ``previous`` is the hash before the first of them."""

    LIMIT = 5 << 20

    epoch: Annotated[int, between(1, 2**31 - 1)]
    first_seq: Annotated[int, Field(ge=1, le=2**63 - 1)]
    previous: Hash
    bodies: Annotated[tuple[Body, ...], Field(min_length=1, max_length=MAX_BODIES)]


class Health(Message):
    """The authority can decide. ``now`` is its clock."""

    authority_id: Label
    now: Time


class Refused(Message):
    """Why a request was refused. ``journal`` is there with ``journal_fork``: how far the authority has it."""

    error: Annotated[str, chars(64, 1)]
    text: Annotated[str, chars(1_024)] = ""
    cure: Annotated[str, chars(1_024)] = ""
    journal: JournalHead | None = None

    @property
    def refusal(self) -> Refusal | None:
        """The code; None for one that this version does not know."""
        return Refusal(self.error) if self.error in list(Refusal) else None


def read_journal_request(octets: bytes) -> JournalRequest:
    """Raises: ProtocolError."""
    return JournalRequest.read(octets)


def read_journal_answer(octets: bytes) -> JournalHead:
    """Raises: ProtocolError."""
    return JournalHead.read(octets)


def read_health(octets: bytes) -> Health:
    """Raises: ProtocolError."""
    return Health.read(octets)


def read_refused(octets: bytes) -> Refused:
    """Raises: ProtocolError."""
    return Refused.read(octets)
