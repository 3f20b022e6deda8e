"""How does a host hear what is new?

Room rule: the route sync, in order: who asks, how its journal stands, what is new since its cursor, wait if that is nothing,
write down the lease, seal, sign. What is new :mod:`authority.look` finds, what a page says stands in :mod:`authority.pages`,
and who waits for what in :mod:`authority.waiting`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal

from sqlalchemy import Connection

from authority.acts import Acts
from authority.at_the_store import AtTheStore
from authority.bookkeeping import Bookkeeper, Shelf
from authority.books import SHORT_S
from authority.hosts_at_the_door import HostsAtTheDoor, Present
from authority.journal import Journals
from authority.lease_book import LeaseBook
from authority.look import Digests, Look, Place, gets_codes, is_much, latest_of, look, needs_codes
from authority.own_keys import OwnKeys
from authority.pages import KeptPages, Page, Wanted, lacks, make_page, read_rows
from authority.requests import Answer, Asked, Refuse
from authority.waiting import Waiting, wake
from mfa_runtime.administration.act import Act
from mfa_runtime.protocol import sealed
from mfa_runtime.protocol.reporting import JournalHead
from mfa_runtime.protocol.signed import HEADER
from mfa_runtime.protocol.syncing import Cursor, SyncAnswer, SyncRequest, TermsDoc, read_sync_request, rules_digest
from mfa_runtime.protocol.words import Refusal
from mfa_runtime.sealing import Keyring, UnknownKey
from mfa_runtime.store import hosts
from mfa_runtime.store.alarms import AlarmKind, raise_alarm
from mfa_runtime.store.hosts import HostMaterial

BUCKET_S: Final = 60.0
"""A page is kept no longer than this: secrets stand in it."""
CLOCK_ALARM_S: Final = 90.0
"""A host whose clock is further off may not decide alone (:mod:`mfa_core.offline`)."""
AGAIN_S: Final = 60.0
HOSTS_REMEMBERED: Final = 4096
_NO_USERS: Final = b'"users":[]'

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FeedSettings:
    """What a reload may change. ``rules`` is the text that hosts get, ``long_poll_s`` how long one may wait at most."""

    rules: str
    long_poll_s: float


@dataclass(frozen=True, slots=True)
class Told:
    """What goes into one answer, but for what is this host's alone."""

    page: Page | None
    look: Look
    digest: str | None


