"""The section ``doors.radius``: where it listens, who may ask, and what they are answered.

Room rule: names every key of the door, and checks each by itself; whether they go together is asked in
:mod:`mfa_runtime.config.radius_door_together`. What a preset sets, what a secret file holds and whether a dictionary knows an
attribute is for the door itself (:mod:`radius_plugin.configuration`).
"""

from __future__ import annotations

import codecs
import enum
import os
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from mfa_core.errors import InvalidInput
from mfa_core.identity import IdentityRules
from mfa_runtime.config.listen import ANetwork, ListenAt, ListensAt
from mfa_runtime.config.notation import (
    Flag,
    Names,
    Place,
    PromptText,
    Separator,
    SomeNames,
    Unfit,
    duration,
    whole,
)
from mfa_runtime.config.primary import NoneSection, Primary, PrimaryType
from mfa_runtime.config.section import Section, written
from mfa_runtime.config.tls import Fingerprints, MinimumTls, TlsVersion

MAX_CLIENTS: Final = 10_000
MAX_REPLY_RULES: Final = 1000


class NasFamily(enum.StrEnum):
    """Kinds of clients whose needs are known: see :mod:`radius_plugin.presets`."""

    FORTIGATE = "fortigate"
    CHECKPOINT = "checkpoint"
    PALOALTO = "paloalto"
    CISCO_ASA = "cisco_asa"
    OPENVPN = "openvpn"
    JUNIPER = "juniper"
    MIKROTIK = "mikrotik"
    STRONGSWAN = "strongswan"


class RequireSignature(enum.StrEnum):
    """Whether requests must carry a Message-Authenticator."""

    YES = "yes"
    NO = "no"
    AUTO = "auto"
    """From the first signed request on."""


class SignReplies(enum.StrEnum):
    """Whether replies carry a Message-Authenticator."""

    ALWAYS = "always"
    NEVER = "never"


class RadiusMode(enum.StrEnum):
    """What stands in User-Password."""

    AUTO = "auto"
    CONCAT = "concat"
    CHALLENGE = "challenge"
    MFA_ONLY = "mfa_only"
    KEYWORD = "keyword"


class RadiusSplit(enum.StrEnum):
    """How password and code share one text."""

    APPEND = "append"
    SEPARATOR = "separator"


class Refusal(enum.StrEnum):
    """What a client hears when there is no verdict."""

    REJECT = "reject"
    SILENCE = "silence"


class EmptyPassword(enum.StrEnum):
    """What a request without a password means."""

    REJECT = "reject"
    CHALLENGE = "challenge"


class PasswordChecked(enum.StrEnum):
    """Who has checked the password, where it is not ours to check."""

    ELSEWHERE = "elsewhere"
    """Not known."""
    DONE = "done"
    """The client has, and asks us only after that."""


def _yes_no_auto(value: object) -> object:
    # YAML reads yes and no without quotes as booleans.
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value


_ENCODING = re.compile(
    r"utf-8|ascii|iso8859-[0-9]{1,2}|cp[0-9]{3,5}|koi8-[rtu]|shift_jis|euc_(?:jp|kr)|gb18030|gbk|big5"
).fullmatch


def _encoding(value: object) -> str:
    expected = "the name of a text encoding, such as utf-8, latin-1 or cp1252"
    if not isinstance(value, str) or not value.isascii() or not value.isprintable():
        raise Unfit(expected)
    try:
        name = codecs.lookup(value).name
    except LookupError:
        raise Unfit(expected) from None
    if not _ENCODING(name):
        raise Unfit(expected)
    return name


_ATTRIBUTE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}").fullmatch


def _attribute_name(value: object) -> str:
    if isinstance(value, str) and _ATTRIBUTE_NAME(value):
        return value
    raise Unfit("the name of an attribute, such as Calling-Station-Id")


