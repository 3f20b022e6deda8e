"""A host asks about attempts: who may be asked about, in which order, and how often?

Room rule: the route verify. Whether a code is good the gate decides; here it is found out whose host asks, whether the user may
log in there, and whether this very event was decided before. What a host sends is checked as if a stranger had sent it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from sqlalchemy import Connection, bindparam, select

from authority.at_the_store import AtTheStore
from authority.certificate_authority import Shown
from authority.hosts_at_the_door import HostsAtTheDoor, Present, read_present
from authority.journal import HOST_NODES
from authority.requests import Answer, Asked
from mfa_core.audit import AttemptDecided, Outcome
from mfa_core.errors import Overloaded
from mfa_core.mirror import Ruled
from mfa_core.model import Attempt, ChapAnswer
from mfa_core.passcode import Passcode, PasscodeKind
from mfa_core.policy import Action
from mfa_core.secret import Secret
from mfa_core.split import Split
from mfa_core.verdict import Reason, Unready
from mfa_runtime.counsel import Referral
from mfa_runtime.ledger import Ruling, ruled_of
from mfa_runtime.protocol.message import ProtocolError, wire_text
from mfa_runtime.protocol.verifying import Reading, VerifyAnswer, VerifyAttempt, VerifyRuling, read_verify_request
from mfa_runtime.store import entitlement
from mfa_runtime.store.hosts import Host
from mfa_runtime.store.prepared import Prepared
from mfa_runtime.store.schema import audit

REMEMBERED: Final = 16_384
"""Rulings that are kept for a host that asks again because it has lost the answer; older ones stand in the audit log."""
LONGEST_S: Final = 10.0
"""A host has given up long before."""
SAME_ID: Final = 16
"""Events of one id that are looked at. An honest host makes two or three; one that made thousands spoils its own ids alone."""
SHARE: Final = 2
"""One host has at most one part in so many of what may be under way."""

log = logging.getLogger(__name__)

_ASKED = Secret(b"\0")
"""What stands for the text that was typed: it stayed on the host."""


_Key = tuple[int, str, str]
"""Of a ruling: the host, the event, and the user whom it is about."""


class Gate(Protocol):
    """Decides: :class:`mfa_runtime.verification.Verification`."""

    def refer(self, referral: Referral, told: Callable[[Ruling | BaseException], None]) -> None:
        """Decide what a host asks."""

    def action_for(self, referral: Referral) -> Action:
        """What the policy says of it."""


@dataclass(frozen=True, slots=True)
class _Known:
    """What the store says before anything is decided: who asks, who may log in there, and what was decided before."""

    present: Present | Host | None
    entitled: frozenset[str] = frozenset()
    decided: Mapping[str, str] = field(default_factory=dict)


class Verifying:
    """Answers what hosts ask. Lives on one loop. ``clock`` is Unix seconds."""

    def __init__(
        self,
        store: AtTheStore,
        at_the_door: HostsAtTheDoor,
        gate: Gate,
        *,
        note: Callable[[AttemptDecided], None],
        clock: Callable[[], float],
        capacity: int,
    ) -> None:
        self._store = store
        self._at_the_door = at_the_door
        self._gate = gate
        self._note = note
        self._clock = clock
        self.capacity = capacity
        self._under_way: Counter[int] = Counter()
        self._total = 0
        self._being_decided: dict[_Key, asyncio.Future[Ruled]] = {}
        self._decided: OrderedDict[_Key, Ruled] = OrderedDict()
        self.outcomes: Counter[str] = Counter()

    @property
    def under_way(self) -> int:
        """Attempts that are being decided."""
        return self._total

    async def verify(self, asked: Asked) -> Answer:
        """``POST /v1/verify``. Raises: Refuse, Overloaded, and what the store raises."""
        shown = self._at_the_door.shown_by(asked)
        attempts = read_verify_request(await asked.body()).attempts
        readings = [_readings(one) for one in attempts]
        fresh = [one.event_id for one in attempts]
        names = {one.name for one in attempts}
        known = await self._store.glance(lambda connection: _read(connection, shown, names, fresh))
        present = await self._at_the_door.admitted(known.present, shown, asked)
        self._take_room(present, len(attempts))
        try:
            async with asyncio.timeout(LONGEST_S):
                ruled = await asyncio.gather(
                    *(self._ruled(present, one, found, known) for one, found in zip(attempts, readings, strict=True))
                )
        except TimeoutError:
            raise Overloaded("attempts that a host asked about took too long") from None
        finally:
            self._give_room(present, len(attempts))
        return Answer(
            VerifyAnswer(
                rulings=tuple(_ruling(one.event_id, what) for one, what in zip(attempts, ruled, strict=True))
            ).octets()
        )

    def _take_room(self, present: Present, count: int) -> None:
        """Raises: Overloaded."""
        host_id = present.host.id
        if self._total + count > self.capacity or self._under_way[host_id] + count > max(1, self.capacity // SHARE):
            raise Overloaded(
                f"{self._total} attempts are being decided, {self._under_way[host_id]} of host {present.host.name}"
            )
        self._under_way[host_id] += count
        self._total += count

    def _give_room(self, present: Present, count: int) -> None:
        self._total -= count
        self._under_way[present.host.id] -= count
        if self._under_way[present.host.id] <= 0:
            del self._under_way[present.host.id]

    async def _ruled(self, present: Present, one: VerifyAttempt, found: tuple[Split, ...], known: _Known) -> Ruled:
        key = (present.host.id, one.event_id, one.name)
        before = self._decided.get(key)
        if before is not None:
            return before
        deciding = self._being_decided.get(key)
        if deciding is not None:
            return await asyncio.shield(deciding)
        body = known.decided.get(one.event_id)
        if body is not None:
            return _as_written(body, present, one.name, len(found))
        referral = _referral(present, one, found)
        is_entitled = one.name in known.entitled
        if not is_entitled and self._gate.action_for(referral) in {Action.EXEMPT, Action.DENY}:
            is_entitled, referral = True, _without_codes(referral)
        loop = asyncio.get_running_loop()
        decided: asyncio.Future[Ruled] = loop.create_future()
        self._being_decided[key] = decided

        def told(result: Ruling | BaseException) -> None:
            self._being_decided.pop(key, None)
            ruled = Ruled(Outcome.UNAVAILABLE, Unready.INTERNAL) if isinstance(result, BaseException) else ruled_of(result)
            self._remember(key, ruled)
            if not decided.done():
                decided.set_result(ruled)

        if is_entitled:
            self._gate.refer(referral, told)
        else:
            self._being_decided.pop(key, None)
            ruled = self._not_entitled(present, one)
            self._remember(key, ruled)
            decided.set_result(ruled)
        return await asyncio.shield(decided)

    def _remember(self, key: _Key, ruled: Ruled) -> None:
        self.outcomes[ruled.outcome.value] += 1
        if ruled.outcome is Outcome.UNAVAILABLE:
            return  # it may be asked again
        self._decided[key] = ruled
        if len(self._decided) > REMEMBERED:
            self._decided.popitem(last=False)

    def _not_entitled(self, present: Present, one: VerifyAttempt) -> Ruled:
        """No code is looked at and nothing is charged: whoever may not log in there is nobody there."""
        self._note(
            AttemptDecided(
                event_id=one.event_id,
                at=self._clock(),
                door=one.door,
                service=one.service,
                user=one.name,
                outcome=Outcome.REJECTED,
                reason=Reason.NOT_ENTITLED,
                source=one.source or "",
                client=one.client,
                host=present.host.name,
            )
        )
        return Ruled(Outcome.REJECTED, Reason.NOT_ENTITLED)


# -- what the store says before -----------------------------------------------------------------------------------------------

_BEFORE = Prepared(select(audit.c.body, audit.c.node).where(audit.c.event_id == bindparam("event")).limit(SAME_ID))


def _read(connection: Connection, shown: Shown, names: set[str], events: Sequence[str]) -> _Known:
    found = read_present(connection, shown)
    if not isinstance(found, Present):
        return _Known(found)
    entitled = frozenset(name for name in names if entitlement.is_entitled(connection, name, found.scope))
    decided: dict[str, str] = {}
    for event in events:
        for body, node in _BEFORE.rows(connection, {"event": event}):
            if not str(node).startswith(HOST_NODES):  # a host's own account of it is no ruling
                decided[event] = str(body)
    return _Known(found, entitled, decided)


def _as_written(body: str, present: Present, name: str, readings: int) -> Ruled:
    """A ruling from the audit log, for a host that asks again: nothing is decided twice."""
    event: dict[str, Any] = json.loads(body)
    if event.get("event") != "attempt" or event.get("host") != present.host.name or event.get("user") != name:
        # Somebody else's event: its id is not this host's to use, nor for another user.
        return Ruled(Outcome.REJECTED, Reason.MALFORMED)
    outcome = Outcome(event["outcome"])
    if outcome is Outcome.EXEMPT or (outcome is Outcome.ACCEPTED and readings > 1):
        # The log does not say under which exemption, or which of several readings was good.
        return Ruled(Outcome.UNAVAILABLE, Unready.INTERNAL)
    return Ruled(
        outcome,
        reason=str(event.get("reason", "")),
        rule=str(event.get("rule", "")),
        factor=str(event.get("factor", "")),
        credential=str(event.get("credential", "")),
        step=int(event.get("step", -1)),
        counted=int(event.get("failures", 0)) > 0,
        note=str(event.get("note", "")),
    )


# -- what travels -------------------------------------------------------------------------------------------------------------

_TEXTS: Mapping[PasscodeKind, Callable[[bytes], object]] = {
    PasscodeKind.DIGITS: re.compile(rb"[0-9]{6,10}").fullmatch,
    PasscodeKind.RECOVERY: re.compile(rb"[0-9A-HJKMNP-TV-Z]{16}").fullmatch,
    PasscodeKind.RECOVERY_KEY: re.compile(rb"[0-9A-HJKMNP-TV-Z]{24}").fullmatch,
    PasscodeKind.BYPASS: re.compile(rb"[0-9A-HJKMNP-TV-Z]{12}").fullmatch,
    PasscodeKind.KEYWORD: re.compile(rb"[a-z]{1,16}").fullmatch,
}
"""What the code of a kind looks like in its one spelling (:mod:`mfa_core.passcode`); codes of other kinds have no text."""


def _readings(one: VerifyAttempt) -> tuple[Split, ...]:
    """The readings of an attempt. Raises: ProtocolError, for what no host of ours sends."""
    if one.asks and (one.readings or one.veiled is not None):
        raise ProtocolError("VerifyAttempt: readings: a question and an answer in one")
    veiled = [reading.kind is PasscodeKind.VEILED for reading in one.readings]
    if any(veiled) is not (one.veiled is not None) or sum(veiled) > 1:
        raise ProtocolError("VerifyAttempt: veiled: a reading and an answer that do not go together")
    texts = [reading.text.reveal() for reading in one.readings if reading.kind is PasscodeKind.DIGITS]
    if not all(max(texts, key=len).endswith(text) for text in texts):
        # What was typed ends in each of them. Else a host could have several codes looked at, and be charged for one.
        raise ProtocolError("VerifyAttempt: readings: codes that do not stand in one text")
    return tuple(_split(reading) for reading in one.readings)


def _split(reading: Reading) -> Split:
    fits = _TEXTS.get(reading.kind)
    if fits is None and reading.kind in {PasscodeKind.JUNK, PasscodeKind.EMPTY, PasscodeKind.MALFORMED}:
        return Split(Secret(b""), Passcode(reading.kind, Secret(b"")))
    good = not reading.text if fits is None else bool(fits(reading.text.reveal()))
    numbered = reading.kind is PasscodeKind.RECOVERY
    if not good or (reading.index > 0) is not numbered:
        raise ProtocolError(f"VerifyAttempt: readings: a text that is no code of the kind {reading.kind}")
    return Split(Secret(b""), Passcode(reading.kind, reading.text, reading.index))


def _referral(present: Present, one: VerifyAttempt, found: tuple[Split, ...]) -> Referral:
    veiled = one.veiled
    attempt = Attempt(
        event_id=one.event_id,
        door=one.door,
        service=one.service,
        username=one.name,
        source=one.source,
        typed=None if one.asks else _ASKED,
        first_factor=one.first_factor,
        interaction=one.interaction,
        wait_s=one.wait_s,
        client=one.client,
        methods=one.methods,
        challenge_id=one.challenge_id,
        challenge_until=one.challenge_until,
        veiled=None if veiled is None else ChapAnswer(veiled.identifier, veiled.challenge, veiled.response),
        remembered=one.remembered,
    )
    return Referral(
        attempt, one.name, found, one.password, one.hidden, None if one.groups is None else frozenset(one.groups),
        frozenset({present.group.name}), present.host.id, present.host.name,
    )  # fmt: skip


_EMPTY_HANDED = frozenset({PasscodeKind.EMPTY, PasscodeKind.JUNK})
_PASSWORD_ALONE = Split(Secret(b""), Passcode(PasscodeKind.ABSENT, Secret(b"")))


def _without_codes(referral: Referral) -> Referral:
    """The same about somebody who may not log in there: no code is looked at, and his account is not charged.

    Whom the policy exempts is let in all the same; but what a host says may reach such a rule for anybody.
    """
    found = tuple(one if one.passcode.kind in _EMPTY_HANDED else _PASSWORD_ALONE for one in referral.found)
    return replace(referral, found=found, hidden=False)


def _ruling(event_id: str, ruled: Ruled) -> VerifyRuling:
    return VerifyRuling(
        event_id=event_id,
        outcome=ruled.outcome,
        reason=str(ruled.reason),
        exemption=str(ruled.exemption),
        rule=ruled.rule,
        text=wire_text(ruled.text, 1_024),
        retry_after_s=min(ruled.retry_after_s, 1e9),
        factor=ruled.factor,
        credential=ruled.credential,
        step=ruled.step,
        drift_steps=ruled.drift_steps,
        reading=ruled.reading,
        notices=tuple(wire_text(notice, 1_024) for notice in ruled.notices),
        until=ruled.until,
        counted=ruled.counted,
        note=wire_text(ruled.note, 256),
    )
