"""What does the directory say of a DN: an attribute, a group, the identity behind it?

Room rule: questions of our own, asked as the service account over connections of our own, and for how long an answer is
taken for true. What follows from an answer is decided elsewhere; no answer is :class:`LookupFailed`, never an empty one.
Nobody waits in a task: an answer that is kept is there at once, any other one comes to a callback.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from ldap_proxy.directory_client import Answer, Cancel, DirectoryClient, NoAnswer, Silence, result_name
from ldap_proxy.dn import Dn
from ldap_proxy.kept import Kept
from ldap_proxy.link import Link
from ldap_proxy.message import BIND_REQUEST, SEARCH_REQUEST, ResultCode, Scope, any_of, build_bind, build_search, equal, present
from ldap_proxy.settings import LookupSettings
from ldap_proxy.upstream import NoUpstream, Upstreams
from mfa_core.errors import MfaError

log = logging.getLogger(__name__)

NOTHING_KEEP_S: Final = 30.0
"""For how long "there is no such entry" is taken for true, at most: somebody may be waiting for his account."""
REFUSED_SERVICE_S: Final = 30.0
"""After the service account was refused nobody tries again for so long: the directory would lock it."""
MAX_UNDER_WAY: Final = 1000
"""Questions without an answer."""
MAX_KEY: Final = 1024
"""Octets of a name that something is kept for; longer ones are asked for each time."""
_SPREAD_AT = 8
"""Questions on one connection before another one is opened."""
_NOBODY = frozenset({ResultCode.NO_SUCH_OBJECT, ResultCode.INVALID_DN_SYNTAX})
_BUSY = frozenset({ResultCode.BUSY, ResultCode.UNAVAILABLE})


class LookupFailed(MfaError):
    """The directory did not say. Whoever depends on the answer is refused, or told to come again; nothing is assumed."""


class Identities:
    """Who the directory said that a name is (RFC 4532), by the octets of the name."""

    def __init__(self, *, keep_s: float, max_entries: int, monotonic: Callable[[], float]) -> None:
        self._keep_s = keep_s
        self._kept: Kept[bytes, bytes] = Kept(max_entries=max_entries, monotonic=monotonic)

    def get(self, name: bytes) -> bytes | None:
        """Its authzId as it was told, or None when it must be asked."""
        return self._kept.get(name)

    def put(self, name: bytes, authzid: bytes) -> None:
        """The directory said so a moment ago."""
        if len(name) <= MAX_KEY and len(authzid) <= MAX_KEY:
            self._kept.put(name, authzid, self._keep_s)


Values = Callable[[tuple[str, ...] | LookupFailed], None]
Membership = Callable[[bool | LookupFailed], None]


@dataclass(slots=True, eq=False)
class _Question:
    """One question, and everybody who waits for its answer."""

    key: Hashable
    build: Callable[[int], bytes]
    read: Callable[[Answer], Any]
    """Makes the answer's value and for how long it is kept. Raises: LookupFailed."""
    waiting: dict[object, Callable[[Any], None]]
    until: float
    deadline: asyncio.TimerHandle
    sent: bool = False
    again: bool = False


class _Channel:
    """One connection on its way: dialled, bound as the service account, ready. Belongs to :class:`Lookups`."""

    def __init__(self) -> None:
        self.client: DirectoryClient | None = None
        self.ready = False
        self.call_off: Cancel = _nothing

    # Between being connected and becoming a client nothing is heard: both happen in one call.
    def upstream_data(self, data: bytes) -> None: ...

    def upstream_lost(self, error: Exception | None) -> None: ...

    def upstream_full(self) -> None: ...

    def upstream_drained(self) -> None: ...


def _nothing() -> None:
    """There is nothing to call off."""


