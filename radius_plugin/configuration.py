"""The section ``doors.radius`` in the door's own terms: secrets read, presets applied, reply attributes encoded.

Room rule: mappings, and what can be found wrong only here. Everything that is wrong is told at once, each with its line.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from mfa_core.errors import ConfigurationError
from mfa_core.model import FirstFactor
from mfa_core.policy import Action, Policy
from mfa_core.secret import Secret
from mfa_runtime.config import Config, ConfigurationProblems, Problem
from mfa_runtime.config.document import Path as Place
from mfa_runtime.config.listen import Wire
from mfa_runtime.config.problem import key_of
from mfa_runtime.config.radius_door import FREERADIUS, ClientKeys, RadiusClient, RadiusDoor, RadiusMode
from mfa_runtime.config.radius_door_together import concerned, unchecked
from mfa_runtime.secret_file import read_secret_file
from radius_plugin.attributes import MAX_REPLY_OCTETS, AttributeRefused, Dictionaries, greatest_reply_octets
from radius_plugin.presets import PRESETS
from radius_plugin.settings import (
    CALLING_STATION_ID,
    AttributeName,
    ClientSettings,
    EmptyPassword,
    FreeRadiusSettings,
    Listen,
    Mode,
    Network,
    Purpose,
    RadiusDoorSettings,
    Refusal,
    ReplyRule,
    RequireSignature,
    SignReplies,
    Split,
    TlsClient,
    TlsSettings,
    Transport,
)

SHORTEST_SECRET_OCTETS: Final = 8
"""RFC 2865 section 3 asks for a secret as hard to guess as a good password; less is soon guessed from a captured packet."""
GOOD_SECRET_OCTETS: Final = 16
"""RFC 2865 section 3: "at least 16 octets" is preferred."""
RADSEC_SECRET: Final = b"radsec"
"""RFC 6614 section 2.3: over TLS the secret is this word, and protects nothing; the certificates do."""
ANY_ADDRESS: Final[Network] = ipaddress.ip_network("::/0")
"""Of a client that only its certificate tells."""

_DOOR: Final[Place] = ("doors", "radius")
_LISTENS: Final = {
    Wire.AUTHENTICATION: (Transport.UDP, Purpose.AUTHENTICATION),
    Wire.ACCOUNTING: (Transport.UDP, Purpose.ACCOUNTING),
    Wire.TLS: (Transport.TLS, Purpose.AUTHENTICATION),
}
_KEYS: Final = {"wait_s": "wait", "retry_budget_s": "retry_budget", "requests_per_s": "requests_per_second"}
"""How a field of ClientSettings is called in the file, where the names differ."""


@dataclass(slots=True)
class _Building:
    config: Config
    door: RadiusDoor
    now: float
    dictionaries: Dictionaries | None
    problems: list[Problem] = field(default_factory=list)

    def note(self, path: Place, seen: str, expected: str, cure: str = "") -> None:
        places = self.config.places
        problem = Problem(places.name, places.line_of(path), key_of(path), seen, expected, cure)
        # A key of the door is met at each client that has none of its own.
        if problem not in self.problems:
            self.problems.append(problem)


def build_radius_settings(
    config: Config, door: RadiusDoor, *, clock: Callable[[], float] = time.time
) -> RadiusDoorSettings:
    """Read the secret files and the dictionaries, and make the settings of the door.

    ``clock`` gives Unix seconds: a previous secret whose time is over is not read any more.

    Raises:
        ConfigurationProblems: with everything that is wrong.
    """
    building = _Building(config, door, clock(), None)
    try:
        building.dictionaries = Dictionaries.load(door.dictionary_files)
    except ConfigurationError as err:
        building.note((*_DOOR, "dictionary_files"), str(err), "", err.cure)
    over_udp: list[ClientSettings] = []
    over_tls: list[TlsClient] = []
    for index, client in enumerate(door.clients):
        path: Place = (*_DOOR, "clients", index)
        settings = _client(building, client, path)
        if client.network is not None:
            over_udp.append(settings)
        if client.tls is not None:
            over_tls.append(_tls_client(client, settings))
    rules = tuple(_reply_rules(building))
    if building.problems:
        raise ConfigurationProblems(building.problems)
    limits = door.limits
    return RadiusDoorSettings(
        listen=tuple(Listen(one.host, one.port, *_LISTENS[one.wire]) for one in door.listen),
        clients=tuple(over_udp),
        tls=None if door.tls is None else TlsSettings(
            certificate_file=str(door.tls.certificate_file),
            key_file=str(door.tls.key_file),
            client_ca_file=str(door.tls.client_ca_file),
            minimum_version=door.tls.minimum_version.value,
        ),
        tls_clients=tuple(over_tls),
        reply_rules=rules,
        realms=config.identity.realms,
        max_in_flight=limits.in_flight,
        max_cached_replies=limits.cached_replies,
        max_attributes=limits.attributes,
        max_tls_connections=limits.tls_connections,
        max_requests_per_connection=limits.requests_per_connection,
        tls_idle_s=float(limits.tls_idle),
        tls_handshake_s=float(limits.tls_handshake),
        receive_buffer_bytes=limits.receive_buffer_bytes,
        state_lifetime_s=float(limits.state_lifetime),
        decision_s=float(limits.decision),
        join_s=float(limits.join),
        freeradius=_freeradius(door),
    )  # fmt: skip


def read_client(
    config: Config, door: RadiusDoor, client: RadiusClient, *, clock: Callable[[], float] = time.time
) -> ClientSettings:
    """The settings of one client over UDP alone: no other secret file is read.

    Raises:
        ConfigurationProblems: as :func:`build_radius_settings`.
    """
    building = _Building(config, door, clock(), Dictionaries.load(door.dictionary_files))
    settings = _client(building, client, (*_DOOR, "clients", door.clients.index(client)))
    if building.problems:
        raise ConfigurationProblems(building.problems)
    return settings


def _client(building: _Building, client: RadiusClient, path: Place) -> ClientSettings:
    keys = building.door.settings_for(client)
    secrets, until = _secrets(building, client, path)
    settings = replace(
        _chosen(building.door, keys, client.name),
        network=ANY_ADDRESS if client.network is None else client.network,
        secrets=secrets,
        previous_secret_until=until,
        source_attribute=_source_attribute(building, client, keys, path),
    )
    if client.preset is None:
        return settings
    chosen: dict[str, Any] = {
        name: value
        for name, value in PRESETS[client.preset.value].settings().items()
        if _KEYS.get(name, name) not in client.model_fields_set
    }
    settings = replace(settings, **chosen)
    _with_preset(building, client, settings, chosen, path)
    return settings


def _freeradius(door: RadiusDoor) -> FreeRadiusSettings | None:
    """Of its own clients, FreeRADIUS knows addresses and secrets."""
    section = door.freeradius
    if section is None:
        return None
    return FreeRadiusSettings(section.socket, section.users, _chosen(door, door, FREERADIUS))


def _chosen(door: RadiusDoor, keys: ClientKeys, name: str) -> ClientSettings:
    """A client as ``keys`` want it, without what tells it from others."""
    return ClientSettings(
        name=name,
        network=ANY_ADDRESS,
        secrets=(),
        require_message_authenticator=RequireSignature(keys.require_message_authenticator.value),
        reply_message_authenticator=SignReplies(keys.reply_message_authenticator.value),
        limit_proxy_state=keys.limit_proxy_state,
        mode=Mode(keys.mode.value),
        split=Split(keys.split.value),
        separator=keys.separator,
        challenges=keys.challenges,
        empty_password=EmptyPassword(keys.empty_password.value),
        first_factor=_first_factor(door, keys),
        realms=keys.realms,
        password_encoding=keys.password_encoding,
        join_retries=keys.join_retries,
        attempts=keys.attempts,
        wait_s=float(keys.wait),
        on_timeout=Refusal(keys.on_timeout.value),
        on_unavailable=Refusal(keys.on_unavailable.value),
        retry_budget_s=float(keys.retry_budget),
        prompt=keys.prompt,
        requests_per_s=float(keys.requests_per_second),
    )


def _with_preset(
    building: _Building, client: RadiusClient, settings: ClientSettings, chosen: dict[str, Any], path: Place
) -> None:
    """What the file alone could not show, because the preset said it."""
    preset = f"preset {client.preset}"
    if "join_retries" in chosen and settings.join_retries and building.door.workers > 1:
        building.note(
            (*path, "preset"), f"{preset}, which joins retries, and {building.door.workers} workers", "workers: 1",
            "or say join_retries: false: a retry from another port may reach a worker that knows nothing of the first",
        )  # fmt: skip
    if "challenges" in chosen and not settings.challenges and settings.mode is Mode.CHALLENGE:
        building.note(
            (*path, "preset"), f"{preset}, which knows no Access-Challenge, and mode: challenge", "another mode",
            "such a client can send the code only with the password: mode: concat",
        )  # fmt: skip


def _first_factor(door: RadiusDoor, keys: ClientKeys) -> FirstFactor:
    if door.checks_passwords and keys.mode is not RadiusMode.MFA_ONLY:
        return FirstFactor.OURS
    return FirstFactor(keys.first_factor.value)


def _source_attribute(building: _Building, client: RadiusClient, keys: ClientKeys, path: Place) -> AttributeName:
    if building.dictionaries is None:
        return CALLING_STATION_ID
    try:
        return building.dictionaries.lookup(keys.source_attribute)
    except AttributeRefused as err:
        own = "source_attribute" in client.model_fields_set
        building.note((*(path if own else _DOOR), "source_attribute"), err.seen, err.expected, err.cure)
        return CALLING_STATION_ID


def _tls_client(client: RadiusClient, settings: ClientSettings) -> TlsClient:
    """TLS vouches for every packet: signatures are asked for only where the client's own key says so (RFC 6614 section 3)."""
    assert client.tls is not None  # noqa: S101  asked by the caller
    own = "require_message_authenticator" in client.model_fields_set
    signed = own and settings.require_message_authenticator is RequireSignature.YES
    return TlsClient(
        client=replace(
            settings,
            secrets=(Secret(RADSEC_SECRET),),
            previous_secret_until=0.0,
            require_message_authenticator=RequireSignature.YES if signed else RequireSignature.NO,
            limit_proxy_state="limit_proxy_state" in client.model_fields_set and settings.limit_proxy_state,
        ),
        subject_names=frozenset(client.tls.subject),
        fingerprints=frozenset(client.tls.fingerprint),
    )


