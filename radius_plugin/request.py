"""What does an Access-Request ask? (packet -> Attempt)

Room rule: everything that interprets what a client says about a login lives here: user names and realms, where the person is,
what stands in User-Password. Pure: the packet was admitted before, and nothing is decided about the person.
"""

from __future__ import annotations

import base64
import binascii
import enum
import ipaddress
import re
from dataclasses import dataclass, replace
from functools import lru_cache

from mfa_core.errors import MfaError
from mfa_core.model import Attempt, Door, FirstFactor, Grammar, Interaction, SplitMode
from mfa_core.secret import Secret
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
_ONLY_A_CODE = Grammar(SplitMode.OTP_ONLY)


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


@dataclass(frozen=True, slots=True)
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
    user_name = packet.first(Type.USER_NAME)
    if not user_name:
        raise RequestRefused(Unasked.NO_USER_NAME)
    if packet.has_eap:
        raise RequestRefused(Unasked.EAP_NOT_SPOKEN, user_name)
    login = Login(
        Attempt(
            event_id,
            Door.RADIUS,
            client.name,
            without_realm(user_name.decode("utf-8", "surrogateescape"), client.realms),
            source_of(packet, client.source_attribute),
            first_factor=client.first_factor,
            wait_s=client.wait_s,
            client=client.name,
        ),
        user_name,
    )
    state = packet.first(Type.STATE)
    if state is not None:
        login = _answering(login, state, client, address=address, seal=seal, now=now)
    try:
        return _with_credential(login, packet, client, secret)
    except BadCredential:
        raise RequestRefused(Unasked.BAD_CREDENTIAL, user_name) from None


def bound_to(client: ClientSettings, address: str) -> str:
    """Whose a State is: one client at one address."""
    return f"{client.name}|{address}"


def _answering(
    login: Login, state: bytes, client: ClientSettings, *, address: str, seal: StateSeal, now: float
) -> Login:
    try:
        carried = seal.open(state, client=bound_to(client, address), user_name=login.user_name, now=now)
    except StateRefused as err:
        why = Unasked.EXPIRED_CHALLENGE if err.why is Why.EXPIRED else Unasked.UNKNOWN_CHALLENGE
        raise RequestRefused(why, login.user_name) from None
    attempt = replace(
        login.attempt,
        first_factor=FirstFactor.DONE if carried.first_factor_done else FirstFactor.ELSEWHERE,
        interaction=Interaction.CHALLENGES,
        challenge_id=carried.challenge,
        challenge_until=float(carried.expires_at),
    )
    return replace(login, attempt=attempt, carried=carried)


def _with_credential(login: Login, packet: Packet, client: ClientSettings, secret: SharedSecret) -> Login:
    hidden = packet.all(Type.USER_PASSWORD)
    chap = packet.all(Type.CHAP_PASSWORD)
    if len(hidden) + len(chap) > 1:
        raise RequestRefused(Unasked.SEVERAL_CREDENTIALS, login.user_name)
    if chap:
        return _by_chap(login, packet, client)
    typed = secret.reveal(hidden[0], packet.authenticator) if hidden else b""
    return with_password(login, typed, client)


