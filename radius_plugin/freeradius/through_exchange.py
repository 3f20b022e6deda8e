"""How does a request of FreeRADIUS's go through the same exchange as a packet of our own server?

Room rule: translation. The request becomes the packet that FreeRADIUS has received, hidden with a secret that lives as long as
this object and that nobody shares; the reply's octets become the words of the socket. So States, reply attributes, counters and
logs are those of every other client, and verdicts are mapped where they are mapped for all.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from ipaddress import ip_address
from typing import Any

from mfa_core.secret import Secret
from radius_plugin.authenticators import HIDDEN_MAX, SharedSecret
from radius_plugin.clients import Client
from radius_plugin.exchange import Exchange
from radius_plugin.freeradius.messages import PluginAccounting, PluginReply, PluginRequest, ReplyKind
from radius_plugin.settings import CALLING_STATION_ID, ClientSettings, Purpose, RequireSignature, SignReplies
from radius_plugin.wire import AUTHENTICATOR_SIZE, Code, Packet, Type, attribute, integer_attribute, parse

LOOK_S = 0.25
"""How often a request is looked after that may have ended without an answer."""
MARGIN_S = 1
"""Seconds that an out-of-band factor gets less than the module waits."""

_PURPOSES = frozenset(Purpose)
_KINDS = {
    Code.ACCESS_ACCEPT: ReplyKind.ACCEPT,
    Code.ACCESS_REJECT: ReplyKind.REJECT,
    Code.ACCESS_CHALLENGE: ReplyKind.CHALLENGE,
}
_NOT_IN_REPLY = {Type.MESSAGE_AUTHENTICATOR, Type.REPLY_MESSAGE, Type.STATE}
_ACCT_INPUT_GIGAWORDS, _ACCT_OUTPUT_GIGAWORDS, _FRAMED_IP_ADDRESS = 52, 53, 8
_U32 = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class _Asked:
    """Where the answer goes, as the exchange knows it."""

    future: asyncio.Future[bytes]


class ThroughExchange:
    """An :class:`radius_plugin.local_socket.Answerer`.

    ``settings`` hold for clients of FreeRADIUS that are none of ours by name. What packets need and a local socket does not
    (secrets, signatures) is taken out of the settings.
    """

    def __init__(self, exchange: Exchange, settings: ClientSettings, *, random: Callable[[int], bytes] = os.urandom) -> None:
        self._exchange = exchange
        self._settings = settings
        self._random = random
        self._secret = SharedSecret(Secret(random(32)))
        self._numbers = itertools.count()
        self._counts: dict[str, int] = {}
        self._client = lru_cache(maxsize=1024)(self._make_client)

    @property
    def name(self) -> str:
        """What those clients are called."""
        return self._settings.name

    @property
    def counts(self) -> dict[str, int]:
        """Events of the clients that are none of ours by name, since the start."""
        return dict(self._counts)

    def reload(self, settings: ClientSettings) -> None:
        """From the next request on, these hold, and the exchange's clients as they are now."""
        self._settings = settings
        self._client.cache_clear()

    async def answer(self, request: PluginRequest) -> PluginReply:
        """Answer one login."""
        if request.password is not None and len(request.password) > HIDDEN_MAX:
            return PluginReply(ReplyKind.REJECT)  # RFC 2865 section 5.2; a tunnel could carry more
        if request.chap_password is not None and not request.chap_challenge:
            return PluginReply(ReplyKind.REJECT)  # an answer to no question proves nothing
        wait_s = max(1, request.wait_s - MARGIN_S)
        client = self._client(request.client, request.challenges, wait_s)
        octets = await self._through(client, request.source, self._access_request(request))
        return PluginReply(ReplyKind.NO_ANSWER) if octets is None else _reply(parse(octets))

    async def account(self, record: PluginAccounting) -> bool:
        """Write one accounting record down."""
        client = self._client(record.client, True, 1)
        return await self._through(client, record.source, self._accounting_request(record)) is not None

    async def _through(self, client: Client, source: str, packet: bytes) -> bytes | None:
        """The reply's octets; None where there is none: the exchange keeps silent, or has dropped it."""
        asked = _Asked(asyncio.get_running_loop().create_future())
        peer = ("freeradius", source, next(self._numbers))
        self._exchange.receive_from(client, packet, peer, _send, asked, _PURPOSES, source, protected=True)
        while not asked.future.done():
            if not self._exchange.is_under_way((*peer, packet[0], packet[1])):
                return None
            await asyncio.wait({asked.future}, timeout=LOOK_S)
        return asked.future.result()

    def _make_client(self, name: str, challenges: bool, wait_s: int) -> Client:
        known = next((one for one in self._exchange.clients if one.settings.name == name), None)
        settings = self._settings if known is None else known.settings
        settings = replace(
            settings,
            require_message_authenticator=RequireSignature.NO,
            reply_message_authenticator=SignReplies.NEVER,
            source_attribute=CALLING_STATION_ID,
            challenges=settings.challenges and challenges,
            wait_s=min(settings.wait_s, float(wait_s)),
        )
        return Client(settings, (self._secret,), self._counts if known is None else known.counts)

    def _access_request(self, request: PluginRequest) -> bytes:
        authenticator = self._random(AUTHENTICATOR_SIZE)
        parts = [_common(request)]
        if request.password is not None:
            parts.append(attribute(Type.USER_PASSWORD, self._secret.hide(request.password.reveal(), authenticator)))
        if request.chap_password is not None:
            parts.append(attribute(Type.CHAP_PASSWORD, request.chap_password.reveal()))
            parts.append(attribute(Type.CHAP_CHALLENGE, request.chap_challenge))
        if request.state:
            parts.append(attribute(Type.STATE, request.state))
        return self._secret.request(Code.ACCESS_REQUEST, 0, b"".join(parts), authenticator=authenticator, sign=False)

    def _accounting_request(self, record: PluginAccounting) -> bytes:
        parts = [_common(record), integer_attribute(Type.ACCT_STATUS_TYPE, record.status)]
        for kind, number in (
            (Type.ACCT_SESSION_TIME, record.session_time_s),
            (Type.ACCT_TERMINATE_CAUSE, record.terminate_cause),
        ):
            if number is not None:
                parts.append(integer_attribute(kind, number))
        for kind, more, octets in (
            (Type.ACCT_INPUT_OCTETS, _ACCT_INPUT_GIGAWORDS, record.input_octets),
            (Type.ACCT_OUTPUT_OCTETS, _ACCT_OUTPUT_GIGAWORDS, record.output_octets),
        ):
            if octets is not None:
                parts.append(integer_attribute(kind, octets & _U32) + integer_attribute(more, octets >> 32))
        if record.framed_address and ":" not in record.framed_address:
            parts.append(attribute(_FRAMED_IP_ADDRESS, ip_address(record.framed_address).packed))
        return self._secret.request(Code.ACCOUNTING_REQUEST, 0, b"".join(parts), sign=False)