def _secrets(building: _Building, client: RadiusClient, path: Place) -> tuple[tuple[Secret, ...], float]:
    if client.secret_file is None:
        return (), 0.0
    until = 0.0
    files: list[tuple[str, Path]] = [("secret_file", client.secret_file)]
    if client.previous_secret_file is not None:
        if client.previous_secret_until is not None:
            until = client.previous_secret_until.seconds(building.config.time_zone)
        if not until or building.now < until:
            files.append(("previous_secret_file", client.previous_secret_file))
    found: list[Secret] = []
    for key, file in files:
        try:
            secret = read_secret_file(file)
        except ConfigurationError as err:
            building.note((*path, key), str(err), "", err.cure)
            continue
        if len(secret) < SHORTEST_SECRET_OCTETS and not client.allow_weak_secret:
            building.note(
                (*path, key), f"a secret of {len(secret)} octets", f"at least {SHORTEST_SECRET_OCTETS}",
                "`openssl rand -base64 24` makes a good one; a client that cannot be changed needs allow_weak_secret: true",
            )  # fmt: skip
        found.append(secret)
    return tuple(found), until


def _reply_rules(building: _Building) -> Iterator[ReplyRule]:
    dictionaries = building.dictionaries
    if dictionaries is None:
        return
    rules: list[ReplyRule] = []
    fold = str.lower if building.config.identity.fold_case else str
    for index, rule in enumerate(building.door.reply):
        path: Place = (*_DOOR, "reply", index)
        encoded = bytearray()
        for name, values in rule.attributes.items():
            try:
                encoded += dictionaries.encode(name, values)
            except AttributeRefused as err:
                building.note((*path, "attributes", name), err.seen, err.expected, err.cure)
        if len(encoded) > MAX_REPLY_OCTETS:
            building.note(
                (*path, "attributes"), f"{len(encoded)} octets of attributes", f"at most {MAX_REPLY_OCTETS} in one reply",
                "a packet has 4096, of which the rest is kept for the signature, a text and the proxies on the way",
            )  # fmt: skip
        rules.append(
            ReplyRule(
                attributes=bytes(encoded),
                clients=frozenset(rule.when.client),
                users=frozenset(map(fold, rule.when.user)),
                groups=frozenset(rule.when.group),
                policy_rules=frozenset(rule.when.rule),
                last=rule.last,
            )
        )
    greatest = greatest_reply_octets(rules)
    if greatest > MAX_REPLY_OCTETS and all(len(rule.attributes) <= MAX_REPLY_OCTETS for rule in rules):
        building.note(
            (*_DOOR, "reply"), f"rules that give one login up to {greatest} octets of attributes together",
            f"at most {MAX_REPLY_OCTETS} in one reply", "let a rule be the `last` one, or give fewer attributes",
        )  # fmt: skip
    yield from rules


