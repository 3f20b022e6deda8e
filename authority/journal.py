"""What did a host do while it was alone?

Room rule: the route journal, and how a host's journal stands in a sync: link by link from what is here, stored as a chain of
its own, merged where it was the host that decided. A host is believed what makes accounts stricter, within its scope and within
what the clock allows; a chain that does not continue ours is no chain.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import Connection

from authority.acts import Acts
from authority.hosts_at_the_door import HostsAtTheDoor, Present, check_state, read_again
from authority.requests import Answer, Asked, Refuse
from mfa_core.audit import GENESIS, By, Outcome, link
from mfa_core.errors import Conflict, NotFound
from mfa_core.model import FactorKind
from mfa_runtime.administration.act import Act
from mfa_runtime.administration.credentials import suspend_credential
from mfa_runtime.protocol.reporting import JournalHead, JournalRequest, read_journal_request
from mfa_runtime.protocol.words import Refusal
from mfa_runtime.store import audit_log, entitlement, hosts, merging, uses
from mfa_runtime.store.alarms import AlarmKind, raise_alarm
from mfa_runtime.store.audit_log import Told
from mfa_runtime.store.hosts import Host
from mfa_runtime.store.uses import Clash, Use

AHEAD_STEPS: Final = 12
"""How many steps ahead of the present one a host may have accepted a code: the window, and a telephone's drift."""
HOST_NODES: Final = "host:"
"""What the names of all chains of hosts begin with."""
_EVENT_ID = re.compile(r"[0-9A-Za-z]{1,32}").fullmatch
_CREDENTIAL = re.compile(r"totp:([1-9][0-9]{0,17})").fullmatch
_NAME = re.compile(r"[!-~]{1,256}").fullmatch
"""What a user can be called. Anybody can type anything else at a door of a host: a store may not even be able to look it up."""
_MAX_TIME_S: Final = 1e12
_DECIDED_BY: Final = (By.HOST.value, By.AUTHORITY.value)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class JournalSettings:
    """``suspends``: a code that was used on two hosts suspends its credential. ``hard_cap`` is that of failures in a row."""

    suspends: bool
    hard_cap: int


def node_of(host_id: int, epoch: int) -> str:
    """The name of a host's chain in the audit log."""
    return f"{HOST_NODES}{host_id}:{epoch}"


class Journals:
    """Takes journals in."""

    def __init__(self, acts: Acts, at_the_door: HostsAtTheDoor, settings: Callable[[], JournalSettings]) -> None:
        self._acts = acts
        self._at_the_door = at_the_door
        self._settings = settings
        self.merged = 0
        """Events that were taken in."""

    async def standing(self, present: Present, head: JournalHead) -> JournalHead | None:
        """How far the journal of a host is here, where it says that its own goes to ``head``; None for a fork.

        Raises: Refuse, and what the store raises.
        """
        host = present.host
        if head.epoch == host.journal_epoch and not _is_fork(host, head):
            return _head(host)
        if head.epoch < host.journal_epoch:
            await self._older(host, head.epoch)
            return None
        return await self._acts.do(lambda connection, act: _met(connection, act, host, head))

    async def upload(self, asked: Asked) -> Answer:
        """``POST /v1/journal``. Raises: Refuse, and what the store raises."""
        present = await self._at_the_door.who(asked)
        request = read_journal_request(await asked.body())
        told = [_told(body) for body in request.bodies]
        if request.epoch < present.host.journal_epoch:
            await self._older(present.host, request.epoch)
            raise _forked(present.host)
        settings = self._settings()

        def work(connection: Connection, act: Act) -> JournalHead | Host:
            return _take(connection, act, present, request, told, settings)

        head = await self._acts.do(work)
        if isinstance(head, Host):  # written down there, so that it does not end with an exception
            raise _forked(head)
        self.merged += len(told)
        return Answer(head.octets())

    async def _older(self, host: Host, epoch: int) -> None:
        """Somebody goes on with a journal that this host has given up: there are two of it. Only who was released since then
        is the one that an administrator took for the right one, and begins anew.

        Raises: Refuse, and what the store raises.
        """
        if host.cursor == hosts.RELEASED:
            return
        await self._at_the_door.quarantine(
            host, AlarmKind.CLONE_SUSPECTED, reason=f"journal {epoch} was shown, and journal {host.journal_epoch} before it"
        )
        raise Refuse(
            Refusal.QUARANTINED, "a journal was shown that this host has given up",
            cure="find out which machine is the real one, then at the authority: `mfactl agent release HOST`",
        )  # fmt: skip


