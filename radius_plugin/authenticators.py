"""Who wrote this packet, and what did they hide in it? (RFC 2865 sections 3, 5.2 and 5.3; RFC 2866 section 3; RFC 3579 3.2)

Room rule: MD5, HMAC-MD5 and the shared secret are used in this file of the door and nowhere else. MD5 is what the protocol
has; it is no longer a signature by itself (CVE-2024-3596), which is why the Message-Authenticator stands first in all that is
sent. Comparisons take constant time. Nothing here reads a clock or a policy: what must be signed is the caller's to say.
"""

from __future__ import annotations

import enum
import hmac
import struct
from hashlib import md5
from typing import NoReturn

from mfa_core.errors import PeerProtocolError
from mfa_core.model import ChapAnswer
from mfa_core.secret import Secret
from radius_plugin.wire import (
    AUTHENTICATOR_SIZE,
    HEADER_SIZE,
    PACKET_MAX,
    Code,
    Malformed,
    Packet,
    PacketTooLong,
    attribute,
    frame,
    parse,
)

HIDDEN_MAX = 128
"""Octets of a User-Password (RFC 2865 section 5.2)."""
CHAP_SIZE = 17

_BLOCK = 64
"""Octets of MD5's block (RFC 2104)."""
_INNER = bytes(octet ^ 0x36 for octet in range(256))
_OUTER = bytes(octet ^ 0x5C for octet in range(256))
_ZEROS = bytes(AUTHENTICATOR_SIZE)
_SIGNATURE_HEAD = b"\x50\x12"
_UNSIGNED = _SIGNATURE_HEAD + _ZEROS
_SIGNED_AT = HEADER_SIZE + 2
_ACCOUNTING_REQUEST = 4
_PROXY_STATE = 33
_CHAP_PASSWORD = 3
_CHAP_CHALLENGE = 60
_HEAD = struct.Struct(">BBH")
_same = hmac.compare_digest

_ANSWERS: dict[int, frozenset[int]] = {
    Code.ACCESS_REQUEST: frozenset({Code.ACCESS_ACCEPT, Code.ACCESS_REJECT, Code.ACCESS_CHALLENGE}),
    Code.ACCOUNTING_REQUEST: frozenset({Code.ACCOUNTING_RESPONSE}),
    Code.STATUS_SERVER: frozenset({Code.ACCESS_ACCEPT, Code.ACCOUNTING_RESPONSE}),
}


class BadCredential(PeerProtocolError):
    """User-Password or CHAP-Password has a length that it cannot have: reject. The text quotes none of it."""


class Doubt(enum.StrEnum):
    """Why a reply is not believed: stable words for counters, logs and tests."""

    MALFORMED = "malformed"
    IDENTIFIER = "identifier"
    CODE = "code"
    """Not an answer to this kind of request."""
    RESPONSE_AUTHENTICATOR = "response_authenticator"
    """Another secret, or not for this request."""
    UNSIGNED = "unsigned"
    """No Message-Authenticator, and one is required (CVE-2024-3596)."""
    MESSAGE_AUTHENTICATOR = "message_authenticator"
    PROXY_STATE = "proxy_state"
    """A Proxy-State that was not sent: what a forger appends to make two packets collide (CVE-2024-3596)."""


class ReplyRefused(PeerProtocolError):
    """The datagram is not the answer to what was asked: go on waiting for it. ``doubt`` says why."""

    def __init__(self, doubt: Doubt, detail: str) -> None:
        super().__init__(f"{doubt}: {detail}", cure="compare the shared secrets of both sides; let the server sign its replies")
        self.doubt = doubt


def chap_in(packet: Packet) -> ChapAnswer | None:
    """The CHAP answer of a request; the Request Authenticator is the challenge where no CHAP-Challenge stands beside it.

    Raises: BadCredential when CHAP-Password is not one octet of identifier and sixteen of answer.
    """
    value = packet.first(_CHAP_PASSWORD)
    if value is None:
        return None
    if len(value) != CHAP_SIZE:
        raise BadCredential(f"a CHAP-Password of {len(value)} octets, expected {CHAP_SIZE}", cure="look at the client's CHAP")
    challenge = packet.first(_CHAP_CHALLENGE)
    return ChapAnswer(value[0], packet.authenticator if challenge is None else challenge, value[1:])


