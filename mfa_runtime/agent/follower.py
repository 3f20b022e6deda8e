"""The life of an agent beside its doors: look for the authority, tell it what was decided, hear what is new, hold the lease.

Room rule: the order of things. What was decided here alone reaches the authority before it is asked about any other login, or
a code that was spent here could be good once more elsewhere by our own asking. One process of a host does this; the others
read in the store what it has written (:mod:`mfa_runtime.agent.watcher`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from mfa_core.errors import ConfigurationError, MfaError, StoreUnavailable
from mfa_core.offline import Moment
from mfa_runtime.administration.act import Act
from mfa_runtime.agent import cache, journal, own_keys
from mfa_runtime.agent.breaker import Happening, State, spread
from mfa_runtime.agent.cache import Applied, ManifestMismatch, Progress
from mfa_runtime.agent.contact import Contact
from mfa_runtime.agent.cut_off import write_standing
from mfa_runtime.agent.exchange import VerifyExchange
from mfa_runtime.agent.http import Refused, Unreachable
from mfa_runtime.agent.identity import Certificate, HostKey
from mfa_runtime.agent.joining import ACTOR, renew
from mfa_runtime.agent.journal import node_of
from mfa_runtime.agent.link import Link
from mfa_runtime.agent.news import News
from mfa_runtime.agent.snapshot import (
    MAX_CLOCK_OFFSET_S,
    Expected,
    Snapshot,
    SnapshotRefused,
    clock_offset_s,
    read_snapshot,
)
from mfa_runtime.agent.trouble import Trouble, What, read_trouble
from mfa_runtime.config.rules_document import SharedRules, read_rules
from mfa_runtime.protocol.message import ProtocolError
from mfa_runtime.protocol.reporting import JournalHead, read_health
from mfa_runtime.protocol.syncing import NONCE_OCTETS, Cursor, SyncRequest, rules_digest
from mfa_runtime.protocol.words import HEALTH, SYNC
from mfa_runtime.sealing import RandomBytes, UnknownKey
from mfa_runtime.store import agent_state
from mfa_runtime.store.agent_state import AgentState
from mfa_runtime.upkeep import LOG_BYTES

log = logging.getLogger(__name__)

JOURNAL_EVERY_S = 1.0
JOIN_LOOK_S = 1.0
"""How often a host that has not joined looks whether somebody has let it join meanwhile."""
REFUSED_LOOK_S = 10.0
"""How often a host that is cut off asks whether it still is."""
AFTER_TROUBLE_S = 5.0
"""How long nothing is asked after an answer that could not be used, or not be stored."""
SMALL_PAGE = 32
"""Users in an answer that is stored whatever room there is: what is taken away must be, also where the disk is nearly full."""
ROOM_FOR_USER = 16 * 1024
"""Bytes of the disk for a user with a credential, in the store and in its log, with all indexes: more than it takes."""
SYNC_S = 30.0
"""For a page of a sync; one that waits for news may take so much longer than it waits."""
JOURNAL_S = 10.0
"""For a piece of the journal."""
UNCOMPARED_S = 900.0
"""An authority that is busy may leave a comparison out. After so long without one everything is asked for anew."""
SAME_AGAIN_S = 3600.0
"""The same trouble is written into the audit log once in so long."""

FORKS = 5
"""New journals in ``FORKS_S``: a machine that was put back several times comes past those that it has begun before. After that
it waits, because the authority may be wrong about it."""
FORKS_S = 60.0


class _Changed(Exception):
    """The store says by now that this is another host, or none."""


@dataclass(slots=True)
class Counted:
    """What has happened since the start, for metrics."""

    syncs: int = 0
    full_syncs: int = 0
    refused_answers: int = 0
    losses: int = 0
    journal_events: int = 0
    forks: int = 0


class Follower:
    """Follows the authority of this host; :attr:`link` is the counsel of this process.

    ``news`` hears on the loop what the store says, and ``tell`` gets audit texts for the sinks.
    """

    def __init__(
        self,
        contact: Contact,
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        moment: Callable[[float], Moment],
        random: RandomBytes,
        news: News,
        tell: Callable[[Sequence[str]], None],
    ) -> None:
        self._contact = contact
        self._habits = contact.habits
        self._clock = clock
        self._moment = moment
        self._random = random
        self._news = news
        self._tell = tell
        self._woken = asyncio.Event()
        self._lost = asyncio.Event()
        self._told: dict[str, float] = {}
        self._trouble: Trouble | None = None
        self._trouble_stored = False
        self._to_erase = True  # whatever was to go when this host went down
        self._full_before = False
        self._uncompared_since: float | None = None
        self._monotonic = monotonic
        self._forked_at: deque[float] = deque(maxlen=FORKS)
        self._joined = True  # until the store says otherwise
        self.counted = Counted()
        self.link = Link(
            VerifyExchange(lambda: contact.authorities, try_s=self._habits.try_s),
            monotonic=monotonic,
            chance=self._chance,
            budget_s=self._habits.budget_s,
            retry_s=self._habits.retry_s,
            lost=self._was_lost,
            refused=self._cut_off,
        )

    def _chance(self) -> float:
        return int.from_bytes(self._random(4), "big") / 2**32

    def _was_lost(self) -> None:
        self.counted.losses += 1
        self._lost.set()
        self._woken.set()

    async def run(self) -> NoReturn:
        """Follow until cancelled."""
        while True:
            self._woken.clear()
            try:
                pause_s = await self._turn()
            except Exception:
                # The doors go on; what has broken is tried again.
                log.exception("following the authority broke")
                self._lose()
                pause_s = AFTER_TROUBLE_S
            # Not wait_for: before Python 3.12 that takes a cancellation for an event that comes at the same time.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._woken.wait()

    async def stop(self) -> None:
        """Let those who wait be decided here, and close the connections. :meth:`run` was cancelled before."""
        await self.link.stop()
        await self._contact.close()

    async def _turn(self) -> float:
        """Find the authority and stay with it until something comes between; how long to wait before the next turn."""
        try:
            state = await self._contact.read()
            if state is None:
                if self._joined:
                    log.warning("this host has not joined an authority, nobody is let in; join with `mfactl agent join URL`")
                self._joined = False
                self._lose()
                return JOIN_LOOK_S
            self._joined = True
            self._news.hear(state)
            await self._erase()
            await self._reach()
            await self._stay()
        except Unreachable as err:
            await self._is_gone(err)
            return self.link.look_in_s()
        except Refused as err:
            await self._cut_off(err)
            self._lose()
            return REFUSED_LOOK_S
        except journal.Fork as err:
            self._lose()
            now = self._monotonic()
            wait_s = self._forked_at[0] + FORKS_S - now if len(self._forked_at) == FORKS else 0.0
            if wait_s > 0:
                await self._note(What.ANSWER, f"the journal is said to fork again: {err}", "see the log of the authority")
                return wait_s
            self._forked_at.append(now)
            await self._begin_chain(str(err), err.epoch)
        except ManifestMismatch as err:
            again = self._full_before
            await self._contact.run(self._ask_for_everything)
            if again:
                return await self._answer_unusable(err, "manifest")
            log.warning("%s; %s", err, err.cure)
        except SnapshotRefused as err:
            return await self._answer_unusable(err, err.why.value)
        except ProtocolError as err:
            return await self._answer_unusable(err, "unreadable")
        except StoreUnavailable as err:
            log.error("what the authority sent could not be stored, the old cache holds: %s; %s", err, err.cure)
            await self._note(What.STORE, str(err), err.cure, told_as="agent.sync_not_stored")
            return AFTER_TROUBLE_S
        except MfaError as err:
            log.error("this host cannot follow its authority: %s; %s", err, err.cure)
            await self._note(What.STORE, str(err), err.cure)
            self._lose()
            return AFTER_TROUBLE_S
        except _Changed:
            self._lose()
        return 0.0

    async def _answer_unusable(self, err: ProtocolError, why: str) -> float:
        self.counted.refused_answers += 1
        log.error("an answer of the authority was not used (%s): %s; %s", why, err, err.cure)
        self._lose()
        await self._note(What.ANSWER, str(err), err.cure, told_as="agent.answer_refused", why=why)
        return AFTER_TROUBLE_S

    def _lose(self) -> None:
        self.link.happened(Happening.LOST)

    async def _is_gone(self, err: Unreachable) -> None:
        if self.link.breaker.state is State.CLOSED:
            log.warning("the authority is gone: %s; %s", err, err.cure)
        self._lose()
        authorities = self._contact.authorities if self._contact.state is not None else None
        if authorities is not None:
            await authorities.forget_connections()
        await self._note(What.UNREACHABLE, str(err), err.cure)

    async def _reach(self) -> None:
        """Find the authority, and bring both sides to the same state, before anybody asks.

        Raises:
            Unreachable, Refused, Fork, ProtocolError, StoreUnavailable: not yet.
        """
        await self._look()
        self._lost.clear()
        self.link.happened(Happening.FOUND)
        await self._upload()
        await self._sync(wait_s=0.0)
        await self._upload()
        if self._lost.is_set():
            raise Unreachable("the authority was lost while it was told what was decided here")
        self.link.happened(Happening.RECONCILED)

    async def _look(self) -> None:
        authorities = self._contact.authorities
        answer = await authorities.get(HEALTH, try_s=self._habits.try_s, budget_s=2 * self._habits.try_s)
        health = read_health(answer.body)
        state = self._contact.state
        if state is None or health.authority_id != state.authority_id:
            raise Unreachable(
                f"{answer.url} is another authority than this host joined",
                cure="see agent.authorities; to move this host to another authority, join again",
            )

    async def _stay(self) -> None:
        """Follow until the authority is lost. Raises: as :meth:`_reach`."""
        loop = asyncio.get_running_loop()
        tasks = {
            loop.create_task(self._follow()),
            loop.create_task(self._keep_telling()),
            loop.create_task(self._lost.wait()),
        }
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            err = task.exception()
            if err is not None:
                raise err
        raise Unreachable("a login got no answer from the authority")

    async def _follow(self) -> None:
        while True:
            try:
                await self._sync(wait_s=self._habits.sync_wait_s)
                await self._see_to_certificate()
            except Unreachable as err:
                # A long poll that ends may be a proxy's doing: whether anybody is there is seen at once.
                log.info("waiting for news ended: %s", err)
                await self._look()
                await asyncio.sleep(spread(self._habits.retry_s / 2, self._chance()))

    async def _keep_telling(self) -> None:
        while True:
            await asyncio.sleep(JOURNAL_EVERY_S)
            await self._same_host()
            await self._upload()
            await self._erase()

    async def _same_host(self) -> AgentState:
        before = self._contact.state
        state = await self._contact.read()
        if before is None or state is None or state.host_id != before.host_id:
            raise _Changed
        return state

    async def _upload(self) -> None:
        self.counted.journal_events += await journal.upload(
            self._contact.authorities, self._contact.store, self._contact.run, try_s=JOURNAL_S
        )

    # -- sync -----------------------------------------------------------------------------------------------------------

    async def _sync(self, *, wait_s: float) -> None:
        """Ask for what is new, page by page, and store it. Raises: as :meth:`_reach`."""
        page: str | None = None
        progress = Progress()
        while True:
            state = await self._same_host()
            request = await self._contact.run(self._request, state, wait_s, page)
            answer = await self._contact.authorities.post(
                SYNC, request.octets(), try_s=wait_s + SYNC_S, budget_s=wait_s + 2 * SYNC_S
            )
            expected = Expected(state.host_id, state.authority_id, state.signers, request.nonce, state.seq)
            snapshot = await self._contact.run(
                read_snapshot, answer.body, answer.signature, expected, self._contact.keys.hpke
            )
            said = snapshot.answer
            if said.journal == "fork":
                raise journal.Fork("the authority has another journal of this host than this one continues")
            # As it was when this was asked: what was sent while it waited is no news.
            told = JournalHead(epoch=state.journal_epoch, seq=state.journal_seq, hash=said.journal.hash)
            await self._contact.run(journal.go_back, self._contact.store, said.journal, told)
            rules = self._rules_in(snapshot)
            self._full_before = said.full
            applied = await self._contact.run(self._store, snapshot, progress, isinstance(rules, ConfigurationError))
            self._to_erase = self._to_erase or applied.erased
            if not said.more:
                self._news.hear(await self._same_host())
                self.counted.syncs += 1
                self.counted.full_syncs += said.full
                await self._all_is_well(snapshot, rules)
                await self._erase()
                await self._see_to_comparison(applied.compared, had_all=said.full)
                return
            page, wait_s = said.page, 0.0

    async def _see_to_comparison(self, compared: bool, *, had_all: bool) -> None:
        """Let nothing that went astray stay for long: what was not compared for a while comes anew, whole."""
        now, since = self._monotonic(), self._uncompared_since
        if compared:
            self._uncompared_since = None
        elif since is None or had_all:
            self._uncompared_since = now
        elif now - since >= UNCOMPARED_S:
            log.warning("what is here was not compared with the authority's for %.0f s, and is asked for anew", now - since)
            self._uncompared_since = now
            await self._contact.run(self._ask_for_everything)

    def _request(self, state: AgentState, wait_s: float, page: str | None) -> SyncRequest:
        with self._contact.store.reading() as connection:
            return SyncRequest(
                nonce=self._random(NONCE_OCTETS),
                cursor=None if state.cursor < 0 else Cursor(generation=state.generation, seq=state.cursor),
                seq=state.seq,
                digest=state.digest,
                rules_digest=rules_digest(state.rules) if state.rules else "",
                wait_s=wait_s if state.cursor >= 0 else 0.0,
                codes_until=max(0.0, cache.codes_until(connection)),
                journal=journal.head(connection, state.journal_epoch),
                key_protection=self._habits.key_protection,
                now=max(0.0, self._clock()),
                software=self._habits.software[:64],
                page=page,
            )

    @staticmethod
    def _rules_in(snapshot: Snapshot) -> SharedRules | ConfigurationError | None:
        if snapshot.answer.rules is None:
            return None
        try:
            return read_rules(snapshot.answer.rules)
        except ConfigurationError as err:
            return err

    def _act(self, node: str) -> Act:
        return Act(ACTOR, self._clock(), self._random, self._contact.keyring(), node)

    def _store(self, snapshot: Snapshot, progress: Progress, without_rules: bool) -> Applied:
        if without_rules:
            snapshot = Snapshot(snapshot.answer.model_copy(update={"rules": None}), snapshot.entries)
        try:
            return self._store_once(snapshot, progress)
        except UnknownKey:
            self._contact.reload_keyring()
            return self._store_once(snapshot, progress)

    def _store_once(self, snapshot: Snapshot, progress: Progress) -> Applied:
        users = len(snapshot.answer.users)
        if users > SMALL_PAGE:
            # What logins are written into is left to them.
            sealed = sum(len(one.secret) for one in snapshot.entries.values())
            self._contact.store.check_room(LOG_BYTES + users * ROOM_FOR_USER + 2 * sealed)
        with self._contact.store.writing() as connection:
            state = agent_state.load(connection)
            if state is None or state.host_id != snapshot.answer.host_id:
                raise _Changed
            act = self._act(node_of(state.journal_epoch))
            applied = cache.apply(connection, snapshot, progress, self._moment(act.now), act)
            if snapshot.answer.full and not snapshot.answer.more:
                act.record(connection, "agent.full_sync", state.host_name, users=len(progress.seen), gone=applied.gone)
        self._tell(act.told)
        return applied

    async def _all_is_well(self, snapshot: Snapshot, rules: SharedRules | ConfigurationError | None) -> None:
        offset_s = clock_offset_s(snapshot.answer, self._clock())
        if isinstance(rules, ConfigurationError):
            log.error("the authority's rules were not taken over: %s; %s", rules, rules.cure)
            await self._note(What.RULES, str(rules), rules.cure, told_as="agent.rules_refused")
            await asyncio.sleep(AFTER_TROUBLE_S)  # it sends them again at once
        elif abs(offset_s) > MAX_CLOCK_OFFSET_S:
            ahead = "ahead of" if offset_s > 0 else "behind"
            await self._note(
                What.CLOCK, f"the clock of this host is {abs(offset_s):.0f} s {ahead} the authority's",
                "let chrony or systemd-timesyncd set the clock: without the authority nobody is let in",
            )  # fmt: skip
        else:
            await self._note(None)

    async def _erase(self) -> None:
        """Let no secret that had to go be in the log, as soon as nobody reads it."""
        if self._to_erase:
            self._to_erase = not await self._contact.run(self._contact.store.erase_log, LOG_BYTES)

    async def _see_to_certificate(self) -> None:
        state, now = self._contact.state, self._clock()
        keys = self._contact.keys
        if state is None:
            return
        if len(keys.shown) > 1:
            if await self._contact.run(self._drop_older_certificate):
                log.info("the renewed certificate of this host has taken the place of the old one")
        elif now >= keys.shown[0].certificate.renewal_at():
            key, certificate, trust = await renew(self._contact.authorities, state, try_s=JOURNAL_S)
            await self._contact.run(self._keep_renewed, key, certificate, trust)

    def _drop_older_certificate(self) -> bool:
        with self._contact.store.writing() as connection:
            return own_keys.drop_older(connection, self._contact.keyring(), self._clock())

    def _keep_renewed(self, key: HostKey, certificate: Certificate, trust: str) -> None:
        with self._contact.store.writing() as connection:
            state = agent_state.load(connection)
            if state is None:
                raise _Changed
            act = self._act(node_of(state.journal_epoch))
            act.check_keys(connection)
            own_keys.keep_renewed(connection, act.keyring, key, certificate, trust, act.now)
            act.record(connection, "agent.renew", state.host_name, until=certificate.not_after)
        self._tell(act.told)

    # -- what comes between ----------------------------------------------------------------------------------------------

    async def _cut_off(self, err: Refused) -> None:
        """The authority says no to this host: what that means stands in the store before anybody is told to decide here."""
        try:
            erased = await self._contact.run(self._write_standing, err)
            self._to_erase = self._to_erase or erased
            await self._erase()
        except MfaError as problem:
            log.error("that the authority refuses this host could not be written: %s; %s", problem, problem.cure)
        log.error("the authority refuses this host: %s; %s", err, err.cure)
        await self._note(What.REFUSED, str(err), err.cure)

    def _write_standing(self, err: Refused) -> bool:
        return write_standing(
            self._contact.store, err, keyring=self._contact.keyring(), now=self._clock(), random=self._random, tell=self._tell
        )

    def _ask_for_everything(self) -> None:
        with self._contact.store.writing() as connection:
            agent_state.change(connection, generation=cache.NO_GENERATION, digest="")

    async def _begin_chain(self, reason: str, after: int) -> None:
        self.counted.forks += 1
        node = await self._contact.run(self._begin_journal, reason, after)
        log.error("the journal of this host begins anew (%s): %s", node, reason)
        self._news.hear(await self._same_host())

    def _begin_journal(self, reason: str, after: int) -> str:
        with self._contact.store.writing() as connection:
            state = agent_state.load(connection)
            if state is None:
                raise _Changed
            act = self._act(node_of(state.journal_epoch))
            node = journal.begin_anew(connection, state, act, reason, after=after)
        self._tell(act.told)
        return node

    async def _note(
        self, what: What | None, text: str = "", cure: str = "", *, told_as: str = "", **details: str | float
    ) -> None:
        """Keep what is wrong in the store; None for nothing. ``told_as`` names an event for the audit log, once in a while."""
        now = self._clock()
        before = self._trouble
        self._trouble = None if what is None else Trouble(
            what, now if before is None or before.what is not what else before.since, text, cure
        )  # fmt: skip
        again = now - self._told.get(f"{told_as} {details}", 0.0)
        event = told_as if told_as and not 0.0 <= again < SAME_AGAIN_S else ""
        if self._trouble == before and self._trouble_stored and not event:
            return
        try:
            await self._contact.run(self._write_trouble, self._trouble, event, details)
        except MfaError as err:
            self._trouble_stored = False
            log.error("what is wrong with the authority could not be written down: %s; %s", err, err.cure)
            return
        self._trouble_stored = True
        if event:
            self._told[f"{told_as} {details}"] = now

    def _write_trouble(self, trouble: Trouble | None, event: str, details: dict[str, str | float]) -> None:
        with self._contact.store.writing() as connection:
            state = agent_state.load(connection)
            if state is None:
                return
            before = read_trouble(state.trouble)
            if trouble is not None and before is not None and before.what is trouble.what:
                trouble = Trouble(trouble.what, before.since, trouble.text, trouble.cure)
            agent_state.change(connection, trouble="" if trouble is None else trouble.written())
            act = self._act(node_of(state.journal_epoch))
            if event and trouble is not None:
                act.record(connection, event, state.host_name, text=trouble.text, **details)
        self._tell(act.told)