def with_password(login: Login, typed: bytes, client: ClientSettings) -> Login:
    """The login with what was typed, in whatever way it came. Raises: RequestRefused."""
    user_name, attempt = login.user_name, login.attempt
    if not typed:
        # Nothing is verified by it, so it may only ask; and a password of ours is not skipped by leaving it out.
        may_ask = client.empty_password is EmptyPassword.CHALLENGE and client.challenges and login.carried is None
        if not may_ask or attempt.first_factor is FirstFactor.OURS:
            raise RequestRefused(Unasked.NO_CREDENTIAL, user_name)
        return replace(login, attempt=replace(attempt, interaction=Interaction.CHALLENGES, grammar=_ONLY_A_CODE))
    if client.password_encoding != _UTF8:
        try:
            typed = typed.decode(client.password_encoding).encode()
        except UnicodeError:
            raise RequestRefused(Unasked.BAD_ENCODING, user_name) from None
    if b"\0" in typed:
        raise RequestRefused(Unasked.BAD_ENCODING, user_name)
    if login.carried is not None:
        grammar, final = _ONLY_A_CODE, True
    elif typed.startswith(b"SCRV1:") and (parts := _STATIC_CHALLENGE(typed)) is not None:
        typed, grammar = _static_challenge(parts[1], parts[2], attempt.first_factor, user_name)
        final = True
    else:
        grammar, final = _grammar(client.mode, client.split, client.separator), False
    asks = client.challenges and client.mode in _ASKING
    # Spelt out: `replace` costs a login five microseconds.
    return Login(
        Attempt(
            attempt.event_id,
            attempt.door,
            attempt.service,
            attempt.username,
            attempt.source,
            Secret(typed),
            attempt.first_factor if client.mode is not Mode.MFA_ONLY else _beside(attempt.first_factor),
            Interaction.CHALLENGES if asks or login.carried is not None else Interaction.ONE_SHOT,
            attempt.wait_s,
            attempt.client,
            attempt.methods,
            attempt.challenge_id,
            grammar,
            attempt.challenge_until,
            grammar_is_final=final,
        ),
        user_name,
        login.carried,
    )


_ASKING = {Mode.AUTO, Mode.CHALLENGE}


def _beside(first_factor: FirstFactor) -> FirstFactor:
    """Where nothing but a code is typed, a backend of ours has nothing to check."""
    return FirstFactor.ELSEWHERE if first_factor is FirstFactor.OURS else first_factor


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
    if first_factor is FirstFactor.OURS:
        return word + _BETWEEN.encode() + digits, Grammar(SplitMode.SEPARATOR, _BETWEEN)
    return digits, _ONLY_A_CODE


def _by_chap(login: Login, packet: Packet, client: ClientSettings) -> Login:
    attempt = login.attempt
    alone = client.mode is Mode.MFA_ONLY or login.carried is not None or attempt.first_factor is not FirstFactor.OURS
    if not alone or client.mode in {Mode.CONCAT, Mode.KEYWORD}:
        raise RequestRefused(Unasked.CHAP_NOT_POSSIBLE, login.user_name)
    answer = chap_in(packet)
    if answer is None:
        raise RequestRefused(Unasked.NO_CREDENTIAL, login.user_name)
    return replace(
        login,
        attempt=replace(
            attempt,
            typed=Secret(answer.answer),
            first_factor=_beside(attempt.first_factor),
            grammar=_ONLY_A_CODE,
            grammar_is_final=True,
            veiled=answer.fits,
        ),
    )


def without_realm(user_name: str, realms: tuple[str, ...]) -> str:
    r"""The name without one of ``realms`` (lower case), as ``name@realm`` or ``REALM\name``; others stay, and are refused."""
    if not realms:
        return user_name
    name, at, realm = user_name.rpartition("@")
    if at and realm.lower() in realms:
        return name
    realm, backslash, name = user_name.partition("\\")
    return name if backslash and realm.lower() in realms else user_name


def source_of(packet: Packet, attribute: AttributeName) -> str | None:
    """Where the person is, if the client says it as an address. The client's own address never stands in for it."""
    vendor, kind = attribute.vendor, attribute.type
    value = packet.vendor_first(vendor, kind) if vendor else packet.first(kind)
    return _address(value) if value else None


@lru_cache(maxsize=4096)  # reading an address takes longer than the rest of the packet
def _address(value: bytes) -> str | None:
    try:
        address = ipaddress.ip_address(value.decode("ascii").partition("%")[0])
    except ValueError:
        if len(value) not in (4, 16) or (value.isascii() and value.decode("ascii").isprintable()):
            return None
        address = ipaddress.ip_address(value)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)
