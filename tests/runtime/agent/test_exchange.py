"""What cannot travel is refused, as long as there is an authority: nobody types himself past it."""

from __future__ import annotations

import asyncio
from typing import Any

from mfa_core.audit import Outcome
from mfa_core.model import Attempt, ChapAnswer, Door, FirstFactor, Interaction
from mfa_core.passcode import Passcode, PasscodeKind
from mfa_core.secret import Secret
from mfa_core.split import Split
from mfa_runtime.agent.exchange import VerifyExchange
from mfa_runtime.agent.http import Answer
from mfa_runtime.counsel import Referred, Ruled
from mfa_runtime.protocol.verifying import VerifyAnswer, VerifyRequest, VerifyRuling

VEILED = (Split(Secret(b""), Passcode(PasscodeKind.VEILED, Secret(b""))),)


class Authority:
    """Accepts all that it is asked about."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def post(self, path: str, body: bytes, **_: Any) -> Answer:
        attempts = VerifyRequest.read(body).attempts
        self.asked += [one.event_id for one in attempts]
        rulings = tuple(VerifyRuling(event_id=one.event_id, outcome=Outcome.ACCEPTED) for one in attempts)
        return Answer(VerifyAnswer(rulings=rulings).octets())


def referred(event_id: str, challenge: bytes) -> Referred:
    attempt = Attempt(
        event_id=event_id, door=Door.RADIUS, service="vpn", username="alice", source=None, typed=Secret(b"veiled"),
        first_factor=FirstFactor.ELSEWHERE, interaction=Interaction.ONE_SHOT, veiled=ChapAnswer(7, challenge, bytes(16)),
    )  # fmt: skip
    return Referred(attempt, "alice", VEILED)


def test_an_attempt_that_cannot_travel_is_not_decided_here() -> None:
    authority: Any = Authority()
    exchange = VerifyExchange(lambda: authority, try_s=1.0)
    # RADIUS has attributes without a value: a CHAP-Challenge of no octets.
    bad, good = referred("e1", b""), referred("e2", b"c" * 16)

    both = asyncio.run(exchange.verify([bad, good], budget_s=1.0))
    alone = asyncio.run(exchange.verify([bad], budget_s=1.0))

    assert [one.outcome if isinstance(one, Ruled) else one for one in both] == [Outcome.UNAVAILABLE, Outcome.ACCEPTED]
    assert [one.outcome if isinstance(one, Ruled) else one for one in alone] == [Outcome.UNAVAILABLE]
    assert authority.asked == ["e2"]
