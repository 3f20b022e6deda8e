"""How does a request come in, and an answer go out?

Room rule: routes, and the only file that answers in ASGI. A route is a method, a bound and a function from :class:`Asked` to
:class:`Answer`; who asks and what is answered is decided elsewhere. Whatever breaks becomes a refusal in JSON: no traceback and
no text of an exception that is not ours leaves the machine.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from authority.certificate_authority import Shown
from authority.http_connection import MADE_AT, SHOWN
from mfa_core.errors import Conflict, InvalidInput, MfaError, Overloaded, StoreCorrupt, StoreUnavailable
from mfa_runtime.protocol.message import ProtocolError
from mfa_runtime.protocol.reporting import JournalHead, Refused
from mfa_runtime.protocol.words import JSON_TYPE, STATUS, Refusal

MAX_OCTETS_AT_ONCE: Final = 128 << 20
"""Of bodies that are being read, over all connections."""

log = logging.getLogger(__name__)


class Refuse(Exception):
    """Answer with a refusal. ``journal`` goes with JOURNAL_FORK."""

    def __init__(self, refusal: Refusal, text: str = "", *, cure: str = "", journal: JournalHead | None = None) -> None:
        super().__init__(text)
        self.refusal = refusal
        self.text = text
        self.cure = cure
        self.journal = journal

    def octets(self) -> bytes:
        """As it travels."""
        return Refused(
            error=self.refusal.value, text=self.text[:1024], cure=self.cure[:1024], journal=self.journal
        ).octets()


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, without its body. ``address`` is the peer's; ``connected_at`` by the monotonic clock.

    ``body`` reads it, once. Raises: Refuse.
    """

    shown: Shown | None
    address: str
    connected_at: float
    body: Callable[[], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Answer:
    """A good answer."""

    octets: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Asked], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Served:
    """One route: what may be asked there, how many octets a request has at most, and who answers."""

    path: str
    method: str
    limit: int
    handler: Handler


class Counts:
    """What was asked, and how it ended: by path and by "ok" or the word of the refusal."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str]] = Counter()
        self.seconds: dict[str, float] = {}
        self.octets_now = 0


def application(routes: list[Served], counts: Counts) -> Router:
    """The ASGI application of ``routes``."""
    return Router([Route(one.path, _Endpoint(one, counts)) for one in routes], redirect_slashes=False, default=_Nowhere(counts))


class _Endpoint:
    """The ASGI application of one route."""

    def __init__(self, served: Served, counts: Counts) -> None:
        self._served = served
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        served, began = self._served, time.monotonic()
        try:
            if scope["method"] != served.method:
                raise Refuse(Refusal.NOT_FOUND, f"{served.path} is asked with {served.method}")
            extensions = scope["extensions"]
            client = scope.get("client")
            reader = _Body(scope, receive, served.limit, self._counts)
            answer = await served.handler(
                Asked(extensions.get(SHOWN), str(client[0]) if client else "", extensions[MADE_AT], reader.read)
            )
        except Exception as err:  # noqa: BLE001  logged there, and refused
            refuse = meaning(served.path, err)
            result, response = refuse.refusal.value, _response(refuse)
        else:
            result = "ok"
            response = Response(answer.octets, media_type=JSON_TYPE, headers=answer.headers)
        self._counts.requests[served.path, result] += 1
        seconds = self._counts.seconds
        seconds[served.path] = seconds.get(served.path, 0.0) + time.monotonic() - began
        await response(scope, receive, send)


class _Nowhere:
    """What is at every other path."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._counts.requests["other", Refusal.NOT_FOUND.value] += 1
        await _response(Refuse(Refusal.NOT_FOUND, "there is nothing at this path"))(scope, receive, send)


def _response(refuse: Refuse) -> Response:
    # What follows on this connection may be the rest of a body that nobody has read.
    return Response(
        refuse.octets(), status_code=STATUS[refuse.refusal], media_type=JSON_TYPE, headers={"Connection": "close"}
    )


def meaning(path: str, err: Exception) -> Refuse:
    """What broke, as a refusal. What the store or a bug says stays here, in the log."""
    match err:
        case Refuse():
            return err
        case ProtocolError():
            return Refuse(Refusal.BAD_REQUEST, str(err), cure=err.cure)
        case InvalidInput() | Conflict():
            return Refuse(Refusal.BAD_REQUEST, str(err), cure=err.cure)
        case Overloaded():
            log.warning("%s refused: %s", path, err)
            return Refuse(Refusal.OVERLOADED, "too much is under way already", cure="ask again in a moment")
        case StoreUnavailable() | StoreCorrupt():
            log.error("%s refused: %s; %s", path, err, err.cure)
            return Refuse(Refusal.UNAVAILABLE, "the authority cannot use its store", cure="see the log of mfad there")
        case MfaError():
            log.error("%s refused: %s; %s", path, err, err.cure)
            return Refuse(Refusal.INTERNAL, "the authority could not answer", cure="see the log of mfad there")
        case _:
            log.error("%s refused: internal error", path, exc_info=err)
            return Refuse(Refusal.INTERNAL, "the authority could not answer", cure="see the log of mfad there")


class _Body:
    """The body of one request, read when somebody wants it."""

    def __init__(self, scope: Scope, receive: Receive, limit: int, counts: Counts) -> None:
        self._scope = scope
        self._receive = receive
        self._limit = limit
        self._counts = counts

    async def read(self) -> bytes:
        """All of it. Raises: Refuse, when it is too long, there is no room, or the client is gone."""
        declared = next((value for name, value in self._scope["headers"] if name == b"content-length"), b"0")
        if len(declared) > 12 or not declared.isdigit() or int(declared) > self._limit:
            raise self._too_large()
        parts: list[bytes] = []
        octets = 0
        try:
            while True:
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    raise Refuse(Refusal.BAD_REQUEST, "the request ended before its body")
                part = message.get("body", b"")
                octets += len(part)
                self._counts.octets_now += len(part)
                if octets > self._limit:
                    raise self._too_large()
                if self._counts.octets_now > MAX_OCTETS_AT_ONCE:
                    raise Overloaded(f"{self._counts.octets_now} octets of requests are being read")
                parts.append(part)
                if not message.get("more_body", False):
                    return b"".join(parts)
        finally:
            self._counts.octets_now -= octets

    def _too_large(self) -> Refuse:
        return Refuse(Refusal.TOO_LARGE, f"a request to {self._scope['path']} has at most {self._limit} octets")
