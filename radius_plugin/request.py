"""What does an Access-Request ask? (packet -> Attempt)

Room rule: everything that interprets what a client says about a login lives here: user names and realms, where the person is,
what stands in User-Password. Pure: the packet was admitted before, and nothing is decided about the person.
"""

from __future__ import annotations

import base64
import binascii
import enum
import re
import socket
from collections.abc import Callable
from functools import lru_cache

from mfa_core.errors import MfaError
from mfa_core.model import Attempt, Door, FirstFactor, Grammar, Interaction, SplitMode
from mfa_core.secret import Secret
from mfa_core.value import hot_value
from radius_plugin.authenticators import BadCredential, SharedSecret, chap_in
from radius_plugin.settings import AttributeName, ClientSettings, EmptyPassword, Mode, Split
from radius_plugin.state import Carried, StateRefused, StateSeal, Why
from radius_plugin.wire import Packet, Type

MAX_LABEL = 128
"""Characters of what a client says about itself that go into logs."""

_STATIC_CHALLENGE = re.compile(rb"SCRV1:([A-Za-z0-9+/=]*):([A-Za-z0-9+/=]*)").fullmatch
_BETWEEN = "\0"
"""Parts the two texts of a static challenge: no password holds a NUL."""
_UTF8 = "utf-8"
_MAPPED = bytes(10) + b"\xff\xff"
"""An IPv4 address inside an IPv6 one (RFC 4291 section 2.5.5.2)."""
_ONLY_A_CODE = Grammar(SplitMode.OTP_ONLY)


# Python looks an enum's member up in 130 ns, and a login needs twenty of them.
_USER_NAME = Type.USER_NAME
_STATE = Type.STATE
_USER_PASSWORD = Type.USER_PASSWORD
_CHAP_PASSWORD = Type.CHAP_PASSWORD
_MFA_ONLY = Mode.MFA_ONLY
_OURS = FirstFactor.OURS
_ELSEWHERE = FirstFactor.ELSEWHERE
_CHALLENGES = Interaction.CHALLENGES
_ONE_SHOT = Interaction.ONE_SHOT
_RADIUS = Door.RADIUS


class Unasked(enum.StrEnum):
    """Why a request is rejected before anybody is asked: stable words for counters, logs and tests."""

    NO_CREDENTIAL = "no_credential"
    """No User-Password, CHAP-Password or State, or an empty password."""
    NO_USER_NAME = "no_user_name"
    SEVERAL_CREDENTIALS = "several_credentials"
    """PAP and CHAP at once, or one of them twice."""
    BAD_CREDENTIAL = "bad_credential"
    """User-Password or CHAP-Password of a length that it cannot have."""
    BAD_ENCODING = "bad_encoding"
    """A password that is not in the client's encoding, or holds a NUL."""
    CHAP_NOT_POSSIBLE = "chap_not_possible"
    """CHAP shows a digest: only a code alone can be verified by it."""
    EAP_NOT_SPOKEN = "eap_not_spoken"
    """EAP ends in FreeRADIUS, with the plugin."""
    UNKNOWN_CHALLENGE = "unknown_challenge"
    EXPIRED_CHALLENGE = "expired_challenge"


class RequestRefused(MfaError):
    """Reject it, and count no failure against the person. ``why`` is for the log."""

    def __init__(self, why: Unasked, user_name: bytes = b"") -> None:
        super().__init__(f"{why}")
        self.why = why
        self.user_name = user_name


@hot_value
class Login:
    """A question for the gate, and what has to be known when its verdict becomes a packet."""

    attempt: Attempt
    user_name: bytes
    carried: Carried | None = None
    """The challenge that this answers."""