class SharedSecret:
    """The secret that one client shares with us, ready for use. It has no string form and no pickle."""

    __slots__ = ("__inner", "__outer", "__secret")

    def __init__(self, secret: Secret) -> None:
        """Take what both sides hold. Raises: ValueError for an empty one (RFC 2865 section 3 forbids it)."""
        if not secret:
            raise ValueError("an empty shared secret, expected at least one octet")
        # OpenSSL's MD5 costs a microsecond to set up and next to nothing a block: hashing the pad again each time is as quick
        # as copying the state after it, and shorter.
        key = secret.reveal()
        if len(key) > _BLOCK:
            key = md5(key, usedforsecurity=False).digest()
        key = key.ljust(_BLOCK, b"\0")
        self.__inner = key.translate(_INNER)
        self.__outer = key.translate(_OUTER)
        self.__secret = secret.reveal()

    def __repr__(self) -> str:
        return "SharedSecret(...)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a SharedSecret cannot be pickled or copied into another process")

    def _hmac(self, octets: bytes) -> bytes:
        inner = md5(self.__inner + octets, usedforsecurity=False).digest()
        return md5(self.__outer + inner, usedforsecurity=False).digest()

    # A server's side.

    def signed(self, packet: Packet) -> bool:
        """Whether a request carries a Message-Authenticator made with this secret (RFC 3579 section 3.2).

        False where it carries none: ask ``packet.message_authenticator_at`` for that.
        """
        at = packet.message_authenticator_at
        if not at:
            return False
        octets = packet.octets
        after = at + AUTHENTICATOR_SIZE
        if octets[0] == _ACCOUNTING_REQUEST:  # signed before its Request Authenticator is known (RFC 5176 section 3.4 likewise)
            zeroed = octets[:4] + _ZEROS + octets[HEADER_SIZE:at] + _ZEROS + octets[after:]
        else:
            zeroed = octets[:at] + _ZEROS + octets[after:]
        return _same(self._hmac(zeroed), octets[at:after])

    def accounting_request_is_good(self, packet: Packet) -> bool:
        """Whether an Accounting-Request was made with this secret (RFC 2866 section 3)."""
        octets = packet.octets
        data = octets[:4] + _ZEROS + octets[HEADER_SIZE:] + self.__secret
        return _same(md5(data, usedforsecurity=False).digest(), packet.authenticator)

    def reveal_padded(self, hidden: bytes, request_authenticator: bytes) -> bytes:
        """What User-Password hides, with its padding (RFC 2865 section 5.2).

        Raises: BadCredential unless it is 16 to 128 octets in blocks of 16.
        """
        size = len(hidden)
        if size == 16:  # nearly every one there is
            mask = md5(self.__secret + request_authenticator, usedforsecurity=False).digest()
            return (int.from_bytes(hidden, "big") ^ int.from_bytes(mask, "big")).to_bytes(16, "big")
        if not size or size % 16 or size > HIDDEN_MAX:
            raise BadCredential(
                f"a User-Password of {size} octets, expected 16 to {HIDDEN_MAX} in steps of 16",
                cure="look at the client: this is not hidden as RFC 2865 section 5.2 says",
            )
        mask = b""
        previous = request_authenticator
        for at in range(0, size, 16):
            mask += md5(self.__secret + previous, usedforsecurity=False).digest()
            previous = hidden[at : at + 16]
        return (int.from_bytes(hidden, "big") ^ int.from_bytes(mask, "big")).to_bytes(size, "big")

    def reveal(self, hidden: bytes, request_authenticator: bytes) -> bytes:
        """What User-Password hides, as it was typed: the NULs at its end are padding.

        With another secret than the client's this gives garbage, and nothing says so. Raises: BadCredential, see
        :meth:`reveal_padded`.
        """
        return self.reveal_padded(hidden, request_authenticator).rstrip(b"\0")

    def reply(self, code: int, request: Packet, attributes: bytes = b"", *, sign: bool = True) -> bytes:
        """The whole answer to ``request``: Message-Authenticator, then its Proxy-States in order, then ``attributes``.

        An Accounting-Response to an Accounting-Request is not signed: peers do not agree on which authenticator that would be
        over, and nothing is let in by it.

        Raises: PacketTooLong when Proxy-States and attributes together do not fit.
        """
        if _PROXY_STATE in request:
            copied = [attribute(_PROXY_STATE, value) for value in request.proxy_states]
            attributes = b"".join(copied) + attributes
        sign = sign and request.code != _ACCOUNTING_REQUEST
        length = HEADER_SIZE + len(attributes) + (len(_UNSIGNED) if sign else 0)
        if length > PACKET_MAX:
            raise PacketTooLong(f"a reply of {length} octets, at most {PACKET_MAX} fit", cure="give fewer reply attributes")
        head = _HEAD.pack(code, request.identifier, length)
        if sign:
            before = head + request.authenticator
            attributes = _SIGNATURE_HEAD + self._hmac(before + _UNSIGNED + attributes) + attributes
            before += attributes
        else:
            before = head + request.authenticator + attributes
        return head + md5(before + self.__secret, usedforsecurity=False).digest() + attributes

    # A client's side: the upstream, the trial, the tests.

    def hide(self, typed: bytes, request_authenticator: bytes) -> bytes:
        """The value of a User-Password (RFC 2865 section 5.2); an empty one is a block of padding.

        Raises: ValueError for more than 128 octets.
        """
        if len(typed) > HIDDEN_MAX:
            raise ValueError(f"a password of {len(typed)} octets, expected at most {HIDDEN_MAX}")
        padded = typed.ljust(max(16, -len(typed) % 16 + len(typed)), b"\0")
        hidden = b""
        previous = request_authenticator
        for at in range(0, len(padded), 16):
            mask = md5(self.__secret + previous, usedforsecurity=False).digest()
            previous = bytes(a ^ b for a, b in zip(padded[at : at + 16], mask, strict=True))
            hidden += previous
        return hidden

    def request(
        self, code: int, identifier: int, attributes: bytes = b"", *, authenticator: bytes = _ZEROS, sign: bool = True
    ) -> bytes:
        """A request, with its Message-Authenticator first.

        ``authenticator`` is sixteen random octets, the same that passwords in ``attributes`` are hidden with; an
        Accounting-Request has none of its own: it is computed.

        Raises: PacketTooLong; ValueError for a header field that the wire does not carry.
        """
        if code == _ACCOUNTING_REQUEST:
            authenticator = _ZEROS
        octets = frame(code, identifier, authenticator, _UNSIGNED + attributes if sign else attributes)
        if sign:
            octets = octets[:_SIGNED_AT] + self._hmac(octets) + octets[_SIGNED_AT + AUTHENTICATOR_SIZE :]
        if code == _ACCOUNTING_REQUEST:
            computed = md5(octets + self.__secret, usedforsecurity=False).digest()
            octets = octets[:4] + computed + octets[HEADER_SIZE:]
        return octets

    def verify_reply(self, request: bytes, datagram: bytes, *, require_message_authenticator: bool = True) -> Packet:
        """The answer to ``request``, the octets that were sent.

        Raises: ReplyRefused unless it is one that the holder of this secret made for this very request. Malformed when
        ``request`` itself is no packet.
        """
        asked = parse(request)
        try:
            reply = parse(datagram)
        except Malformed as err:
            raise ReplyRefused(Doubt.MALFORMED, str(err)) from err
        if reply.identifier != asked.identifier:
            raise ReplyRefused(Doubt.IDENTIFIER, f"identifier {reply.identifier}, expected {asked.identifier}")
        if reply.code not in _ANSWERS.get(asked.code, frozenset()):
            raise ReplyRefused(Doubt.CODE, f"code {reply.code} to a request of code {asked.code}")
        octets = reply.octets
        made_with = octets[:4] + asked.authenticator + octets[HEADER_SIZE:]
        if not _same(md5(made_with + self.__secret, usedforsecurity=False).digest(), reply.authenticator):
            raise ReplyRefused(Doubt.RESPONSE_AUTHENTICATOR, "the Response Authenticator is of another secret or request")
        at = reply.message_authenticator_at
        if at:
            after = at + AUTHENTICATOR_SIZE
            rest = octets[HEADER_SIZE:at] + _ZEROS + octets[after:]
            over = [asked.authenticator]
            if asked.code == _ACCOUNTING_REQUEST:
                over.append(_ZEROS)  # how FreeRADIUS reads RFC 2869 section 5.14
            if not any(_same(self._hmac(octets[:4] + one + rest), octets[at:after]) for one in over):
                raise ReplyRefused(Doubt.MESSAGE_AUTHENTICATOR, "the Message-Authenticator is of another secret or request")
        elif require_message_authenticator:
            raise ReplyRefused(Doubt.UNSIGNED, "no Message-Authenticator")
        returned = reply.proxy_states
        if returned != asked.proxy_states[: len(returned)]:
            raise ReplyRefused(Doubt.PROXY_STATE, "a Proxy-State that was not sent, or in another order")
        return reply