class Lookups:
    """Asks ``upstreams`` as the service account of ``settings``. Belongs to one event loop."""

    def __init__(self, settings: LookupSettings, upstreams: Upstreams, *, monotonic: Callable[[], float]) -> None:
        self._settings = settings
        self._upstreams = upstreams
        self._monotonic = monotonic
        self._kept: Kept[Hashable, Any] = Kept(max_entries=settings.max_entries, monotonic=monotonic)
        self._under_way: dict[Hashable, _Question] = {}
        self._queue: deque[_Question] = deque()
        self._channels: list[_Channel] = []
        self._refused_until = 0.0
        self._closed = False
        self._missing: set[str] = set()
        self.counts: dict[str, int] = {"asked": 0, "answered": 0, "failed": 0}
        """Questions to the directory since the start; those answered from what is kept are not among them."""

    def kept_values(self, name: bytes, attribute: str) -> tuple[str, ...] | None:
        """The values of an attribute of the entry ``name``, when they are known; none where there is no such entry."""
        found: tuple[str, ...] | None = self._kept.get((name, attribute))
        return found

    def values(self, name: bytes, attribute: str, done: Values) -> Cancel:
        """Ask for them, and tell ``done`` once, after this has returned. Octets that are no UTF-8 come as surrogates."""

        def build(message_id: int) -> bytes:
            return build_search(
                message_id, name, Scope.BASE, present("objectClass"), (attribute,),
                size_limit=2, time_limit_s=self._time_limit_s(),
            )  # fmt: skip

        def read(answer: Answer) -> tuple[tuple[str, ...], float]:
            if answer.result.code in _NOBODY:
                return (), NOTHING_KEEP_S
            self._expect_success(answer, f"a look-up of {attribute}")
            if len(answer.entries) > 1:
                raise LookupFailed("the directory found several entries under one DN", cure="see what listens there")
            # A directory may answer with the attribute's other name; options make another attribute (RFC 4512 section 2.5).
            found = tuple(
                value.decode("utf-8", "surrogateescape")
                for _, attributes in answer.entries
                for kind, values in attributes.items()
                if ";" not in kind
                for value in values
            )
            return found, self._settings.keep_s if found else NOTHING_KEEP_S

        return self._ask((name, attribute), build, read, done)

    def kept_membership(self, group: Dn, member: Dn) -> bool | None:
        """Whether ``member`` is in ``group``, when it is known."""
        found: bool | None = self._kept.get((group, member))
        return found

    def membership(self, group: Dn, member: Dn, attributes: tuple[str, ...], done: Membership) -> Cancel:
        """Ask whether one of ``attributes`` of ``group`` is ``member``, and tell ``done`` once, after this has returned."""
        base, value = group.text.encode(), member.text.encode()

        def build(message_id: int) -> bytes:
            wanted = any_of(*(equal(attribute, value) for attribute in attributes))
            return build_search(message_id, base, Scope.BASE, wanted, ("1.1",), size_limit=2, time_limit_s=self._time_limit_s())

        def read(answer: Answer) -> tuple[bool, float]:
            if answer.result.code in _NOBODY:
                self._is_missing(group.text)
                return False, NOTHING_KEEP_S
            self._expect_success(answer, f"a look at the group {group.text}")
            is_member = bool(answer.entries)
            return is_member, self._settings.keep_s if is_member else NOTHING_KEEP_S

        return self._ask((group, member), build, read, done)

    def reload(self, settings: LookupSettings) -> None:
        """Take over new settings, and forget what was known under the old ones. Questions under way are asked once more."""
        self._settings = settings
        self._kept = Kept(max_entries=settings.max_entries, monotonic=self._monotonic)
        self._refused_until = 0.0
        self._missing.clear()
        channels, self._channels = self._channels, []
        for channel in channels:
            channel.call_off()
            if channel.client is not None:
                channel.client.close()
        if self._queue:
            self._open()

    def close(self) -> None:
        """Ask no more. Who waits hears LookupFailed."""
        self._closed = True
        for channel in self._channels:
            channel.call_off()
            if channel.client is not None:
                channel.client.close()
        self._channels.clear()
        for question in list(self._under_way.values()):
            self._finish(question, LookupFailed("mfad is stopping"))

    # -- questions ------------------------------------------------------------------------------------------------------------

    def _ask(
        self, key: Hashable, build: Callable[[int], bytes], read: Callable[[Answer], Any], done: Callable[[Any], None]
    ) -> Cancel:
        loop = asyncio.get_running_loop()
        mark = object()
        question = self._under_way.get(key)
        if question is not None:
            question.waiting[mark] = done
        elif self._closed or len(self._under_way) >= MAX_UNDER_WAY:
            why = "mfad is stopping" if self._closed else f"{MAX_UNDER_WAY} look-ups are under way already"
            return loop.call_soon(done, LookupFailed(why, cure="see whether the directory is slow")).cancel
        else:
            timeout_s = self._settings.timeout_s
            question = _Question(key, build, read, {mark: done}, self._monotonic() + timeout_s, loop.call_later(0, _nothing))
            question.deadline.cancel()
            question.deadline = loop.call_later(timeout_s, self._too_late, question)
            self._under_way[key] = question
            self.counts["asked"] += 1
            # Not from within this call: the caller does not have its Cancel yet.
            loop.call_soon(self._send, question)
        return partial(_drop, question.waiting, mark)

    def _send(self, question: _Question) -> None:
        if self._under_way.get(question.key) is not question:
            return
        now = self._monotonic()
        ready = [one.client for one in self._channels if one.ready and one.client is not None and one.client.is_open]
        best = min(ready, key=lambda client: client.outstanding, default=None)
        if best is None or best.outstanding >= _SPREAD_AT:
            if now < self._refused_until:
                self._finish(question, LookupFailed("the service account was refused a moment ago", cure=_REFUSED_CURE))
                return
            if len(self._channels) < max(1, self._settings.connections):
                if best is None:
                    self._queue.append(question)
                self._open()
                if best is None:
                    return
        if best is None:
            self._queue.append(question)
            return
        question.sent = True
        best.ask(question.build, SEARCH_REQUEST, partial(self._answered, question), timeout_s=max(0.001, question.until - now))

    def _answered(self, question: _Question, answer: Answer | NoAnswer) -> None:
        if self._under_way.get(question.key) is not question:
            return
        if isinstance(answer, Answer):
            try:
                value, keep_s = question.read(answer)
            except LookupFailed as err:
                self._finish(question, err)
                return
            if _fits(question.key):
                self._kept.put(question.key, value, min(keep_s, self._settings.keep_s))
            self._finish(question, value)
        elif isinstance(answer, Silence) or question.again or self._closed:
            self._finish(question, LookupFailed(str(answer), cure=answer.cure or "see `mfactl doctor`"))
        else:
            # The server went away, perhaps because it had heard nothing for long. Asking twice changes nothing there.
            question.again = True
            self._send(question)

    def _too_late(self, question: _Question) -> None:
        said = f"the directory did not answer a look-up in {self._settings.timeout_s:g} s"
        self._finish(question, LookupFailed(said, cure="see `mfactl doctor`"))

    def _finish(self, question: _Question, value: Any) -> None:
        if self._under_way.get(question.key) is not question:
            return
        del self._under_way[question.key]
        question.deadline.cancel()
        failed = isinstance(value, LookupFailed)
        self.counts["failed" if failed else "answered"] += 1
        for done in list(question.waiting.values()):
            done(value)

    # -- connections ----------------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        channel = _Channel()
        self._channels.append(channel)
        call_off = self._upstreams.connect(channel, partial(self._connected, channel))
        if channel.client is None:
            channel.call_off = call_off

    def _connected(self, channel: _Channel, link: Link | NoUpstream) -> None:
        channel.call_off = _nothing
        if isinstance(link, NoUpstream):
            self._lost(channel, LookupFailed(str(link), cure=link.cure))
            return
        client = channel.client = DirectoryClient(link, ended=lambda _: self._ended(channel))
        settings = self._settings
        if not settings.bind_dn:
            self._ready(channel)
            return
        name = settings.bind_dn.encode()
        password = settings.bind_password
        if password is None or not password:
            # It would be an unauthenticated bind (RFC 4513 section 5.1.2): a success that means nothing.
            self._lost(channel, LookupFailed(f"there is no password for {settings.bind_dn}", cure=_REFUSED_CURE))
            return
        client.ask(
            lambda message_id: build_bind(message_id, name, password.reveal()),
            BIND_REQUEST,
            partial(self._bound, channel),
            timeout_s=settings.timeout_s,
        )

    def _bound(self, channel: _Channel, answer: Answer | NoAnswer) -> None:
        if channel not in self._channels:
            return
        if isinstance(answer, NoAnswer):
            self._lost(channel, LookupFailed(str(answer)))
        elif answer.result.code == ResultCode.SUCCESS:
            self._ready(channel)
        elif answer.result.code in _BUSY:
            self._lost(channel, LookupFailed(f"{_server(channel)} answers {result_name(answer.result.code)}"))
        else:
            said = f"{_server(channel)} answers {result_name(answer.result.code)} to the bind as {self._settings.bind_dn}"
            if self._monotonic() >= self._refused_until:
                log.error("look-ups in the directory fail: %s (%s)", said, _REFUSED_CURE)
            self._refused_until = self._monotonic() + REFUSED_SERVICE_S
            self._lost(channel, LookupFailed(said, cure=_REFUSED_CURE))

    def _ready(self, channel: _Channel) -> None:
        channel.ready = True
        queue, self._queue = self._queue, deque()
        for question in queue:
            self._send(question)

    def _ended(self, channel: _Channel) -> None:
        """The connection is gone; those who asked over it are told by the client."""
        if channel in self._channels:
            self._channels.remove(channel)
            self._next_or_fail(LookupFailed("the directory closed the connection", cure="see the server's log"), channel)

    def _lost(self, channel: _Channel, why: LookupFailed) -> None:
        if channel in self._channels:
            self._channels.remove(channel)
        if channel.client is not None:
            channel.client.close()
        self._next_or_fail(why, channel)

    def _next_or_fail(self, why: LookupFailed, channel: _Channel) -> None:
        """Those who wait for a connection wait for another one that is coming, or hear why there is none."""
        if channel.ready or self._channels:
            return
        queue, self._queue = self._queue, deque()
        for question in queue:
            self._finish(question, why)

    def _expect_success(self, answer: Answer, what: str) -> None:
        """Raises: LookupFailed, for any other result."""
        code = answer.result.code
        if code != ResultCode.SUCCESS:
            raise LookupFailed(
                f"the directory answers {result_name(code)} to {what}",
                cure=f"see what {self._settings.bind_dn or 'an anonymous client'} may read there",
            )

    def _is_missing(self, group: str) -> None:
        if group not in self._missing and len(self._missing) < MAX_UNDER_WAY:
            self._missing.add(group)
            reader = self._settings.bind_dn or "an anonymous client"
            log.warning("the group %s is not there, or %s may not read it: nobody is exempt by it", group, reader)

    def _time_limit_s(self) -> int:
        return max(1, int(self._settings.timeout_s))


_REFUSED_CURE = "check lookup.bind_dn and lookup.bind_password_file"


def _drop(waiting: dict[object, Callable[[Any], None]], mark: object) -> None:
    waiting.pop(mark, None)


def _fits(key: Hashable) -> bool:
    # Names come from strangers, and may be as long as a message.
    return not (isinstance(key, tuple) and isinstance(key[0], bytes) and len(key[0]) > MAX_KEY)


def _server(channel: _Channel) -> str:
    return "the directory" if channel.client is None else channel.client.server
