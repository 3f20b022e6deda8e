"""The messages of an attempt that a host asks the authority about.

Passwords never travel. What was typed has been taken apart on the host, with the formats of the user's own codes: each reading
is the code that may stand in it, and the host keeps the password that would stand before it.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mfa_core.audit import Outcome
from mfa_core.model import Door, FirstFactor, Interaction
from mfa_core.passcode import MAX_RECOVERY_INDEX, MAX_TYPED_BYTES, PasscodeKind
from mfa_core.secret import Secret
from mfa_core.verifier import Password
from mfa_runtime.protocol.message import Message, Octets, SecretOctets, Step, Time, between, chars, plain
from mfa_runtime.protocol.words import MAX_ATTEMPTS

MAX_READINGS = 4
MAX_GROUPS = 4_096
MAX_NOTICES = 16
CHAP_RESPONSE_OCTETS = 16
"""MD5 (RFC 1994 section 4.1)."""
MAX_WAIT_FOR_FACTOR_S = 3_600.0

EventId = Annotated[str, Field(pattern=r"\A[0-9A-Za-z]{1,32}\z")]
Outside = Annotated[str, chars(256)]
"""A text that somebody else chose."""


class Reading(Message):
    """One reading of what was typed. ``text`` is the code in its one spelling, ``index`` the number of a recovery code."""

    kind: PasscodeKind
    text: Annotated[Secret, SecretOctets(MAX_TYPED_BYTES)]
    index: Annotated[int, between(0, MAX_RECOVERY_INDEX)] = 0


class VeiledReading(Message):
    """A CHAP response (RFC 1994 section 4.1): the MD5 of identifier, code and challenge."""

    identifier: Annotated[int, between(0, 255)]
    challenge: Annotated[bytes, Octets(1, 253)]
    response: Annotated[bytes, Octets(CHAP_RESPONSE_OCTETS, CHAP_RESPONSE_OCTETS)]


class VerifyAttempt(Message):
    """One attempt. ``name`` is canonical. ``asks``: nothing was typed yet, and the door could ask.

    ``event_id`` is asked about once: a second time gets the same ruling. ``password`` is what the host's own backend said,
    and ``hidden`` that a code may stand in a wrong one. ``groups`` are those of the user as the host knows them, null where
    it cannot say.
    """

    event_id: EventId
    door: Door
    service: Outside
    name: Annotated[str, plain(256, 1)]
    source: Annotated[str, plain(64)] | None
    client: Outside
    first_factor: FirstFactor
    interaction: Interaction
    methods: Annotated[tuple[Outside, ...], Field(max_length=16)]
    wait_s: Annotated[float, Field(ge=0.0, le=MAX_WAIT_FOR_FACTOR_S)]
    password: Password
    hidden: bool
    asks: bool
    readings: Annotated[tuple[Reading, ...], Field(max_length=MAX_READINGS)]
    veiled: VeiledReading | None
    challenge_id: Annotated[str, plain(64)]
    challenge_until: Time
    remembered: Annotated[str, plain(64)]
    groups: Annotated[tuple[Annotated[str, chars(256, 1)], ...], Field(max_length=MAX_GROUPS)] | None


class VerifyRequest(Message):
    """What waits together goes together."""

    LIMIT = 4 << 20

    attempts: Annotated[tuple[VerifyAttempt, ...], Field(min_length=1, max_length=MAX_ATTEMPTS)]


class VerifyRuling(Message):
    """What the authority said of the attempt of ``event_id``.

    ``reason`` is that of a refusal (:class:`mfa_core.verdict.Reason` or ``Unready``), ``exemption`` that of an exemption.
    ``reading`` says which reading was good, -1 for none; ``step`` is the time step or counter that is now spent, -1 for none;
    ``until`` ends a challenge or a lock, Unix seconds; ``counted``: the account has a failure more.
    """

    event_id: EventId
    outcome: Outcome
    reason: Annotated[str, chars(64)] = ""
    exemption: Annotated[str, chars(64)] = ""
    rule: Annotated[str, chars(128)] = ""
    text: Annotated[str, chars(1_024)] = ""
    retry_after_s: Annotated[float, Field(ge=0.0, le=1e9)] = 0.0
    factor: Annotated[str, chars(32)] = ""
    credential: Annotated[str, chars(64)] = ""
    step: Step = -1
    drift_steps: Annotated[int, between(-1_000_000, 1_000_000)] = 0
    reading: Annotated[int, between(-1, MAX_READINGS)] = -1
    notices: Annotated[tuple[Annotated[str, chars(1_024)], ...], Field(max_length=MAX_NOTICES)] = ()
    until: Time = 0.0
    counted: bool = False
    note: Annotated[str, chars(256)] = ""


class VerifyAnswer(Message):
    """One ruling for each attempt, in their order."""

    LIMIT = 2 << 20

    rulings: Annotated[tuple[VerifyRuling, ...], Field(min_length=1, max_length=MAX_ATTEMPTS)]


def read_verify_request(octets: bytes) -> VerifyRequest:
    """Raises: ProtocolError."""
    return VerifyRequest.read(octets)


def read_verify_answer(octets: bytes) -> VerifyAnswer:
    """Raises: ProtocolError."""
    return VerifyAnswer.read(octets)