def _head(host: Host) -> JournalHead:
    return JournalHead(epoch=host.journal_epoch, seq=host.journal_seq, hash=host.journal_hash)


def _forked(host: Host) -> Refuse:
    return Refuse(
        Refusal.JOURNAL_FORK, "this journal does not continue what is here",
        cure="begin a new one; if this host was not restored, find out who else has its keys", journal=_head(host),
    )  # fmt: skip


def _is_fork(host: Host, head: JournalHead) -> bool:
    return head.seq < host.journal_seq or (head.seq == host.journal_seq and head.hash != host.journal_hash)


def _met(connection: Connection, act: Act, host: Host, head: JournalHead) -> JournalHead | None:
    """A journal that is not the one that is here: a fork, or one that was begun after it."""
    if head.epoch == host.journal_epoch:
        _alarm(connection, act, host, f"its journal ends at {head.seq}, and {host.journal_seq} events are here")
        return None
    begun = _begin(connection, act, host, head.epoch)
    return None if begun is None else _head(begun)


def _begin(connection: Connection, act: Act, host: Host, epoch: int) -> Host | None:
    """The host has begun a new journal. None where somebody was faster."""
    if not hosts.move_journal(connection, host, epoch=epoch, seq=0, digest=GENESIS):
        return None
    if host.journal_seq or host.cursor >= 0:  # one that has joined anew begins with a number that no journal of its had
        _alarm(connection, act, host, f"it has begun journal {epoch}, after {host.journal_seq} events of {host.journal_epoch}")
    act.record(connection, "host.new_journal", host.name, host=host.id, epoch=epoch)
    return replace(host, journal_epoch=epoch, journal_seq=0, journal_hash=GENESIS)


def _alarm(connection: Connection, act: Act, host: Host, reason: str) -> None:
    if raise_alarm(connection, AlarmKind.JOURNAL_FORK, now=act.now, host_id=host.id, details={"reason": reason}):
        log.error("host %s (%d): %s", host.name, host.id, reason)


def _take(
    connection: Connection,
    act: Act,
    present: Present,
    request: JournalRequest,
    told: Sequence[Told],
    settings: JournalSettings,
) -> JournalHead | Host:
    """Take a batch in; the host as it stands where it is a fork."""
    again = read_again(connection, present.host.id)
    if again is None:
        raise Refuse(Refusal.UNKNOWN_HOST, "this host is known no more")
    check_state(again.host)
    host = again.host
    if request.epoch != host.journal_epoch:
        begun = _begin(connection, act, host, request.epoch) if request.epoch > host.journal_epoch else None
        if begun is None:
            raise Refuse(Refusal.UNAVAILABLE, "another request is at work on this journal", cure="ask again")
        host = begun
    node = node_of(host.id, host.journal_epoch)
    if request.first_seq > host.journal_seq + 1:
        return _head(host)  # there is a gap: it hears from where on
    if _hash_at(connection, host, request.first_seq - 1) != request.previous:
        _alarm(connection, act, host, f"it sent event {request.first_seq} after another one than is here")
        return host
    fresh: list[Told] = []
    digest = request.previous
    for seq, one in enumerate(told, request.first_seq):
        digest = link(digest, one.body)
        if seq == host.journal_seq and digest != host.journal_hash:
            _alarm(connection, act, host, f"it sent another event {seq} than is here")
            return host
        if seq > host.journal_seq:
            # The log is shown by time: events dated far ahead would stand before all others for ever.
            fresh.append(one._replace(at=min(one.at, act.now)))
    if not fresh:
        last = request.first_seq + len(told) - 1
        if _hash_at(connection, host, last) != digest:
            _alarm(connection, act, host, f"it sent another event {last} than is here")
            return host
        return _head(host)
    seq = host.journal_seq + len(fresh)
    if not hosts.move_journal(connection, host, epoch=host.journal_epoch, seq=seq, digest=digest):
        raise Refuse(Refusal.UNAVAILABLE, "another request is at work on this journal", cure="ask again")
    act.check_keys(connection)
    audit_log.append_told(connection, fresh, node=node, keyring=act.keyring)
    _merge(connection, act, again, fresh, settings)
    return JournalHead(epoch=host.journal_epoch, seq=seq, hash=digest)


def _hash_at(connection: Connection, host: Host, seq: int) -> bytes | None:
    if seq == host.journal_seq:
        return host.journal_hash
    return audit_log.hash_at(connection, node_of(host.id, host.journal_epoch), seq)