def warnings(settings: RadiusDoorSettings) -> list[str]:
    """What is allowed here and yet weak, a line each, the cure behind its last semicolon: said at start, and by the doctor."""
    return [told for client in settings.clients for told in _weaknesses(client)]


def _weaknesses(client: ClientSettings) -> Iterable[str]:
    who = f"RADIUS client {client.name!a} ({client.network})"
    match client.require_message_authenticator:
        case RequireSignature.NO:
            yield (
                f"{who}: requests need no Message-Authenticator (require_message_authenticator: no): whoever stands between "
                "can forge an Access-Accept (CVE-2024-3596); update the client, or put the traffic into TLS"
            )
            if not client.limit_proxy_state:
                yield (
                    f"{who}: unsigned requests may carry Proxy-State (limit_proxy_state: false), which is what the known "
                    "attack (CVE-2024-3596) needs; say true"
                )
        case RequireSignature.AUTO:
            yield (
                f"{who}: until its first signed request, requests need no Message-Authenticator "
                "(require_message_authenticator: auto); say yes once it signs"
            )
        case RequireSignature.YES:
            pass
    if client.reply_message_authenticator is SignReplies.NEVER:
        yield (
            f"{who}: replies carry no Message-Authenticator (reply_message_authenticator: never), so that the client cannot "
            "tell a forged one; reconfigure the client and say always"
        )
    for which, secret in zip(("its", "its previous"), client.secrets, strict=False):
        if len(secret) < GOOD_SECRET_OCTETS:
            yield (
                f"{who}: {which} secret has {len(secret)} octets, fewer than {GOOD_SECRET_OCTETS}: one captured packet is "
                "enough to guess it offline; `openssl rand -base64 24` makes a good one"
            )
    if len(client.secrets) > 1 and not client.previous_secret_until:
        yield f"{who}: its previous secret has no end; give previous_secret_until, or take previous_secret_file out"
    if len(client.secrets) == 1 and client.previous_secret_until:
        yield (
            f"{who}: its previous secret is past its end and not taken any more; "
            "take previous_secret_file and previous_secret_until out, or correct the date"
        )


def policy_warnings(door: RadiusDoor, policy: Policy) -> list[str]:
    """Exemptions that let nobody in at this door, because nobody has checked a password there."""
    nobody_checked = set(unchecked(door))
    found: list[str] = []
    for rule in policy.rules:
        clients = sorted(nobody_checked.intersection(concerned(door, rule)))
        if rule.action is Action.EXEMPT and clients:
            more = f" and {len(clients) - 5} more" if len(clients) > 5 else ""
            shown = ", ".join(map(ascii, clients[:5])) + more
            found.append(
                f"policy rule {rule.id!r} exempts from the second factor, but nobody checks the password of RADIUS client "
                f"{shown}: such logins are refused; set doors.radius.primary and a mode other than mfa_only, or first_factor: "
                "done there"
            )
    return found