def _realms(realms: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return IdentityRules(realms=realms).realms
    except InvalidInput as err:
        raise Unfit("realms such as example.org or CORP", err.cure, seen=str(err)) from None


class ClientKeys(Section):
    """What may differ from one client to another; the door has the same keys, for clients that do not say.

    ``wait`` and ``retry_budget`` are seconds, ``requests_per_second`` is 0 for no limit.
    """

    require_message_authenticator: Annotated[RequireSignature, BeforeValidator(_yes_no_auto)] = RequireSignature.YES
    reply_message_authenticator: SignReplies = SignReplies.ALWAYS
    limit_proxy_state: Flag = True
    mode: RadiusMode = RadiusMode.AUTO
    split: RadiusSplit = RadiusSplit.APPEND
    separator: Separator = ","
    challenges: Flag = True
    empty_password: EmptyPassword = EmptyPassword.REJECT
    first_factor: PasswordChecked = PasswordChecked.ELSEWHERE
    source_attribute: Annotated[str, BeforeValidator(_attribute_name)] = "Calling-Station-Id"
    realms: Names = ()
    password_encoding: Annotated[str, BeforeValidator(_encoding)] = "utf-8"  # noqa: S105  no password
    join_retries: Flag = False
    attempts: Annotated[int, whole(1, 10)] = 3
    wait: Annotated[int, duration("1s", "10m")] = written("25s")
    on_timeout: Refusal = Refusal.REJECT
    on_unavailable: Refusal = Refusal.SILENCE
    retry_budget: Annotated[int, duration("5s", "10m")] = written("30s")
    prompt: PromptText = "Verification code: "
    requests_per_second: Annotated[int, whole(0, 1_000_000)] = 0

    @field_validator("realms", mode="after")
    @classmethod
    def _realms_can_match(cls, realms: tuple[str, ...]) -> tuple[str, ...]:
        return _realms(realms)


@dataclass(frozen=True, slots=True)
class Until:
    """A moment at which something ends. Without an offset it is meant in the time zone of the configuration."""

    moment: datetime

    def seconds(self, zone: tzinfo) -> float:
        """As Unix seconds."""
        moment = self.moment if self.moment.tzinfo is not None else self.moment.replace(tzinfo=zone)
        return moment.timestamp()


_EARLIEST, _LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2999, 12, 31, tzinfo=UTC)


def _until(value: object) -> Until | None:
    if value is None or isinstance(value, Until):
        return value
    expected = 'a date or a time, such as "2027-03-31" or "2027-03-31T18:00+02:00"'
    try:
        if not isinstance(value, str):
            raise TypeError
        if len(value) == 10:
            # The day itself is inside: it ends at its midnight.
            end = datetime.combine(date.fromisoformat(value), datetime.min.time()) + timedelta(days=1)
        else:
            end = datetime.fromisoformat(value)
        sensible = _EARLIEST <= (end if end.tzinfo is not None else end.replace(tzinfo=UTC)) <= _LATEST
    except (TypeError, ValueError, OverflowError):
        cure = "the year stands first" if isinstance(value, str) else "put it in quotes"
        raise Unfit(expected, cure) from None
    if not sensible:
        raise Unfit(expected, "a year from 2000 to 2999")
    return Until(end)


