"""What is written down: typed events, one for each verdict, and their canonical form.

Room rule: event types and the chain's arithmetic live here; where events go is the runtime's business. No event has a field
that could hold a secret, a code or a password, and text from outside is cut and escaped here, once.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from json.encoder import encode_basestring_ascii as _quote
from math import isfinite

from mfa_core.value import hot_value

MAX_TEXT = 256
"""Characters of outside text (a user name, a service) that an event keeps."""

GENESIS = b"\0" * 32
"""The hash before the first event of a node."""


class Outcome(enum.StrEnum):
    """What a verdict was."""

    ACCEPTED = "accepted"
    EXEMPT = "exempt"
    CHALLENGED = "challenged"
    PENDING = "pending"
    REJECTED = "rejected"
    UNAVAILABLE = "unavailable"


class By(enum.StrEnum):
    """Who decided, in the log of a host that has an authority. Elsewhere nothing is said: who writes the log has decided."""

    AUTHORITY = "authority"
    """The authority has ruled, and has an event of its own under the same id: this one tells it nothing new, except where the
    reason is REPLAYED and a note says that the step was spent here before."""
    HOST = "host"
    """The host alone: the authority has still to hear of it."""


@hot_value
class AttemptDecided:
    """One verdict. ``at`` is Unix seconds; ``step`` is the spent time step or counter, -1 when none.

    ``failures`` is what the account's count of consecutive failures came to, 0 where it was not charged. ``by`` is a
    :class:`By` or "". ``host`` is the name of the host that asked, in the log of an authority.
    """

    event_id: str
    at: float
    door: str
    service: str
    user: str
    outcome: Outcome
    reason: str = ""
    rule: str = ""
    source: str = ""
    client: str = ""
    factor: str = ""
    credential: str = ""
    step: int = -1
    failures: int = 0
    note: str = ""
    by: str = ""
    host: str = ""

    def fields(self) -> dict[str, object]:
        """What stands in the log, without what is empty, in the order of the keys."""
        row: dict[str, object] = {"at": self.at}
        if self.by:
            row["by"] = self.by
        if self.client:
            row["client"] = self.client[:MAX_TEXT]
        if self.factor:
            row["credential"] = self.credential
        row["door"] = self.door
        row["event"] = "attempt"
        if self.factor:
            row["factor"] = self.factor
        if self.failures:
            row["failures"] = self.failures
        if self.host:
            row["host"] = self.host[:MAX_TEXT]
        row["id"] = self.event_id
        if self.note:
            row["note"] = self.note[:MAX_TEXT]
        row["outcome"] = self.outcome
        if self.reason:
            row["reason"] = self.reason
        if self.rule:
            row["rule"] = self.rule
        row["service"] = self.service[:MAX_TEXT]
        if self.source:
            row["source"] = self.source[:MAX_TEXT]
        if self.step >= 0:
            row["step"] = self.step
        row["user"] = self.user[:MAX_TEXT]
        return row


@dataclass(frozen=True, slots=True)
class Administered:
    """Something an administrator (or a person, enrolling) changed. ``action`` reads ``user.lock``; details hold no secret."""

    event_id: str
    at: float
    actor: str
    action: str
    subject: str = ""
    details: Mapping[str, str | int | float] = field(default_factory=dict)

    def fields(self) -> dict[str, object]:
        """What stands in the log, in the order of the keys."""
        row: dict[str, object] = {"action": self.action, "actor": self.actor[:MAX_TEXT], "at": self.at}
        if self.details:
            row["details"] = {
                key: v[:MAX_TEXT] if isinstance(v, str) else v for key, v in sorted(self.details.items())
            }
        row |= {"event": "admin", "id": self.event_id}
        if self.subject:
            row["subject"] = self.subject[:MAX_TEXT]
        return row


Event = AttemptDecided | Administered

def canonical(event: Event) -> str:
    """The one text of an event: JSON with sorted keys, no blanks, ASCII (control characters cannot forge a line)."""
    return _attempt(event) if isinstance(event, AttemptDecided) else _object(event.fields())


def _attempt(event: AttemptDecided) -> str:
    # What _object(event.fields()) gives, in a third of its time again; a test holds the three ways against each other.
    factor = event.factor
    text = f'{{"at":{_number(event.at)}'
    if event.by:
        text += f',"by":{_quote(event.by)}'
    if event.client:
        text += f',"client":{_quote(event.client[:MAX_TEXT])}'
    if factor:
        text += f',"credential":{_quote(event.credential)}'
    text += f',"door":{_quote(event.door)},"event":"attempt"'
    if factor:
        text += f',"factor":{_quote(factor)}'
    if event.failures:
        text += f',"failures":{event.failures!r}'
    if event.host:
        text += f',"host":{_quote(event.host[:MAX_TEXT])}'
    text += f',"id":{_quote(event.event_id)}'
    if event.note:
        text += f',"note":{_quote(event.note[:MAX_TEXT])}'
    text += f',"outcome":{_quote(event.outcome)}'
    if event.reason:
        text += f',"reason":{_quote(event.reason)}'
    if event.rule:
        text += f',"rule":{_quote(event.rule)}'
    text += f',"service":{_quote(event.service[:MAX_TEXT])}'
    if event.source:
        text += f',"source":{_quote(event.source[:MAX_TEXT])}'
    if event.step >= 0:
        text += f',"step":{event.step!r}'
    return f'{text},"user":{_quote(event.user[:MAX_TEXT])}}}'


def _object(row: Mapping[str, object]) -> str:
    # What json.dumps(sort_keys=True, separators=(",", ":")) gives for these few types, in a third of its time: every login
    # pays for it. ``fields`` keeps the order.
    return "{" + ",".join([f"{_quote(key)}:{_value(value)}" for key, value in row.items()]) + "}"


def _value(value: object) -> str:
    if isinstance(value, str):
        return _quote(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return repr(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, Mapping):
        return _object(value)
    raise TypeError(f"an event holds a {type(value).__name__}, expected text or a number")


@lru_cache(maxsize=4)  # the events of one batch have one time, and writing it takes a microsecond
def _number(value: float) -> str:
    if not isfinite(value):
        raise ValueError(f"an event holds {value}, which JSON has not")
    return repr(value)


def link(previous: bytes, body: str) -> bytes:
    """The hash of an event in its chain: SHA-256 over the previous hash and the canonical text."""
    return hashlib.sha256(previous + body.encode("ascii")).digest()