class Feed:
    """Answers syncs. Lives on one loop. ``clock`` is Unix seconds, ``monotonic`` seconds."""

    def __init__(
        self,
        store: AtTheStore,
        acts: Acts,
        at_the_door: HostsAtTheDoor,
        journals: Journals,
        leases: LeaseBook,
        waiting: Waiting,
        keys: OwnKeys,
        books: Bookkeeper,
        *,
        keyring: Callable[[], Keyring],
        reload_keyring: Callable[[], Keyring],
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._store = store
        self._acts = acts
        self._at_the_door = at_the_door
        self._journals = journals
        self._leases = leases
        self._waiting = waiting
        self._keys = keys
        self._books = books
        books.tell = self._books_are_there
        self._keyring = keyring
        self._reload_keyring = reload_keyring
        self._clock = clock
        self._monotonic = monotonic
        self._settings = FeedSettings("", 0.0)
        self._rules_digest = rules_digest("")
        self._being_made: dict[Wanted, asyncio.Future[Page | None]] = {}
        self.pages = KeptPages()
        self.digests = Digests(monotonic)
        self.oldest = 0
        """How far back changes are remembered, as it was a while ago."""
        self.woken = 0
        """Hosts that were woken by a change, and answered."""
        self.woken_s = 0.0
        """How long they waited for that answer from then on, together."""
        self._given_all: OrderedDict[int, float] = OrderedDict()
        self._given_codes: OrderedDict[int, float] = OrderedDict()

    def use(self, settings: FeedSettings) -> None:
        """From now on these hold; hosts that wait hear of new rules at once."""
        changed = settings.rules != self._settings.rules
        self._settings = settings
        self._rules_digest = rules_digest(settings.rules)
        if changed:
            for wait in self._waiting.everybody():
                wait.tell(True)

    def forget_old_pages(self) -> None:
        """Let go of secrets that nobody will ask for."""
        bucket = self._bucket()
        self.pages.drop_if(lambda wanted, _: wanted.bucket < bucket - 1)

    async def _books_are_there(self, shelf: Shelf, host_ids: frozenset[int]) -> None:
        """Long books were made: pages with short ones go, and hosts that wait for them hear of it."""
        self.pages.drop_if(lambda wanted, page: page.lacking and _shelf(wanted) == shelf)
        await wake(self._waiting.of(host_ids))

    # -- the route ------------------------------------------------------------------------------------------------------------

    async def sync(self, asked: Asked) -> Answer:
        """``POST /v1/sync``. Raises: Refuse, and what the store raises."""
        present = await self._at_the_door.who(asked)
        request = read_sync_request(await asked.body())
        place = _place(request)
        journal = await self._journals.standing(present, request.journal)
        until = self._monotonic() + min(request.wait_s, self._settings.long_poll_s)
        offset = request.now - self._clock()
        woken_at = 0.0
        while True:
            found = await self._look(present, request, place)
            if found.is_news or place is not None or self._rules_differ(request) or self._monotonic() >= until:
                break
            if journal is None:
                break  # it is told at once
            self._note_cursor(present, request, found)
            wait = self._waiting.begin(present.host.id, present.topics, since=found.seq, until=until)
            try:
                news = await wait.woken
            finally:
                self._waiting.end(wait)
            woken_at = self._monotonic() if news else 0.0
            present = await self._at_the_door.again(present)
            if not news:
                break
        told = await self._told(present, request, found, place)
        answer = await self._answer(present, request, told, journal, offset, asked.address)
        if woken_at:
            self.woken += 1
            self.woken_s += self._monotonic() - woken_at
        return answer

    def _rules_differ(self, request: SyncRequest) -> bool:
        return request.rules_digest != self._rules_digest

    async def _look(self, present: Present, request: SyncRequest, place: Place | None) -> Look:
        oldest = self.oldest
        found = await self._store.glance(lambda c: look(c, present, request, oldest=oldest, place=place))
        granted = _granted(present, request)
        if place is not None:
            return found
        if found.ids is None:
            if request.codes_until or not gets_codes(present, granted=granted):
                return found
            return replace(found, short=await self._store.glance(lambda c: is_much(c, present)))
        everything = Look(found.generation, found.seq, found.latest, -1, None)
        # A host that keeps its keys worse than it used to must not keep what it got before.
        if granted is not present.group.admits(present.host.key_protection):
            return everything
        if needs_codes(present, request, now=self._clock(), granted=granted) and self._gives_codes(present, request):
            return everything
        if not found.ids and request.digest:
            digest = await self._digest(present, found)
            if digest is not None and digest != request.digest and self._not_again(self._given_all, present, AGAIN_S):
                log.warning("host %s does not hold what it should, and gets everything anew", present.host.name)
                return everything
        return found

    def _gives_codes(self, present: Present, request: SyncRequest) -> bool:
        """Whether a host whose codes do not last gets others now: the long ones if they are there, else, when its own are
        about to end, what there is. Meanwhile they are made, and it is told when that is done."""
        shelf = Shelf(present.scope, present.group.max_offline_s)
        ready = self._books.is_ready(shelf)
        if not ready:
            self._books.order(shelf, present.host.id)
            if request.codes_until >= self._clock() + min(SHORT_S, shelf.max_offline_s) / 3:
                return False
        return self._not_again(self._given_codes, present, min(AGAIN_S, shelf.max_offline_s / 8))

    def _not_again(self, given: OrderedDict[int, float], present: Present, again_s: float) -> bool:
        """Whether this host has not got everything for the same reason just now: it must not be so again and again."""
        now, before = self._monotonic(), given.pop(present.host.id, None)
        again = before is None or now - before >= again_s
        given[present.host.id] = now if again or before is None else before
        if len(given) > HOSTS_REMEMBERED:
            given.popitem(last=False)
        return again

    async def _digest(self, present: Present, found: Look) -> str | None:
        known = self.digests.known(present.scope, found.generation, found.latest)
        if known is not None:
            return known

        def work(connection: Connection) -> str | None:
            if latest_of(connection, present) > found.latest:
                return None
            return self.digests.of(connection, present.scope, found.generation, found.latest)

        return await self._store.read(work)

    # -- pages ----------------------------------------------------------------------------------------------------------------

    async def _told(self, present: Present, request: SyncRequest, found: Look, place: Place | None) -> Told:
        if not found.is_news:
            return Told(None, found, await self._digest(present, found))
        after = place.after if place is not None and place.since == found.since else 0
        wanted = Wanted(
            present.group, present.scope, found.generation, found.latest, _granted(present, request), found.ids, after,
            bucket=self._bucket(), short=found.short,
        )  # fmt: skip
        page = await self._page(wanted, present.host.id)
        if page.lacking:
            self._books.is_short(_shelf(wanted))
            self._books.order(_shelf(wanted), present.host.id)
        digest = None
        if not page.more and page.consistent:
            digest = await self._digest(present, found)
        return Told(page, found, digest)

    def _bucket(self) -> int:
        return int(self._clock() // BUCKET_S)

    async def _page(self, wanted: Wanted, host_id: int) -> Page:
        own = _for(wanted, host_id)
        kept = self.pages.get((wanted, own))
        if kept is not None:
            return kept
        making = self._being_made.get(wanted)
        if making is not None:
            page = await asyncio.shield(making)
            if page is not None and page.shared:
                return page
        made: asyncio.Future[Page | None] = asyncio.get_running_loop().create_future()
        self._being_made[wanted] = made
        result: Page | None = None
        try:
            result = await self._make(wanted, host_id)
        finally:
            if self._being_made.get(wanted) is made:
                del self._being_made[wanted]
            made.set_result(result)  # None: whoever waits finds out for himself what is wrong
        self.pages.put(wanted if result.shared else own, result)
        return result

    async def _make(self, wanted: Wanted, host_id: int) -> Page:
        try:
            return await self._make_with(wanted, host_id, self._keyring())
        except UnknownKey:
            return await self._make_with(wanted, host_id, await self._store.compute(self._reload_keyring))

    async def _make_with(self, wanted: Wanted, host_id: int, keyring: Keyring) -> Page:
        rows = await self._store.read(lambda connection: read_rows(connection, keyring, wanted))
        now = self._clock()
        if wanted.group.material is HostMaterial.CODEBOOK:
            made = await self._books.make(await self._store.compute(lambda: lacks(rows, wanted, keyring, now=now)))
            rows = replace(rows, books=rows.books | made)
        return await self._store.compute(lambda: make_page(rows, wanted, keyring, host_id=host_id, now=now))

    # -- the answer -----------------------------------------------------------------------------------------------------------

    async def _answer(
        self,
        present: Present,
        request: SyncRequest,
        told: Told,
        journal: JournalHead | None,
        offset: float,
        address: str,
    ) -> Answer:
        now = self._clock()
        not_after = now + present.group.max_offline_s
        # A host whose journal is another one gives up what it holds, and asks for everything.
        cursor = None if journal is None else request.cursor
        await self._write_down(present, request, cursor, told.look, not_after, offset, address)
        standing: JournalHead | Literal["fork"] = "fork" if journal is None else journal
        return await self._store.compute(lambda: self._sealed_and_signed(present, request, told, standing, now, not_after))

    def _note_cursor(self, present: Present, request: SyncRequest, found: Look) -> None:
        """Have it written down that a host which begins to wait has stored what it was told: administrators look for that."""
        cursor = request.cursor
        if cursor is not None and cursor.generation == found.generation and cursor.seq > present.host.cursor:
            self._leases.note(replace(present.host, cursor=cursor.seq, last_seen=self._clock()))

    async def _write_down(
        self,
        present: Present,
        request: SyncRequest,
        cursor: Cursor | None,
        found: Look,
        not_after: float,
        offset: float,
        address: str,
    ) -> None:
        heard = hosts.heard(
            present.host,
            now=self._clock(),
            cursor=cursor.seq if cursor is not None and cursor.generation == found.generation else None,
            lease_until=not_after if present.group.max_offline_s > 0 else None,
            key_protection=request.key_protection.value,
            clock_offset_s=offset,
            software=request.software,
            address=address[:64],
        )
        if heard is not None:
            await self._leases.write(heard)
        elif not found.is_news:
            return  # alarms are raised once a minute, and when something changes
        alarms: list[tuple[AlarmKind, dict[str, str | float]]] = []
        if abs(offset) > CLOCK_ALARM_S:
            alarms.append((AlarmKind.CLOCK_OFFSET, {"seconds": round(offset)}))
        if not _granted(present, request):
            wanted = present.group.key_protection.value
            alarms.append((AlarmKind.KEY_PROTECTION, {"seen": request.key_protection.value, "expected": wanted}))
        if alarms:
            await self._acts.do(lambda connection, act: _raise_all(connection, act, present.host.id, alarms))

    def _sealed_and_signed(
        self,
        present: Present,
        request: SyncRequest,
        told: Told,
        journal: JournalHead | Literal["fork"],
        now: float,
        not_after: float,
    ) -> Answer:
        host, group, page, found = present.host, present.group, told.page, told.look
        # Answers of any authority of this store rise, because their clocks do, and without a write.
        seq = max(int(now * 1e6), request.seq + 1)
        octets = None
        if page is not None and page.entries is not None:
            context = sealed.sync_context(
                authority_id=self._keys.authority_id, host_id=host.id, seq=seq, nonce=request.nonce
            )
            octets = sealed.seal(host.hpke_public, context, page.entries)
        more = page is not None and page.more
        done = found.seq if not more else (request.cursor.seq if request.cursor is not None else 0)
        answer = SyncAnswer(
            host_id=host.id,
            authority_id=self._keys.authority_id,
            nonce=request.nonce,
            seq=seq,
            server_time=now,
            not_after=not_after,
            full=found.ids is None,
            more=more,
            page=_next(found, page) if page is not None and more else None,
            cursor=Cursor(generation=found.generation, seq=done),
            users=(),
            gone=() if page is None else page.gone,
            sealed=octets,
            digest=told.digest,
            rules=self._settings.rules if self._rules_differ(request) else None,
            terms=TermsDoc(
                host_group=group.name,
                material=group.material.value,
                max_offline_s=group.max_offline_s,
                offline_after_s=group.offline_after_s,
                offline_services=group.offline_services,
                key_protection=group.key_protection.value,
            ),
            journal=journal,
        ).octets()
        if page is not None:
            # The documents are JSON already, the same for every host. Nothing before them holds a quote that is not escaped.
            before, empty, after = answer.partition(_NO_USERS)
            if not empty:
                raise ValueError("an answer without a place for its users")
            answer = b"".join((before, b'"users":', page.users, after))
        return Answer(answer, {HEADER: self._keys.signer.sign(answer)})


def _place(request: SyncRequest) -> Place | None:
    if request.page is None:
        return None
    place = Place.read(request.page)
    if place is None:
        raise Refuse(Refusal.BAD_REQUEST, "this authority has given out no such page", cure="begin the sync anew")
    return place


def _next(found: Look, page: Page) -> str:
    return Place(found.seq, found.latest, found.since, page.last_id, found.short, found.generation).text()


def _shelf(wanted: Wanted) -> Shelf:
    return Shelf(wanted.scope, wanted.group.max_offline_s)


def _granted(present: Present, request: SyncRequest) -> bool:
    return request.key_protection.is_enough(present.group.key_protection.value)


def _for(wanted: Wanted, host_id: int) -> Wanted:
    return replace(wanted, host_id=host_id)


def _raise_all(
    connection: Connection, act: Act, host_id: int, alarms: list[tuple[AlarmKind, dict[str, str | float]]]
) -> None:
    for kind, details in alarms:
        raise_alarm(connection, kind, now=act.now, host_id=host_id, details=details)
