"""The way to the authority: HTTPS with a certificate on both sides, several addresses, and an end to every wait.

Room rule: the only file that imports aiohttp, and where its exceptions end. Octets go out and come in; what they mean is not
known here. Nothing is believed of a peer before TLS has shown that its certificate is the pinned authority's.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from mfa_core.errors import MfaError
from mfa_core.secret import Secret

MAX_ANSWER_BYTES = 16 * 1024 * 1024
"""Longer answers are given up: a page of a sync has 1 MiB of sealed material and 500 users."""
MAX_ERROR_BYTES = 16 * 1024
CONNECTIONS = 8
"""Kept connections: the verifications that are under way at once, the long poll, the journal and a look."""
KEEP_S = 75.0
"""An idle connection is kept so long: more than a long poll lasts."""
SILENT_S = 12
"""A connection whose other end says nothing to the kernel for so long is broken: nobody else would notice, while a host waits
for news, that its packets get lost."""
PROBE_AFTER_S = 6
"""A connection that is idle is probed after so long, by the kernel: one packet, and one back."""
PROBE_EVERY_S = 2
CONNECT_S = 10.0
"""For a connection with its TLS. Only what waits for news is tried for longer."""
RESOLVE_S = 0.4
"""A name that was resolved before is not waited for any longer than this: its last addresses do."""
SIGNATURE = "Mfad-Signature"

_BUSY = frozenset({429, 500, 502, 503, 504})
"""Answers of an authority, or of something before it, that cannot decide now."""


class Unreachable(MfaError):
    """No authority answered in time, or none could: decide without it."""


class Refused(MfaError):
    """The authority answered, and said no. ``code`` is its word for why; ``status`` that of HTTP; ``body`` all that it said."""

    def __init__(self, message: str, *, status: int, code: str, cure: str = "", body: bytes = b"") -> None:
        super().__init__(message, cure=cure)
        self.status = status
        self.code = code
        self.body = body


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the body, and the header that signs it ("" if there was none)."""

    body: bytes
    signature: str = ""
    url: str = ""


def client_context(*, trust: str, certificate: bytes, key: Secret) -> ssl.SSLContext:
    """TLS 1.3 for one who shows ``certificate`` (PEM) with its private ``key`` (PEM) to servers that ``trust`` (PEM) signed.

    OpenSSL wants a file; it gets one that exists in memory alone.

    Raises:
        ssl.SSLError: they do not belong together, or are none.
    """
    context = trusting_context(trust)
    fd = os.memfd_create("mfad", os.MFD_CLOEXEC)
    try:
        with os.fdopen(fd, "wb", closefd=False) as out:
            out.write(certificate + b"\n" + key.reveal())
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
    return context