def _told(body: str) -> Told:
    """An event as a host has written it. Raises: Refuse."""
    try:
        value = json.loads(body)
        event_id, at = value["id"], value["at"]
        if not isinstance(event_id, str) or not _EVENT_ID(event_id):
            raise ValueError(event_id)
        if isinstance(at, bool) or not isinstance(at, int | float) or not 0 <= at <= _MAX_TIME_S:
            raise ValueError(at)
    except (ValueError, TypeError, KeyError, RecursionError):
        raise Refuse(
            Refusal.BAD_REQUEST, "an event in this journal is none", cure="ask whether both sides are mfad of the same version"
        ) from None
    return Told(event_id, float(at), body)


# -- what follows from it -----------------------------------------------------------------------------------------------------


def _merge(
    connection: Connection, act: Act, present: Present, told: Sequence[Told], settings: JournalSettings
) -> None:
    """Bring what the host decided alone into the accounts, and what an authority has accepted that does not know of it any
    more: one that was put back to an older state."""
    failures: dict[str, tuple[int, float]] = {}
    ours: list[Use] = []
    for one in told:
        event: dict[str, Any] = json.loads(one.body)
        if event.get("event") != "attempt" or event.get("by") not in _DECIDED_BY:
            continue
        at = min(one.at, act.now)  # a clock that is ahead must not keep an account shut
        if event.get("outcome") == Outcome.ACCEPTED.value:
            use = _use(event, present.host.id, one.event_id, at)
            if use is None:
                continue
            if event["by"] == By.HOST.value:
                _merge_use(connection, act, present, use, settings)
            else:
                ours.append(use)
        elif event["by"] != By.HOST.value:
            continue  # it was counted where it was decided
        elif event.get("outcome") == Outcome.REJECTED.value and _counts(event.get("failures")):
            name = event.get("user")
            if isinstance(name, str) and _NAME(name):
                count, last = failures.get(name, (0, 0.0))
                failures[name] = (count + 1, max(last, at))
    remembered = uses.known(connection, ours)
    for use in ours:
        if use not in remembered:
            _merge_use(connection, act, present, use, settings)
    known = {
        name: counted
        for name, counted in failures.items()
        if merging.user_id_of(connection, name) is not None and entitlement.is_entitled(connection, name, present.scope)
    }
    merging.add_failures(connection, known, hard_cap=settings.hard_cap)


def _counts(failures: object) -> bool:
    return isinstance(failures, int) and not isinstance(failures, bool) and failures > 0


def _use(event: dict[str, Any], host_id: int, event_id: str, at: float) -> Use | None:
    """The code by time that this event spent; None where it spent none."""
    label, step = event.get("credential"), event.get("step")
    parts = _CREDENTIAL(label) if isinstance(label, str) else None
    if parts is None or isinstance(step, bool) or not isinstance(step, int) or not 0 <= step < 2**63:
        return None
    return Use(int(parts[1]), step, host_id, event_id, at)


def _merge_use(connection: Connection, act: Act, present: Present, use: Use, settings: JournalSettings) -> None:
    owner = merging.owner_of(connection, use.credential_id)
    if owner is None:
        return
    user_id, _, kind, period_s, only_host = owner
    if kind != FactorKind.TOTP or period_s <= 0 or only_host not in {0, present.host.id}:
        return
    if not entitlement.is_entitled(connection, user_id, present.scope):
        return
    if use.step > int(act.now // period_s) + AHEAD_STEPS:
        log.error(
            "host %s says that step %d of totp:%d was used, which is to come", present.host.name, use.step, use.credential_id
        )
        return
    merging.raise_watermark(connection, use.credential_id, use.step, use.at)
    for clash in uses.record(connection, [use]):
        _clashed(connection, act, present.host, user_id, clash, settings)


def _clashed(
    connection: Connection, act: Act, host: Host, user_id: int, clash: Clash, settings: JournalSettings
) -> None:
    """One code, two uses: somebody read it, or a person was quick. Nobody can tell which, so that somebody has to look."""
    first, second = clash
    details: dict[str, str | float] = {
        "credential": first.credential_id,
        "step": first.step,
        "first_event": first.event_id,
        "first_host": first.host_id,
        "second_event": second.event_id,
        "second_host": second.host_id,
    }
    if raise_alarm(
        connection, AlarmKind.REPLAY_SUSPECTED, now=act.now, host_id=host.id, user_id=user_id, details=details
    ):
        log.error("step %d of credential %d was used twice, at last on host %s", first.step, first.credential_id, host.name)
        act.record(connection, "replay.suspected", host.name, **details)
    if settings.suspends:
        try:
            suspend_credential(connection, act, first.credential_id, force=True)
        except (Conflict, NotFound) as err:  # it is suspended, or gone
            log.info("credential %d was not suspended: %s", first.credential_id, err)