def _send(octets: bytes, to: Any) -> None:
    asked: _Asked = to
    if not asked.future.done():
        asked.future.set_result(octets)


def _common(request: PluginRequest | PluginAccounting) -> bytes:
    parts = [
        attribute(kind, value)
        for kind, value in (
            (Type.USER_NAME, request.user_name),
            (Type.CALLING_STATION_ID, request.calling_station),
            (Type.CALLED_STATION_ID, request.called_station),
            (Type.NAS_IDENTIFIER, request.nas_identifier),
            (Type.ACCT_SESSION_ID, request.session_id),
        )
        if value
    ]
    if request.nas_address:
        packed = ip_address(request.nas_address).packed
        parts.append(attribute(Type.NAS_IP_ADDRESS if len(packed) == 4 else Type.NAS_IPV6_ADDRESS, packed))
    return b"".join(parts)


def _reply(packet: Packet) -> PluginReply:
    kind = _KINDS[Code(packet.code)]
    return PluginReply(
        kind,
        tuple(value.decode("utf-8", "replace") for value in packet.all(Type.REPLY_MESSAGE)),
        packet.first(Type.STATE) or b"",
        b"".join(attribute(one, value) for one, value in packet.attributes() if one not in _NOT_IN_REPLY)
        if kind is ReplyKind.ACCEPT
        else b"",
    )
