"""How does the door itself ask the directory something?

Room rule: one connection, requests and their answers. Several may be outstanding; each has its deadline, an answer its bound,
and whatever is not exactly an answer ends the connection. Who is asked what, and what is kept, is :mod:`ldap_proxy.lookup`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from ldap_proxy.ber import MESSAGE_ID_MAX, Malformed, head
from ldap_proxy.link import Link
from ldap_proxy.message import (
    FINAL,
    INTERMEDIATE_RESPONSE,
    NOTICE_OF_DISCONNECTION,
    SEARCH_DONE,
    SEARCH_ENTRY,
    SEARCH_REFERENCE,
    Result,
    ResultCode,
    build_abandon,
    parse_entry,
    parse_result,
)
from mfa_core.errors import MfaError

MAX_OUTSTANDING: Final = 256
"""Requests of one connection."""
MAX_ANSWER: Final = 1024 * 1024
"""Octets of one answer, all its entries together."""
MAX_ENTRIES: Final = 1000

Entry = tuple[bytes, dict[str, list[bytes]]]
"""A DN and the attributes, by their names in small letters."""
Cancel = Callable[[], None]
"""Calls it off: nothing is told any more. Harmless when all is over."""


class NoAnswer(MfaError):
    """The directory did not answer, or not with an answer: ask another one, or give up. Nobody knows anything then."""


class Silence(NoAnswer):
    """It did not answer in time, over a connection that it keeps."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came to one request."""

    result: Result
    entries: tuple[Entry, ...] = ()


Told = Callable[[Answer | NoAnswer], None]


@dataclass(slots=True, eq=False)
class _Asked:
    """One request under way."""

    final: int
    told: Told | None
    deadline: asyncio.TimerHandle
    entries: list[Entry] = field(default_factory=list)
    octets: int = 0