def trusting_context(trust: str) -> ssl.SSLContext:
    """TLS 1.3 towards servers that ``trust`` (PEM) signed, and nobody else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # what was pinned is the anchor, whoever signed it
    context.load_verify_locations(cadata=trust)
    return context


class Authorities:
    """The authorities of a host, in their order: who answered last is asked first.

    Lives on one event loop. ``context`` is asked for at every request: another one than before begins new connections, so that
    a renewed certificate is shown from one moment on.
    """

    def __init__(self, urls: Sequence[str], context: Callable[[], ssl.SSLContext], *, connections: int = CONNECTIONS) -> None:
        self._urls = tuple(url.rstrip("/") for url in urls)
        self._context = context
        self._connections = connections
        self._at = 0
        self._session: aiohttp.ClientSession | None = None
        self._shown: ssl.SSLContext | None = None
        self._retired: dict[aiohttp.ClientSession, asyncio.Task[None]] = {}
        self._resolver: _KeptAddresses | None = None

    @property
    def url(self) -> str:
        """Who is asked first."""
        return self._urls[self._at]

    async def post(self, path: str, body: bytes, *, try_s: float, budget_s: float) -> Answer:
        """Send ``body``; the first authority that answers counts. One try takes ``try_s`` at most, all of them ``budget_s``.

        Raises:
            Unreachable: nobody answered in time.
            Refused: somebody said no.
        """
        return await self._send("POST", path, body, try_s, budget_s)

    async def get(self, path: str, *, try_s: float, budget_s: float) -> Answer:
        """As :meth:`post`, without a body."""
        return await self._send("GET", path, None, try_s, budget_s)

    async def _send(self, method: str, path: str, body: bytes | None, try_s: float, budget_s: float) -> Answer:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + budget_s
        last: Unreachable | None = None
        # Twice at least: a kept connection may have been closed just now, and the next one is made anew.
        for _ in range(max(2, len(self._urls))):
            left = min(try_s, deadline - loop.time())
            if left <= 0:
                break
            at, began = self._at, loop.time()
            try:
                return await self._try(self._urls[at], method, path, body, left)
            except Unreachable as err:
                last = err
                if len(self._urls) == 1 and loop.time() - began > CONNECT_S:
                    break  # this was no connection that had just been closed, and there is nobody else to ask
                if at == self._at:  # nobody has moved on meanwhile
                    self._at = (at + 1) % len(self._urls)
        raise last if last is not None else Unreachable("no authority was asked: there was no time left")

    async def _try(self, url: str, method: str, path: str, body: bytes | None, left_s: float) -> Answer:
        session = self._opened()
        try:
            async with session.request(
                method, url + path, data=body,
                timeout=aiohttp.ClientTimeout(total=left_s, sock_connect=min(left_s, CONNECT_S)),
                allow_redirects=False,
            ) as response:
                if response.status == 200:
                    octets = await _read(response, MAX_ANSWER_BYTES)
                    return Answer(octets, response.headers.get(SIGNATURE, ""), url)
                raise _refusal(url, response.status, await _read(response, MAX_ERROR_BYTES))
        except TimeoutError as err:
            raise Unreachable(f"{url} did not answer within {left_s:.1f} s", cure=_LOOK) from err
        except aiohttp.ClientConnectorCertificateError as err:
            raise _untrusted(url, err) from err
        except (aiohttp.ClientError, OSError, ValueError) as err:
            raise Unreachable(f"{url} cannot be reached: {_short(err)}", cure=_LOOK) from err

    def _opened(self) -> aiohttp.ClientSession:
        context = self._context()
        if context is not self._shown:
            if self._session is not None:  # what is under way there may end
                retired, self._session = self._session, None
                self._retired[retired] = asyncio.get_running_loop().create_task(self._retire(retired))
            self._shown = context
        if self._session is None:
            if self._resolver is None:
                self._resolver = _KeptAddresses()
            connector = aiohttp.TCPConnector(
                ssl=context, limit=self._connections, keepalive_timeout=KEEP_S, resolver=self._resolver,
                ttl_dns_cache=60, socket_factory=probed_socket,
            )  # fmt: skip
            self._session = aiohttp.ClientSession(
                connector=connector,
                auto_decompress=False,  # nothing is compressed in a way that could grow without bound
                headers={"Accept-Encoding": "identity", "Content-Type": "application/json"},
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    async def _retire(self, session: aiohttp.ClientSession) -> None:
        try:
            await asyncio.sleep(KEEP_S)
        finally:
            await session.close()
            self._retired.pop(session, None)

    async def forget_connections(self) -> None:
        """Close all connections: what was lost is made anew."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()
        for task in list(self._retired.values()):
            task.cancel()
        await asyncio.gather(*self._retired.values(), return_exceptions=True)

    async def close(self) -> None:
        """Close everything."""
        await self.forget_connections()
        resolver, self._resolver = self._resolver, None
        if resolver is not None:
            resolver.shut_down()


async def _read(response: aiohttp.ClientResponse, most: int) -> bytes:
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise ValueError("the answer is compressed, which nobody asked for")
    octets = bytearray()
    async for piece in response.content.iter_any():
        octets += piece
        if len(octets) > most:
            raise ValueError(f"the answer is longer than {most} octets")
    return bytes(octets)


