"""The `radius` first-factor backend: another RADIUS server says whether a password is right (PAP, RFC 2865 section 5.2).

Room rule: the only file of this package that imports pyrad: its packets, for its client believes replies from any address and
is stopped by junk. Calls block, and run in fair threads. What a reply must be to count (RFC 3579 section 3.2, and the answer to
CVE-2024-3596): from the address that was asked, well formed, with our identifier, a right Response Authenticator, exactly one
Message-Authenticator, which is right, and no Proxy-State, for we send none. Anything else is no answer.

A challenge cannot be passed on, and is a refusal that the log explains. Another server is asked only when nobody answered.
"""

from __future__ import annotations

import logging
import secrets
import socket
import time
from collections.abc import Callable
from functools import partial

from pyrad.packet import AccessAccept, AccessChallenge, AccessReject, AccessRequest, AuthPacket, StatusServer

from mfa_core.model import Attempt
from mfa_core.secret import Secret
from mfa_runtime.config.primary import RadiusSection, SentName
from mfa_runtime.fair_threads import FairThreads, Shares
from mfa_runtime.primary import PrimaryUnavailable
from mfa_runtime.server_order import ServerOrder

log = logging.getLogger(__name__)

MAX_PASSWORD_BYTES = 128
_MAX_VALUE_BYTES = 253
_MAX_PACKET_BYTES = 4096
_HEADER_BYTES = 20
_USER_NAME, _USER_PASSWORD, _CALLING_STATION_ID, _NAS_IDENTIFIER, _PROXY_STATE, _MESSAGE_AUTHENTICATOR = 1, 2, 31, 32, 33, 80
_USUAL_PORT = 1812


class _NoAnswer(Exception):
    """Nothing came that may be believed."""


