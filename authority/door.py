"""The authority as a whole: what listens, how it starts, reloads and stops.

Room rule: life, and which part knows which; no decision. The keys are there before anything listens, and the store is let go of
after the last answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable, Sequence
from typing import Final, TypedDict

from authority.acts import ACTOR, Acts
from authority.at_the_store import AtTheStore
from authority.bookkeeping import Bookkeeper
from authority.certificate_authority import SERVER_S, server_context, server_context_of_files
from authority.feed import Feed, FeedSettings
from authority.hosts_at_the_door import HostsAtTheDoor
from authority.joining import Joining, JoinSettings
from authority.journal import Journals, JournalSettings
from authority.lease_book import LeaseBook
from authority.own_keys import OwnKeys, ensure_authority, load_own_keys
from authority.poll import Poll
from authority.requests import Answer, Asked, Counts, Served, application
from authority.server import Bounds, Server, open_sockets
from authority.settings import AuthoritySettings
from authority.verifying import Gate, Verifying
from authority.waiting import Waiting
from mfa_core.audit import AttemptDecided
from mfa_runtime.administration.act import Act
from mfa_runtime.protocol.joining import JoinRequest, RenewRequest
from mfa_runtime.protocol.reporting import Health, JournalRequest
from mfa_runtime.protocol.syncing import SyncRequest
from mfa_runtime.protocol.verifying import VerifyRequest
from mfa_runtime.protocol.words import HEALTH, JOIN, JOURNAL, RENEW, SYNC, VERIFY
from mfa_runtime.sealing import Keyring, RandomBytes
from mfa_runtime.store import changes
from mfa_runtime.store.database import Store

CONNECTIONS_PER_HOST: Final = 4
"""One that waits for news, one or two that ask, one that is new: bounds the connections of all."""
LEAST_CONNECTIONS: Final = 1024

log = logging.getLogger(__name__)


class Counters(TypedDict):
    """What one process has counted. ``requests`` by path, then by "ok" or the word of a refusal."""

    requests: dict[str, dict[str, int]]
    seconds: dict[str, float]
    connections: int
    events: dict[str, int]
    waiting: int
    woken: int
    woken_s: float
    outcomes: dict[str, int]
    under_way: int
    journal_events: int
    pages_kept: int
    pages_made: int
    hosts: dict[str, int]
    alarms: int


class AuthorityDoor:
    """The HTTPS side of one process. ``clock`` is Unix seconds, ``monotonic`` seconds, ``random`` gives so many octets."""

    def __init__(
        self,
        settings: AuthoritySettings,
        store: Store,
        gate: Gate,
        *,
        keyring: Callable[[], Keyring],
        reload_keyring: Callable[[], Keyring],
        note: Callable[[AttemptDecided], None],
        tell: Callable[[Sequence[str]], None],
        node: str,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        random: RandomBytes,
    ) -> None:
        self.settings = settings
        self._store = store
        self._gate = gate
        self._keyring = keyring
        self._reload_keyring = reload_keyring
        self._note = note
        self._tell = tell
        self._node = node
        self._clock = clock
        self._monotonic = monotonic
        self._random = random
        self._counts = Counts()
        self._waiting = Waiting()
        self._at: AtTheStore | None = None
        self._parts: _Parts | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Make what is missing of the keys, and listen.

        Raises:
            ConfigurationError: an address cannot be had, or a certificate cannot be used.
            StoreUnavailable, StoreCorrupt: the store cannot be used.
        """
        loop = asyncio.get_running_loop()
        keys = await loop.run_in_executor(None, self._own_keys)
        context = _context(self.settings, keys, now=self._clock())
        sockets = open_sockets(self.settings.listen)
        self._at = AtTheStore(self._store)
        self._parts = parts = self._build(self._at, keys, context)
        parts.use(self.settings)
        parts.leases.start()
        parts.server.start(sockets)
        self._tasks = [loop.create_task(parts.poll.run()), loop.create_task(self._renew_certificate(parts, keys))]

    def _own_keys(self) -> OwnKeys:
        ensure_authority(self._store, Act(ACTOR, self._clock(), self._random, self._keyring(), self._node))
        with self._store.reading() as connection:
            return load_own_keys(connection, self._keyring())

    def _build(self, at: AtTheStore, keys: OwnKeys, context: ssl.SSLContext) -> _Parts:
        acts = Acts(
            at, keyring=self._keyring, reload_keyring=self._reload_keyring, node=self._node, clock=self._clock,
            random=self._random, tell=self._tell,
        )  # fmt: skip
        at_the_door = HostsAtTheDoor(at, acts, clock=self._clock, monotonic=self._monotonic)
        leases = LeaseBook(self._store)
        journals = Journals(acts, at_the_door, lambda: _journal_settings(self.settings))
        books = Bookkeeper(
            at, acts, keyring=self._keyring, reload_keyring=self._reload_keyring, clock=self._clock
        )
        feed = Feed(
            at, acts, at_the_door, journals, leases, self._waiting, keys, books,
            keyring=self._keyring, reload_keyring=self._reload_keyring, clock=self._clock, monotonic=self._monotonic,
        )  # fmt: skip
        joining = Joining(
            acts, at_the_door, keys, lambda: _join_settings(self.settings, keys), monotonic=self._monotonic
        )
        verifying = Verifying(
            at, at_the_door, self._gate, note=self._note, clock=self._clock, capacity=self.settings.max_verifications,
        )  # fmt: skip

        async def health(_: Asked) -> Answer:
            await at.glance(changes.now_at)
            return Answer(Health(authority_id=keys.authority_id, now=self._clock()).octets())

        routes = [
            Served(HEALTH, "GET", 0, health),
            Served(JOIN, "POST", JoinRequest.LIMIT, joining.join),
            Served(RENEW, "POST", RenewRequest.LIMIT, joining.renew),
            Served(SYNC, "POST", SyncRequest.LIMIT, feed.sync),
            Served(VERIFY, "POST", VerifyRequest.LIMIT, verifying.verify),
            Served(JOURNAL, "POST", JournalRequest.LIMIT, journals.upload),
        ]
        bounds = Bounds(connections=max(LEAST_CONNECTIONS, CONNECTIONS_PER_HOST * self.settings.max_hosts))
        server = Server(application(routes, self._counts), context, bounds=bounds, monotonic=self._monotonic)
        poll = Poll(at, self._waiting, feed, monotonic=self._monotonic)
        return _Parts(keys, leases, journals, books, feed, verifying, server, poll)

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens, in the order of the settings; a port 0 there is the one that the system chose."""
        return [] if self._parts is None else self._parts.server.addresses

    def reload(self, settings: AuthoritySettings) -> None:
        """From the next request on these hold, and hosts that wait hear of new rules at once; addresses need a restart.

        Raises: ConfigurationError, when a certificate cannot be used; nothing is changed then.
        """
        parts = self._parts
        context = None if parts is None else _context(settings, parts.keys, now=self._clock())
        self.settings = settings
        if parts is not None and context is not None:
            parts.server.context = context
            parts.use(settings)

    async def stop(self) -> None:
        """Take no more connections, answer what is under way, write down what waits."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._waiting.close()
        if self._parts is not None:
            await self._parts.server.stop()
            await self._parts.books.stop()
            await self._parts.leases.stop()
        if self._at is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._at.close)

    def counters(self) -> Counters:
        """What was counted since the start."""
        requests: dict[str, dict[str, int]] = {}
        for (path, result), count in self._counts.requests.items():
            requests.setdefault(path, {})[result] = count
        parts = self._parts
        events = {} if parts is None else parts.server.counters()
        connections = events.pop("connections", 0)
        return {
            "requests": requests,
            "seconds": dict(self._counts.seconds),
            "connections": connections,
            "events": events,
            "waiting": len(self._waiting),
            "woken": 0 if parts is None else parts.feed.woken,
            "woken_s": 0.0 if parts is None else parts.feed.woken_s,
            "outcomes": {} if parts is None else dict(parts.verifying.outcomes),
            "under_way": 0 if parts is None else parts.verifying.under_way,
            "journal_events": 0 if parts is None else parts.journals.merged,
            "pages_kept": 0 if parts is None else parts.feed.pages.hits,
            "pages_made": 0 if parts is None else parts.feed.pages.misses,
            "hosts": {} if parts is None else parts.poll.census.hosts,
            "alarms": 0 if parts is None else parts.poll.census.alarms,
        }

    async def _renew_certificate(self, parts: _Parts, keys: OwnKeys) -> None:
        """Our own certificate is made anew long before it ends."""
        while True:
            await asyncio.sleep(SERVER_S * 2 / 3)
            parts.server.context = _context(self.settings, keys, now=self._clock())
            log.info("a new certificate is shown from now on")