def _refusal(url: str, status: int, body: bytes) -> MfaError:
    code = text = cure = ""
    try:
        said: Any = json.loads(body)
        if isinstance(said, dict):
            code, text, cure = (str(said.get(key) or "")[:500] for key in ("error", "text", "cure"))
    except (ValueError, RecursionError):
        code = ""
    if status in _BUSY or status == HTTPStatus.UNAUTHORIZED:  # the second: connect again, with the certificate of now
        return Unreachable(f"{url} answers {status}: {text or 'it cannot decide now'}", cure=cure or "see its log")
    return Refused(f"{url} answers {status} {code}: {text}".rstrip(": "), status=status, code=code, cure=cure, body=body)


def _untrusted(url: str, err: aiohttp.ClientConnectorCertificateError) -> Unreachable:
    cause = err.certificate_error
    if getattr(cause, "verify_code", 0) in _OTHER_NAME:
        return Unreachable(
            f"{url} shows the authority's certificate, in which {err.host} does not stand",
            cure=f"add {err.host} to authority.certificate_names there and start mfad anew, or use a name that stands there",
        )
    return Unreachable(
        f"{url} shows a certificate that the authority of this host did not sign: {cause}",
        cure="see that the address is the authority's, and that nothing on the way ends TLS; else join again",
    )


def _short(err: BaseException) -> str:
    return (str(err) or type(err).__name__).splitlines()[0][:300]


_OTHER_NAME = frozenset({62, 64})
"""X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH: signed by whom it should be (x509_vfy.h)."""
_LOOK = "see that mfad runs there, and that the network lets this host through"


def probed_socket(info: tuple[Any, ...]) -> socket.socket:
    """A socket whose other end is missed after :data:`SILENT_S`, whether anybody says anything or not (tcp(7))."""
    made = socket.socket(family=info[0], type=info[1], proto=info[2])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBE_AFTER_S)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_EVERY_S)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT_S * 1000)
    return made


class _KeptAddresses(AbstractResolver):
    """Resolves names in one thread of its own, and knows what they were when nobody answers any more.

    The loop's own threads are few, and a resolver without a network holds each of them for half a minute.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="resolve")
        self._known: dict[tuple[str, int, int], list[ResolveResult]] = {}
        self._under_way: dict[tuple[str, int, int], asyncio.Future[list[ResolveResult]]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of ``host``. Raises: OSError."""
        key = (host, port, int(family))
        asked = self._under_way.get(key)
        if asked is None:
            loop = asyncio.get_running_loop()
            asked = asyncio.ensure_future(loop.run_in_executor(self._thread, _look_up, host, port, family))
            self._under_way[key] = asked
            asked.add_done_callback(lambda done: self._learn(key, done))
        known = self._known.get(key)
        if known is None:
            return await asyncio.shield(asked)
        try:
            async with asyncio.timeout(RESOLVE_S):
                return await asyncio.shield(asked)
        except (TimeoutError, OSError):
            return known

    def _learn(self, key: tuple[str, int, int], asked: asyncio.Future[list[ResolveResult]]) -> None:
        del self._under_way[key]
        if not asked.cancelled() and asked.exception() is None and asked.result():
            self._known[key] = asked.result()

    async def close(self) -> None:
        """Nothing: what is known is worth most when everything else is closed. See :meth:`shut_down`."""

    def shut_down(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    found: list[ResolveResult] = []
    for kind, _, protocol, _, address in socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM):
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        found.append(
            ResolveResult(
                hostname=host, host=str(address[0]), port=int(address[1]), family=kind, proto=protocol, flags=flags
            )
        )
    return found


def names_host(url: str) -> bool:
    """Whether this is the address of an authority: ``https://HOST[:PORT]`` and nothing behind it."""
    try:
        parts = urlsplit(url)
        return (
            parts.scheme == "https" and bool(parts.hostname) and parts.path in {"", "/"} and not parts.query
            and not parts.fragment and parts.username is None and parts.port != 0
        )  # fmt: skip
    except ValueError:
        return False