class TlsIdentity(Section):
    """Who a client is on a TLS listener: a name in its certificate, or the certificate itself (hex of its SHA-256)."""

    subject: SomeNames = ()
    fingerprint: Fingerprints = ()

    # The defaults stand for "absent"; checking them would refuse them as empty.
    model_config = ConfigDict(validate_default=False)

    @field_validator("subject", mode="after")
    @classmethod
    def _names_can_stand_in_a_certificate(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not 1 <= len(name) <= 253 or not name.isprintable() or "*" in name or name != name.strip():
                raise Unfit("names as they stand in certificates, such as vpn.example.org", "patterns are not known here")
        return names

    @model_validator(mode="after")
    def _somebody(self) -> TlsIdentity:
        if not self.subject and not self.fingerprint:
            raise Unfit("subject or fingerprint", "say which certificate is this client's", seen="neither")
        return self


def _client_name(value: object) -> str:
    if isinstance(value, str) and 1 <= len(value) <= 64 and value.isprintable() and value == value.strip():
        return value
    raise Unfit("1 to 64 printable characters", "the name stands in logs, in metrics and in policy rules (`nas`)")


class RadiusClient(ClientKeys):
    """One client, or a network of them: over UDP by ``network`` and secret, over TLS by ``tls``, or both."""

    name: Annotated[str, BeforeValidator(_client_name)]
    network: ANetwork | None = None
    secret_file: Place | None = None
    previous_secret_file: Place | None = None
    previous_secret_until: Annotated[Until | None, BeforeValidator(_until)] = None
    allow_weak_secret: Flag = False
    preset: NasFamily | None = None
    tls: TlsIdentity | None = None

    @model_validator(mode="after")
    def _it_can_be_known(self) -> RadiusClient:
        if self.network is None and self.tls is None:
            cure = "say where the client is, or which certificate it has"
            raise Unfit("network and secret_file, or tls", cure, seen="neither")
        if (self.network is None) is not (self.secret_file is None):
            seen = "a network without secret_file" if self.secret_file is None else "a secret_file without network"
            raise Unfit("both or neither", "a client over UDP has a network and a secret_file", seen=seen)
        if self.previous_secret_file is not None and self.secret_file is None:
            raise Unfit("secret_file beside it", "TLS has no secrets to rotate", seen="previous_secret_file alone")
        if self.previous_secret_until is not None and self.previous_secret_file is None:
            cure = "name the file, or take the end out"
            raise Unfit("previous_secret_file beside it", cure, seen="previous_secret_until alone")
        return self


class Tls(Section):
    """Certificates of the TLS listeners."""

    certificate_file: Place
    key_file: Place
    client_ca_file: Place
    minimum_version: MinimumTls = TlsVersion.V1_2


AttributeValue = str | int | bytes
"""Text, a number (or the name of one, as text), or octets as they are."""

_OCTETS = re.compile(r"0x((?:[0-9A-Fa-f]{2})+)").fullmatch


def _one_value(value: object) -> AttributeValue:
    if isinstance(value, str) or type(value) is int:
        return value
    if isinstance(value, dict) and set(value) == {"octets"}:
        text = value["octets"]
        parts = _OCTETS(text) if isinstance(text, str) else None
        if parts is None:
            cure = "write pairs of hexadecimal digits behind 0x, in quotes"
            raise Unfit('{octets: "0x0102"}', cure, seen="octets that are none")
        return bytes.fromhex(parts[1])
    if value is None:
        raise Unfit("a value", "take the attribute out if it is not to be sent")
    if isinstance(value, bool | float):
        raise Unfit("text or a whole number", "put it in quotes: YAML reads yes, no, on, off and 1.0 as something else")
    raise Unfit('text, a whole number, {octets: "0x0102"}, or a list of these')


def _values(value: object) -> tuple[AttributeValue, ...]:
    if value in ([], ()):
        raise Unfit("at least one value", "take the attribute out if it is not to be sent")
    return tuple(map(_one_value, value)) if isinstance(value, list | tuple) else (_one_value(value),)


def _some_attributes(value: object) -> object:
    if isinstance(value, dict) and value:
        return value
    raise Unfit("attributes with their values, such as {Filter-Id: vpn}")


Attributes = Annotated[
    dict[str, Annotated[tuple[AttributeValue, ...], BeforeValidator(_values)]], BeforeValidator(_some_attributes)
]


class ReplyWhen(Section):
    """For whom a reply rule is; all that is named must hold. Users are canonical names, without patterns."""

    # The defaults stand for "absent"; checking them would refuse them as empty.
    model_config = ConfigDict(validate_default=False)

    client: SomeNames = ()
    user: SomeNames = ()
    group: SomeNames = ()
    rule: SomeNames = ()

    @model_validator(mode="before")
    @classmethod
    def _nothing_is_not_everything(cls, data: Any) -> Any:
        if data is None:
            raise Unfit("conditions", "write `when: {}`, or leave it out, for everybody")
        return data

    @field_validator("user", mode="after")
    @classmethod
    def _users_can_match(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not _USER(name):
                raise Unfit(
                    "canonical names such as alice", "users are matched after their realm is taken off", seen=f"{name[:64]!a}"
                )
        return names


_USER = re.compile(r"[!-?A-\[\]-~]{1,256}").fullmatch


class ReplyRule(Section):
    """Attributes of an Access-Accept, and for whom. ``attributes``: name (with tag) to its values."""

    attributes: Attributes
    when: ReplyWhen = Field(default_factory=ReplyWhen)
    last: Flag = False


class RadiusLimits(Section):
    """Bounds of the door. Times are seconds."""

    in_flight: Annotated[int, whole(1, 1_000_000)] = 4096
    cached_replies: Annotated[int, whole(1024, 10_000_000)] = 65_536
    attributes: Annotated[int, whole(20, 2000)] = 200
    tls_connections: Annotated[int, whole(1, 100_000)] = 1024
    requests_per_connection: Annotated[int, whole(1, 256)] = 256
    tls_idle: Annotated[int, duration("10s", "1d")] = written("600s")
    tls_handshake: Annotated[int, duration("1s", "60s")] = written("10s")
    receive_buffer_bytes: Annotated[int, whole(65_536, 1 << 30)] = 4 * 1024 * 1024
    state_lifetime: Annotated[int, duration("10s", "10m")] = written("120s")
    decision: Annotated[int, duration("1s", "10m")] = written("30s")
    join: Annotated[int, duration("0", "60s")] = written("10s")


def _list(value: object) -> object:
    return (value,) if isinstance(value, str) else value


FREERADIUS: Final = "freeradius"
"""The name of clients of FreeRADIUS that are no clients here by name."""
_MAX_SOCKET_PATH_BYTES = 107
_ROOM_FOR_A_DRAFT = len(".") + len(".4194304")
"""The socket is made under another name, with the process id in it."""


class FreeRadius(Section):
    """The local socket for mfad's module inside FreeRADIUS. ``users`` are those that FreeRADIUS runs as, beside root."""

    socket: Place
    users: Names = ("freerad",)

    @field_validator("socket", mode="after")
    @classmethod
    def _the_kernel_takes_the_path(cls, socket: Path) -> Path:
        if len(os.fsencode(socket)) + _ROOM_FOR_A_DRAFT > _MAX_SOCKET_PATH_BYTES:
            raise Unfit("a path short enough for a socket", "use at most 98 bytes, the folder of this file included")
        return socket


class RadiusDoor(ClientKeys):
    """The RADIUS door: its addresses and clients, and the settings of clients that do not say."""

    freeradius: FreeRadius | None = None
    listen: Annotated[tuple[ListensAt, ...], BeforeValidator(_list)] = (ListenAt("*", 1812),)
    clients: tuple[RadiusClient, ...]
    primary: Primary = Field(default_factory=NoneSection)
    workers: Annotated[int, whole(1, 64)] = 1
    tls: Tls | None = None
    reply: tuple[ReplyRule, ...] = ()
    dictionary_files: tuple[Place, ...] = ()
    authentication_log: Place | None = None
    limits: RadiusLimits = Field(default_factory=RadiusLimits)

    @field_validator("listen", mode="after")
    @classmethod
    def _somewhere(cls, listen: tuple[ListenAt, ...], info: ValidationInfo) -> tuple[ListenAt, ...]:
        if not listen and info.data.get("freeradius") is None:
            raise Unfit("at least one address", "the usual one is *:1812")
        return listen

    @field_validator("clients", "reply", "dictionary_files", mode="before")
    @classmethod
    def _nothing_is_an_empty_list(cls, value: object) -> object:
        return () if value is None else value

    @field_validator("clients", mode="after")
    @classmethod
    def _somebody_may_ask(cls, clients: tuple[RadiusClient, ...], info: ValidationInfo) -> tuple[RadiusClient, ...]:
        if not clients and info.data.get("freeradius") is None:
            raise Unfit("at least one client", "a door without clients answers nobody: name the addresses that may ask")
        if len(clients) > MAX_CLIENTS:
            raise Unfit(f"at most {MAX_CLIENTS} clients", "put neighbours into one network")
        return clients

    @field_validator("reply", mode="after")
    @classmethod
    def _few_rules(cls, rules: tuple[ReplyRule, ...]) -> tuple[ReplyRule, ...]:
        if len(rules) > MAX_REPLY_RULES:
            raise Unfit(f"at most {MAX_REPLY_RULES} rules", "give groups their attributes, not people")
        return rules

    @field_validator("authentication_log", mode="wrap")
    @classmethod
    def _a_hyphen_is_stderr(cls, value: object, read: Any) -> Path | None:
        return Path("-") if value == "-" else read(value)

    def settings_for(self, client: RadiusClient) -> ClientKeys:
        """What the file says of ``client``: its own keys, and the door's where it says nothing."""
        return ClientKeys.model_construct(
            **{name: getattr(client if name in client.model_fields_set else self, name) for name in ClientKeys.model_fields}
        )

    @property
    def checks_passwords(self) -> bool:
        """Whether the first factor is ours."""
        return self.primary.type is not PrimaryType.NONE