class _Parts:
    """What runs between start and stop."""

    def __init__(
        self,
        keys: OwnKeys,
        leases: LeaseBook,
        journals: Journals,
        books: Bookkeeper,
        feed: Feed,
        verifying: Verifying,
        server: Server,
        poll: Poll,
    ) -> None:
        self.keys = keys
        self.leases = leases
        self.journals = journals
        self.books = books
        self.feed = feed
        self.verifying = verifying
        self.server = server
        self.poll = poll

    def use(self, settings: AuthoritySettings) -> None:
        """From now on these hold."""
        self.feed.use(FeedSettings(settings.rules, settings.long_poll_s))
        self.verifying.capacity = settings.max_verifications


def _context(settings: AuthoritySettings, keys: OwnKeys, *, now: float) -> ssl.SSLContext:
    if settings.tls is None:
        return server_context(keys.ca, settings.names, now=now)
    return server_context_of_files(keys.ca, str(settings.tls.certificate_file), str(settings.tls.key_file))


def _join_settings(settings: AuthoritySettings, keys: OwnKeys) -> JoinSettings:
    # With our CA in any case: it has signed the host's own certificate.
    trust = keys.ca.pem + (settings.tls.trust if settings.tls is not None else "")
    return JoinSettings(settings.host_certificate_s, settings.max_hosts, trust)


def _journal_settings(settings: AuthoritySettings) -> JournalSettings:
    return JournalSettings(settings.suspends, settings.hard_cap)