def read_login(
    packet: Packet, client: ClientSettings, secret: SharedSecret, *, address: str, seal: StateSeal, now: float, event_id: str
) -> Login:
    """Return the question that this request asks. ``address`` is the client's, ``now`` Unix seconds.

    Raises: RequestRefused.
    """
    user_name = packet.first(_USER_NAME)
    if not user_name:
        raise RequestRefused(Unasked.NO_USER_NAME)
    if packet.has_eap:
        raise RequestRefused(Unasked.EAP_NOT_SPOKEN, user_name)
    carried, first_factor = None, client.first_factor
    if _STATE in packet:
        carried = _carried(packet, client, user_name, address=address, seal=seal, now=now)
        first_factor = FirstFactor.DONE if carried.first_factor_done else _ELSEWHERE
    credential = _credential(packet, client, secret, user_name, first_factor, answers=carried is not None)
    username = user_name.decode("utf-8", "surrogateescape")
    return Login(
        Attempt(
            event_id,
            _RADIUS,
            client.name,
            without_realm(username, client.realms) if client.realms else username,
            source_of(packet, client.source_attribute),
            credential.typed,
            first_factor if credential.holds_password else _beside(first_factor),
            credential.interaction,
            client.wait_s,
            client.name,
            (),
            "" if carried is None else carried.challenge,
            credential.grammar,
            0.0 if carried is None else float(carried.expires_at),
            credential.veiled,
            credential.is_final,
        ),
        user_name,
        carried,
    )


def bound_to(client: ClientSettings, address: str) -> str:
    """Whose a State is: one client at one address."""
    return f"{client.name}|{address}"


def _carried(
    packet: Packet, client: ClientSettings, user_name: bytes, *, address: str, seal: StateSeal, now: float
) -> Carried:
    try:
        return seal.open(packet.first(_STATE) or b"", client=bound_to(client, address), user_name=user_name, now=now)
    except StateRefused as err:
        why = Unasked.EXPIRED_CHALLENGE if err.why is Why.EXPIRED else Unasked.UNKNOWN_CHALLENGE
        raise RequestRefused(why, user_name) from None


@hot_value
class _Credential:
    """What was typed, and how it is to be read. ``holds_password``: a password may stand in it."""

    typed: Secret | None
    grammar: Grammar
    interaction: Interaction
    is_final: bool = False
    holds_password: bool = True
    veiled: Callable[[str], bool] | None = None


def _credential(
    packet: Packet, client: ClientSettings, secret: SharedSecret, user_name: bytes, first_factor: FirstFactor, *, answers: bool
) -> _Credential:
    """``answers``: the request answers a challenge."""
    hidden = packet.all(_USER_PASSWORD)
    has_chap = _CHAP_PASSWORD in packet
    if len(hidden) + has_chap > 1 or (has_chap and len(packet.all(_CHAP_PASSWORD)) > 1):
        raise RequestRefused(Unasked.SEVERAL_CREDENTIALS, user_name)
    try:
        if has_chap:
            return _by_chap(packet, client, user_name, first_factor, answers=answers)
        typed = secret.reveal(hidden[0], packet.authenticator) if hidden else b""
    except BadCredential:
        raise RequestRefused(Unasked.BAD_CREDENTIAL, user_name) from None
    if not typed:
        # Nothing is verified by it, so it may only ask; and a password of ours is not skipped by leaving it out.
        may_ask = client.empty_password is EmptyPassword.CHALLENGE and client.challenges and not answers
        if not may_ask or first_factor is _OURS:
            raise RequestRefused(Unasked.NO_CREDENTIAL, user_name)
        return _Credential(None, _ONLY_A_CODE, _CHALLENGES)
    if client.password_encoding != _UTF8:
        try:
            typed = typed.decode(client.password_encoding).encode()
        except UnicodeError:
            raise RequestRefused(Unasked.BAD_ENCODING, user_name) from None
    if b"\0" in typed:
        raise RequestRefused(Unasked.BAD_ENCODING, user_name)
    if answers:
        return _Credential(Secret(typed), _ONLY_A_CODE, _CHALLENGES, is_final=True)
    asks = client.challenges and client.mode in _ASKING
    interaction = _CHALLENGES if asks else _ONE_SHOT
    if typed.startswith(b"SCRV1:") and (parts := _STATIC_CHALLENGE(typed)) is not None:
        typed, grammar = _static_challenge(parts[1], parts[2], first_factor, user_name)
        return _Credential(Secret(typed), grammar, interaction, is_final=True)
    grammar = _grammar(client.mode, client.split, client.separator)
    return _Credential(Secret(typed), grammar, interaction, holds_password=client.mode is not _MFA_ONLY)