class DirectoryClient:
    """Asks over ``link``, which it takes for itself. ``ended`` hears once that it asks no more, unless it was closed."""

    def __init__(self, link: Link, *, ended: Callable[[DirectoryClient], None] | None = None) -> None:
        self._link = link
        self._ended = ended
        self._buffer = bytearray()
        self._next_id = 0
        self._asked: dict[int, _Asked] = {}
        self._loop = asyncio.get_running_loop()
        link.give_to(self)

    @property
    def server(self) -> str:
        """Who is asked."""
        return self._link.server

    @property
    def is_open(self) -> bool:
        """Whether more can be asked, as far as is known."""
        return self._link.is_open

    @property
    def outstanding(self) -> int:
        """Requests without an answer."""
        return len(self._asked)

    def ask(self, build: Callable[[int], bytes], request_tag: int, told: Told, *, timeout_s: float) -> Cancel:
        """Send what ``build`` makes for a message ID, and tell the answer, or NoAnswer, once; never before this returns.

        A request that is called off is abandoned as far as the caller sees; one without an answer in time takes the connection
        with it: what comes late would be taken for the answer to something else.
        """
        if not self.is_open or len(self._asked) >= MAX_OUTSTANDING:
            why = "the connection has ended" if not self.is_open else f"{MAX_OUTSTANDING} requests wait already"
            handle = self._loop.call_soon(told, NoAnswer(f"{self.server}: {why}"))
            return handle.cancel
        message_id = self._next_id = self._next_id % MESSAGE_ID_MAX + 1
        deadline = self._loop.call_later(timeout_s, self._fall_silent, timeout_s)
        asked = self._asked[message_id] = _Asked(FINAL[request_tag], told, deadline)
        self._link.write(build(message_id))
        return partial(self._call_off, message_id, asked)

    async def asked(self, build: Callable[[int], bytes], request_tag: int, *, timeout_s: float) -> Answer:
        """:meth:`ask`, for those that wait. Raises: NoAnswer."""
        future: asyncio.Future[Answer | NoAnswer] = self._loop.create_future()

        def told(answer: Answer | NoAnswer) -> None:
            if not future.done():
                future.set_result(answer)

        cancel = self.ask(build, request_tag, told, timeout_s=timeout_s)
        try:
            answer = await future
        finally:
            cancel()
        if isinstance(answer, NoAnswer):
            raise answer
        return answer

    def close(self) -> None:
        """Take leave. Who waits hears NoAnswer; ``ended`` is not called."""
        self._ended = None
        self._link.close()
        self._tell_all("it was closed")

    def _call_off(self, message_id: int, asked: _Asked) -> None:
        if asked.told is not None and self._asked.get(message_id) is asked:
            asked.told = None
            # It stays in the table: the answer may be on its way, and no answer at all still means a directory that hangs.
            self._link.write(build_abandon(self._abandon_id(), message_id))
            self._forget_soon(message_id, asked)

    def _abandon_id(self) -> int:
        self._next_id = self._next_id % MESSAGE_ID_MAX + 1
        return self._next_id

    def _forget_soon(self, message_id: int, asked: _Asked) -> None:
        # An abandoned request is not answered as a rule (RFC 4511 section 4.11), so that silence is no sign of anything.
        when = asked.deadline.when()
        asked.deadline.cancel()
        asked.deadline = self._loop.call_at(when, self._asked.pop, message_id, None)

    def upstream_data(self, data: bytes) -> None:
        """See :class:`ldap_proxy.link.Receiver`."""
        buffer = self._buffer
        buffer += data
        at = 0
        try:
            while (found := head(buffer, at, MAX_ANSWER)) is not None and len(buffer) >= found[0]:
                end, message_id, tag, _, _ = found
                self._take(message_id, tag, bytes(buffer[at:end]))
                at = end
                if not self._link.is_open:
                    return
        except Malformed as err:
            self._fail(f"it sent what is no answer: {err}")
            return
        del buffer[:at]

    def _take(self, message_id: int, tag: int, pdu: bytes) -> None:
        """One message. Raises: Malformed."""
        if message_id == 0:
            self._unsolicited(pdu)
            return
        asked = self._asked.get(message_id)
        if asked is None:
            raise Malformed("an answer to a message that nobody sent")
        asked.octets += len(pdu)
        if asked.octets > MAX_ANSWER or len(asked.entries) >= MAX_ENTRIES:
            raise Malformed(f"an answer of more than {MAX_ANSWER} octets or {MAX_ENTRIES} entries")
        if tag == asked.final:
            result = parse_result(pdu)
            del self._asked[message_id]
            asked.deadline.cancel()
            if asked.told is not None:
                asked.told(Answer(result, tuple(asked.entries)))
        elif tag == SEARCH_ENTRY and asked.final == SEARCH_DONE:
            asked.entries.append(parse_entry(pdu))
        elif tag != INTERMEDIATE_RESPONSE and not (tag == SEARCH_REFERENCE and asked.final == SEARCH_DONE):
            raise Malformed(f"an answer with the tag 0x{tag:02x}, expected 0x{asked.final:02x}")

    def _unsolicited(self, pdu: bytes) -> None:
        result = parse_result(pdu)
        if result.oid == NOTICE_OF_DISCONNECTION.encode():
            self._fail(f"it disconnects with {result_name(result.code)}")
        # Any other notification means nothing to us (RFC 4511 section 4.4: those that are not known are ignored).

    def upstream_lost(self, error: Exception | None) -> None:
        """See :class:`ldap_proxy.link.Receiver`."""
        self._over("the connection broke" if error is not None else "it closed the connection")

    def upstream_full(self) -> None:
        """Requests are small, and their number is bounded."""

    def upstream_drained(self) -> None:
        """See :meth:`upstream_full`."""

    def _fall_silent(self, timeout_s: float) -> None:
        self._link.abort()
        self._over(f"no answer within {timeout_s:.3g} s", Silence)

    def _fail(self, why: str) -> None:
        self._link.abort()
        self._over(why)

    def _over(self, why: str, kind: type[NoAnswer] = NoAnswer) -> None:
        ended, self._ended = self._ended, None
        self._buffer.clear()
        if ended is not None:
            ended(self)
        self._tell_all(why, kind)

    def _tell_all(self, why: str, kind: type[NoAnswer] = NoAnswer) -> None:
        asked, self._asked = self._asked, {}
        for one in asked.values():
            one.deadline.cancel()
            if one.told is not None:
                one.told(kind(f"{self.server}: {why}"))


def result_name(code: int) -> str:
    """A result code for people: ``invalid_credentials (49)``."""
    try:
        return f"{ResultCode(code).name.lower()} ({code})"
    except ValueError:
        return f"result {code}"