class RadiusPrimary:
    """Asks the servers of ``section``, which share ``secret`` with us; ``monotonic`` returns seconds."""

    def __init__(self, section: RadiusSection, *, secret: Secret, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._section = section
        self._secret = secret
        self._order = ServerOrder(section.servers, dead_time_s=section.dead_time, monotonic=monotonic)
        self._threads = FairThreads("primary-radius", Shares.of(section.connections))
        self._timeout_s = float(section.timeout * (section.retries * len(section.servers) + 1))

    async def check(self, name: str, password: Secret, attempt: Attempt) -> bool:
        """See :class:`mfa_runtime.primary.Primary`.

        Raises:
            PrimaryUnavailable: no server gave an answer that may be believed, or too many calls wait.
        """
        sent = name if self._section.user_name is SentName.CANONICAL else attempt.username
        user = sent.encode("utf-8", "surrogateescape")
        if not name or not 1 <= len(user) <= _MAX_VALUE_BYTES or not _can_be_asked(password):
            return False
        work = partial(self._authenticate, name, user, password, attempt.source or "")
        return await self._threads.run(work, user=name, source=attempt.source or None, timeout_s=self._timeout_s)

    def probe(self, server: str) -> None:
        """Ask whether the server is there, by Status-Server (RFC 5997). Blocks. Raises: PrimaryUnavailable, also for one that
        does not know this request.
        """
        try:
            self._send(server, self._request(StatusServer))
        except (_NoAnswer, OSError) as err:
            raise PrimaryUnavailable(f"{server}: {err}", cure="check its address, secret_file, and that it knows us") from err

    def close(self) -> None:
        """Take no more calls; those under way are answered."""
        self._threads.close()

    def _authenticate(self, name: str, user: bytes, password: Secret, source: str) -> bool:
        reasons: list[str] = []
        for server in self._order.to_ask():
            try:
                code = self._exchange(server, user, password, source)
            except (_NoAnswer, OSError) as err:
                reasons.append(f"{server}: {err}")
                if self._order.failed(server):
                    log.warning("RADIUS server %s stands aside for %d s: %s", server, self._section.dead_time, err)
                continue
            if self._order.answered(server):
                log.info("RADIUS server %s answers again", server)
            if code == AccessChallenge:
                log.warning(
                    "RADIUS server %s asks %s a further question (Access-Challenge), which cannot be passed on: refused; "
                    "have it check the password alone",
                    server,
                    name,
                )
            return bool(code == AccessAccept)
        raise PrimaryUnavailable("; ".join(reasons), cure="check the servers, secret_file, and that they know this host")

    def _exchange(self, server: str, user: bytes, password: Secret, source: str) -> int:
        request = self._request(AccessRequest)
        request[_USER_NAME] = [user]
        request[_USER_PASSWORD] = [request.PwCrypt(password.reveal())]
        if source:
            request[_CALLING_STATION_ID] = [source.encode("utf-8", "surrogateescape")[:_MAX_VALUE_BYTES]]
        return self._send(server, request)

    def _request(self, code: int) -> AuthPacket:
        request = AuthPacket(
            code=code,
            id=secrets.randbelow(256),
            secret=self._secret.reveal(),
            authenticator=secrets.token_bytes(16),
            message_authenticator=True,
        )
        request[_NAS_IDENTIFIER] = [self._section.nas_identifier.encode("ascii")]
        return request

    def _send(self, server: str, request: AuthPacket) -> int:
        """Send, and send again; the code of the reply. Raises: _NoAnswer, OSError."""
        octets = request.RequestPacket()
        why = f"no answer to {self._section.retries} requests"
        with _connected(server) as channel:
            for _ in range(self._section.retries):
                channel.send(octets)
                until = time.monotonic() + self._section.timeout
                while (left := until - time.monotonic()) > 0:
                    channel.settimeout(left)
                    try:
                        reply = channel.recv(_MAX_PACKET_BYTES + 1)
                    except TimeoutError:
                        break
                    doubt = _doubt(request, reply)
                    if doubt is None:
                        return reply[0]
                    why = f"a reply that cannot be believed: {doubt}"
        raise _NoAnswer(why)


def _doubt(request: AuthPacket, reply: bytes) -> str | None:
    """Why these octets are no answer to ``request``; None when they are one."""
    if not _HEADER_BYTES <= len(reply) <= _MAX_PACKET_BYTES:
        return f"{len(reply)} octets"
    length = int.from_bytes(reply[2:4], "big")
    if not _HEADER_BYTES <= length <= len(reply):
        return f"a length of {length} in {len(reply)} octets"
    if reply[0] not in (AccessAccept, AccessReject, AccessChallenge):
        return f"code {reply[0]}"
    kinds, at = [], _HEADER_BYTES
    while at < length:
        size = reply[at + 1] if at + 1 < length else 0
        if size < 2 or at + size > length:
            return "a broken attribute"
        if reply[at] == _MESSAGE_AUTHENTICATOR and size != 18:
            return "a Message-Authenticator of another length"
        kinds.append(reply[at])
        at += size
    if kinds.count(_MESSAGE_AUTHENTICATOR) != 1:
        return f"{kinds.count(_MESSAGE_AUTHENTICATOR)} Message-Authenticators, expected 1 (the server must sign its replies)"
    if _PROXY_STATE in kinds:
        return "a Proxy-State that was not sent"
    try:
        answer = request.CreateReply(packet=reply[:length])
        right = request.VerifyReply(answer, reply[:length], enforce_ma=True)
    except Exception as err:  # noqa: BLE001  whatever a peer makes the decoder raise, it is no answer
        return f"it cannot be read ({type(err).__name__})"
    return None if right else "another identifier, or signed with another secret"


def _connected(server: str) -> socket.socket:
    """A socket that hears that server alone, and of it when nobody listens there. Raises: OSError."""
    host, port = _address(server)
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    channel = socket.socket(family, kind, protocol)
    try:
        channel.connect(address)
    except BaseException:
        channel.close()
        raise
    return channel


def _address(server: str) -> tuple[str, int]:
    """``host``, ``host:port``, ``[v6]`` or ``[v6]:port``, as the configuration has checked it."""
    bracketed, bracket, rest = server.rpartition("]")
    host, colon, port = (bracketed[1:], *rest.partition(":")[1:]) if bracket else server.partition(":")
    return host, int(port) if colon else _USUAL_PORT


def _can_be_asked(password: Secret) -> bool:
    # PAP pads with NULs: one at the end would be lost, and some servers stop at the first.
    return 1 <= len(password) <= MAX_PASSWORD_BYTES and b"\0" not in password.reveal()