_ASKING = {Mode.AUTO, Mode.CHALLENGE}


def _beside(first_factor: FirstFactor) -> FirstFactor:
    """Where nothing but a code is typed, a backend of ours has nothing to check."""
    return _ELSEWHERE if first_factor is _OURS else first_factor


@lru_cache(maxsize=256)
def _grammar(mode: Mode, split: Split, separator: str) -> Grammar:
    match mode:
        case Mode.AUTO:
            return Grammar(SplitMode.AUTO, separator)
        case Mode.CONCAT:
            return Grammar(SplitMode.APPEND if split is Split.APPEND else SplitMode.SEPARATOR, separator)
        case Mode.CHALLENGE:
            return Grammar(SplitMode.PASSWORD)
        case Mode.MFA_ONLY:
            return _ONLY_A_CODE
        case Mode.KEYWORD:
            return Grammar(SplitMode.KEYWORD, separator)


def _static_challenge(password: bytes, code: bytes, first_factor: FirstFactor, user_name: bytes) -> tuple[bytes, Grammar]:
    """OpenVPN's static challenge: both answers in base64 (its management interface's notes, "static challenge")."""
    try:
        word, digits = base64.b64decode(password, validate=True), base64.b64decode(code, validate=True)
    except binascii.Error:
        raise RequestRefused(Unasked.BAD_CREDENTIAL, user_name) from None
    if b"\0" in word or b"\0" in digits or not digits:
        raise RequestRefused(Unasked.BAD_CREDENTIAL, user_name)
    if first_factor is _OURS:
        return word + _BETWEEN.encode() + digits, Grammar(SplitMode.SEPARATOR, _BETWEEN)
    return digits, _ONLY_A_CODE


def _by_chap(
    packet: Packet, client: ClientSettings, user_name: bytes, first_factor: FirstFactor, *, answers: bool
) -> _Credential:
    """CHAP shows a digest: a code alone can be found by it, a password cannot."""
    if not (answers or client.mode is _MFA_ONLY or (client.mode is Mode.AUTO and first_factor is not _OURS)):
        raise RequestRefused(Unasked.CHAP_NOT_POSSIBLE, user_name)
    answer = chap_in(packet)
    if answer is None:
        raise RequestRefused(Unasked.NO_CREDENTIAL, user_name)
    interaction = _CHALLENGES if answers else _ONE_SHOT
    return _Credential(
        Secret(answer.response), _ONLY_A_CODE, interaction, is_final=True, holds_password=False, veiled=answer
    )


def without_realm(user_name: str, realms: tuple[str, ...]) -> str:
    r"""The name without one of ``realms`` (lower case), as ``name@realm`` or ``REALM\name``; others stay, and are refused.

    Only ASCII is folded: a Kelvin sign becomes a plain "k" elsewhere.
    """
    if not realms:
        return user_name
    name, at, realm = user_name.rpartition("@")
    if at and realm.isascii() and realm.lower() in realms:
        return name
    realm, backslash, name = user_name.partition("\\")
    return name if backslash and realm.isascii() and realm.lower() in realms else user_name


def source_of(packet: Packet, attribute: AttributeName) -> str | None:
    """Where the person is, if the client says it as an address. The client's own address never stands in for it."""
    vendor, kind = attribute.vendor, attribute.type
    value = packet.vendor_first(vendor, kind) if vendor else packet.first(kind)
    return _address(value) if value else None


def _address(value: bytes) -> str | None:
    # The C library's functions: `ipaddress` takes longer than the rest of the packet.
    try:
        text = value.decode("ascii").partition("%")[0]
        if ":" not in text:
            return socket.inet_ntop(socket.AF_INET, socket.inet_pton(socket.AF_INET, text))
        packed = socket.inet_pton(socket.AF_INET6, text)
    except (ValueError, OSError):
        if len(value) not in (4, 16) or (value.isascii() and value.decode("ascii").isprintable()):
            return None
        packed = value
    packed = packed.removeprefix(_MAPPED)
    return socket.inet_ntop(socket.AF_INET6 if len(packed) == 16 else socket.AF_INET, packed)
