"""A question to the authority, and its ruling, as they travel.

Room rule: mappings between :mod:`mfa_runtime.counsel` and :mod:`mfa_runtime.protocol.verifying`, and one request. Passwords
stop here: of a reading only the code goes out. A ruling counts for the event that it names, and for no other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from pydantic import ValidationError

from mfa_core.audit import Outcome
from mfa_core.model import ChapAnswer
from mfa_core.verdict import Exemption, Reason, Unready
from mfa_runtime.agent.http import Authorities, Unreachable
from mfa_runtime.counsel import Referred, Ruled
from mfa_runtime.protocol.message import ProtocolError, unfit, wire_text
from mfa_runtime.protocol.verifying import (
    MAX_GROUPS,
    MAX_WAIT_FOR_FACTOR_S,
    Reading,
    VeiledReading,
    VerifyAttempt,
    VerifyRequest,
    VerifyRuling,
    read_verify_answer,
)
from mfa_runtime.protocol.words import VERIFY

log = logging.getLogger(__name__)

_MAX_METHODS = 16
_REASONS = frozenset(Reason)
_EXEMPTIONS = frozenset(Exemption)
_DECIDED = frozenset({Outcome.ACCEPTED, Outcome.EXEMPT, Outcome.CHALLENGED, Outcome.REJECTED})


class VerifyExchange:
    """Asks over HTTPS: an :class:`mfa_runtime.agent.link.Exchange`. ``try_s`` is how long one authority may take, seconds."""

    def __init__(self, authorities: Callable[[], Authorities], *, try_s: float) -> None:
        self._authorities = authorities
        self._try_s = try_s

    async def verify(self, referred: Sequence[Referred], *, budget_s: float) -> list[Ruled | None]:
        """See :class:`mfa_runtime.agent.link.Exchange`. Raises: Unreachable, Refused."""
        sendable: list[Referred] = []
        written: list[VerifyAttempt] = []
        read: dict[str, Ruled | None] = {}
        for one in referred:
            try:
                written.append(write_referred(one))
                sendable.append(one)
            except ValidationError as err:  # an empty CHAP challenge, for one: this login's trouble and not its neighbours'
                why = unfit("VerifyAttempt", err)
                log.warning("attempt %s cannot be asked about, and is refused: %s", one.attempt.event_id, why)
                # Not None: nobody may bring this host to decide alone by typing what cannot travel.
                read[one.attempt.event_id] = Ruled(Outcome.UNAVAILABLE, Unready.INTERNAL)
        if not sendable:
            return [read[one.attempt.event_id] for one in referred]
        request = VerifyRequest(attempts=tuple(written))
        answer = await self._authorities().post(VERIFY, request.octets(), try_s=self._try_s, budget_s=budget_s)
        try:
            rulings = read_verify_answer(answer.body).rulings
            if len(rulings) != len(sendable):
                raise ProtocolError(f"{len(rulings)} rulings for {len(sendable)} attempts")
            read |= {one.attempt.event_id: read_ruling(ruling, one) for ruling, one in zip(rulings, sendable, strict=True)}
        except ProtocolError as err:
            raise Unreachable(f"{answer.url} answers what cannot be used: {err}", cure=err.cure) from err
        return [read.get(one.attempt.event_id) for one in referred]


def write_referred(referred: Referred) -> VerifyAttempt:
    """The question as it travels. Raises: ValidationError, for one that cannot."""
    attempt, groups = referred.attempt, referred.groups
    veiled = attempt.veiled
    return VerifyAttempt(
        event_id=attempt.event_id,
        door=attempt.door,
        service=wire_text(attempt.service, 256),
        name=referred.name,
        source=None if attempt.source is None else wire_text(attempt.source, 64),
        client=wire_text(attempt.client, 256),
        first_factor=attempt.first_factor,
        interaction=attempt.interaction,
        methods=tuple(wire_text(method, 256) for method in attempt.methods[:_MAX_METHODS]),
        wait_s=min(max(0.0, attempt.wait_s), MAX_WAIT_FOR_FACTOR_S),
        password=referred.password,
        hidden=referred.hidden,
        asks=attempt.typed is None,
        readings=tuple(
            Reading(kind=one.passcode.kind, text=one.passcode.text, index=one.passcode.recovery_index)
            for one in referred.found
        ),
        veiled=(
            VeiledReading(identifier=veiled.identifier, challenge=veiled.challenge, response=veiled.response)
            if isinstance(veiled, ChapAnswer)
            else None
        ),
        challenge_id=attempt.challenge_id,
        challenge_until=attempt.challenge_until,
        remembered=attempt.remembered,
        # More than travel would be too many to be told apart: then it is as if nobody knew them.
        groups=None if groups is None or len(groups) > MAX_GROUPS else tuple(sorted(groups)),
    )


def read_ruling(ruling: VerifyRuling, referred: Referred) -> Ruled | None:
    """What the authority ruled about ``referred``; None where it could not decide.

    Raises:
        ProtocolError: it is about something else, or says what no ruling says.
    """
    if ruling.event_id != referred.attempt.event_id:
        raise ProtocolError("a ruling is about another event than was asked about")
    if ruling.outcome not in _DECIDED:
        return None
    if ruling.outcome is Outcome.REJECTED and ruling.reason not in _REASONS:
        raise ProtocolError("a refusal has a reason that is not known here", cure="bring this host's mfad up to date")
    if ruling.outcome is Outcome.EXEMPT and ruling.exemption not in _EXEMPTIONS:
        raise ProtocolError("an exemption has a reason that is not known here", cure="bring this host's mfad up to date")
    if ruling.reading >= max(1, len(referred.found)):
        raise ProtocolError(f"reading {ruling.reading} was accepted, of {len(referred.found)} that were asked about")
    return Ruled(
        outcome=ruling.outcome,
        reason=ruling.reason,
        exemption=ruling.exemption,
        rule=ruling.rule,
        text=ruling.text,
        retry_after_s=ruling.retry_after_s,
        factor=ruling.factor,
        credential=ruling.credential,
        step=ruling.step,
        drift_steps=ruling.drift_steps,
        reading=ruling.reading,
        notices=ruling.notices,
        until=ruling.until,
        counted=ruling.counted,
        note=ruling.note,
    )
