"""The section ``doors.ldap``: where it listens, which directory is behind it, and how applications' binds are taken.

Room rule: names every key of the door, and checks each by itself; whether they go together is asked in
:mod:`mfa_runtime.config.ldap_door_together`. What a DN means, what a secret file holds and whether a certificate can be used is
for the door itself (:mod:`ldap_proxy.configuration`). There is no ``primary``: the directory behind is the first factor.
"""

from __future__ import annotations

import enum
import re
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AliasChoices, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from mfa_core.model import Grammar, SplitMode
from mfa_runtime.config.ldap_address import LdapAddress, LdapScheme, Listeners, Servers
from mfa_runtime.config.listen import ANetwork
from mfa_runtime.config.notation import Flag, Place, Separator, Text, Unfit, duration, whole
from mfa_runtime.config.primary import Verify
from mfa_runtime.config.section import Section, written
from mfa_runtime.config.tls import Fingerprints, MinimumTls, TlsVersion

OWN_NAME: Final = "ldap"
"""The application whose settings are those of the door, for connections that no other one knows."""
MAX_APPLICATIONS: Final = 1000
START_TLS: Final = "1.3.6.1.4.1.1466.20037"
"""RFC 4511 section 4.14."""

_KIB, _MIB = 1024, 1024 * 1024


class LdapSplit(enum.StrEnum):
    """How password and code share the password of a bind."""

    SEPARATOR = "separator"
    APPEND = "append"
    KEYWORD = "keyword"


class AnonymousPolicy(enum.StrEnum):
    """What somebody who is not bound may do."""

    ALLOW = "allow"
    DENY = "deny"


class ConfirmBy(enum.StrEnum):
    """How the identity behind a DN is known."""

    WHOAMI = "whoami"
    AS_BOUND = "as_bound"


class UserMapping(enum.StrEnum):
    """How a DN becomes a user name."""

    RDN = "rdn"
    PATTERN = "pattern"
    ATTRIBUTE = "attribute"


class ClientCertificates(enum.StrEnum):
    """Whether clients show a certificate."""

    NONE = "none"
    REQUEST = "request"
    REQUIRE = "require"


class RememberWhat(enum.StrEnum):
    """What is accepted again."""

    OFF = "off"
    SAME_CREDENTIAL = "same_credential"
    PASSWORD_ONLY = "password_only"  # noqa: S105  a mode, not a password


class RememberFor(enum.StrEnum):
    """What must be the same, beside the user and the application."""

    LISTENER = "listener"
    SOURCE = "source_ip"


def _list(value: object) -> object:
    if value is None:
        return ()
    return value if isinstance(value, list | tuple) else (value,)


SomeNetworks = Annotated[tuple[ANetwork, ...], BeforeValidator(_list)]


def _a_dn(value: object) -> str:
    if isinstance(value, str) and 3 <= len(value) <= 8192 and "=" in value and value.isprintable():
        return value
    raise Unfit("a DN such as cn=search,dc=example,dc=org", "put it in quotes: a comma and a # mean something in YAML")


Dns = Annotated[tuple[Annotated[str, BeforeValidator(_a_dn)], ...], BeforeValidator(_list)]
"""One DN or a list of them, as they are written; the door takes them apart."""

_ATTRIBUTE = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}").fullmatch


def _attribute(value: object) -> str:
    if isinstance(value, str) and _ATTRIBUTE(value):
        return value
    raise Unfit("the name of an attribute, such as uid or sAMAccountName")


Attributes = Annotated[tuple[Annotated[str, BeforeValidator(_attribute)], ...], BeforeValidator(_list)]


class LdapExempt(Section):
    """Whose binds need no code. ``network`` narrows the other three where there are any, and else exempts by itself."""

    dn: Dns = ()
    subtree: Dns = ()
    group: Dns = ()
    network: SomeNetworks = ()
    member_attributes: Attributes = ("member", "uniqueMember")

    @model_validator(mode="after")
    def _not_everybody(self) -> LdapExempt:
        if not self.names_somebody and any(network.prefixlen == 0 for network in self.network):
            cure = "name dn, subtree or group beside it, or the networks that are meant"
            raise Unfit("an exemption of somebody", cure, seen="every address, and nobody by name")
        return self

    @property
    def names_somebody(self) -> bool:
        """Whether it is for certain entries, from wherever."""
        return bool(self.dn or self.subtree or self.group)

    @property
    def is_empty(self) -> bool:
        """Whether nobody is exempt."""
        return not self.names_somebody and not self.network


REMEMBER_PRESETS: Final[dict[str, dict[str, Any]]] = {
    # Its clients keep the password and send it for 12 hours of files; it binds again with it every 5 minutes.
    "nextcloud": {"mode": "password_only", "ttl": "12h"},
    # HTTP Basic: the browser sends the same text with every request, and mod_ldap keeps it for 10 minutes.
    "apache": {"mode": "same_credential", "ttl": "10m"},
    # Applications that bind twice for one login.
    "double_bind": {"mode": "same_credential", "ttl": "10s"},
}


class LdapRemember(Section):
    """For applications that bind again and again with what was typed once. ``ttl`` is seconds; ``max_uses`` 0 is no limit."""

    mode: RememberWhat = RememberWhat.OFF
    scope: Annotated[tuple[RememberFor, ...], BeforeValidator(_list)] = tuple(RememberFor)
    ttl: Annotated[int, duration("1s", "24h")] = written("10m")
    max_uses: Annotated[int, whole(0, 1_000_000)] = 0

    @field_validator("mode", mode="before")
    @classmethod
    def _off_is_no_boolean(cls, value: object) -> object:
        # YAML reads off without quotes as a boolean.
        return "off" if value is False else value


def _preset(value: object) -> object:
    if value is False:  # `remember: off`, as YAML reads it
        return {}
    if not isinstance(value, str):
        return value
    if value == "off":
        return {}
    if value not in REMEMBER_PRESETS:
        cure = "or keys of its own: mode, scope, ttl, max_uses"
        raise Unfit(f"off, or a preset: {', '.join(REMEMBER_PRESETS)}", cure)
    return REMEMBER_PRESETS[value]


_OID = re.compile(r"[0-2](?:\.(?:0|[1-9][0-9]{0,18})){1,30}").fullmatch


def _oid(value: object) -> str:
    if not isinstance(value, str) or not _OID(value):
        raise Unfit("an OID such as 1.3.6.1.1.8", "put it in quotes: YAML reads 1.3 as a number")
    if value == START_TLS:
        raise Unfit("an operation of the directory", "StartTLS is the door's own: give certificates under tls")
    return value


_MECHANISM = re.compile(r"[A-Z0-9_-]{1,20}").fullmatch


def _mechanism(value: object) -> str:
    if not isinstance(value, str) or not _MECHANISM(value):
        raise Unfit("the name of a SASL mechanism, such as GSSAPI or SCRAM-SHA-256")
    if value == "EXTERNAL":
        raise Unfit(
            "a mechanism in which the client says who it is",
            "take EXTERNAL out: to the directory it would be mfad that binds, by its own certificate or its own uid",
        )
    return value


def _refusal(value: object) -> str:
    if isinstance(value, str) and len(value) <= 200 and value.isprintable():
        return value
    raise Unfit("at most 200 printable characters")


class ApplicationKeys(Section):
    """What may differ from one application to another; the door has the same keys, for applications that do not say."""

    exempt: LdapExempt = Field(default_factory=LdapExempt)
    anonymous: AnonymousPolicy = AnonymousPolicy.ALLOW
    split: LdapSplit = LdapSplit.SEPARATOR
    separator: Separator = ","
    remember: Annotated[LdapRemember, BeforeValidator(_preset)] = Field(default_factory=LdapRemember)
    extended_operations: Annotated[tuple[Annotated[str, BeforeValidator(_oid)], ...], BeforeValidator(_list)] = ()
    sasl_mechanisms: Annotated[tuple[Annotated[str, BeforeValidator(_mechanism)], ...], BeforeValidator(_list)] = ()
    compare_password: Flag = False
    proxied_authorization: Flag = False
    refusal_text: Annotated[str, BeforeValidator(_refusal)] = ""

    @property
    def grammar(self) -> Grammar:
        """How the password of a bind is read."""
        return Grammar(SplitMode(self.split.value), self.separator)


def _application_name(value: object) -> str:
    if isinstance(value, str) and 1 <= len(value) <= 64 and value.isprintable() and value == value.strip():
        return value
    raise Unfit("1 to 64 printable characters", "the name stands in logs, in metrics and in policy rules (`application`)")




class LdapApplication(ApplicationKeys):
    """One application: known by where it comes from, by the listener that it uses, or by both."""

    # The defaults stand for "absent"; checking them would refuse an empty list of listeners.
    model_config = ConfigDict(validate_default=False)

    name: Annotated[str, BeforeValidator(_application_name)]
    network: SomeNetworks = ()
    listen: Listeners = ()

    @model_validator(mode="after")
    def _it_can_be_known(self) -> LdapApplication:
        if not self.network and not self.listen:
            cure = "say where the application is, or which listener it uses"
            raise Unfit("network, listen, or both", cure, seen="neither")
        return self


class LdapTls(Section):
    """TLS towards clients."""

    certificate_file: Place
    key_file: Place
    client_ca_file: Place | None = None
    client_certificate: ClientCertificates = ClientCertificates.NONE
    minimum_version: MinimumTls = TlsVersion.V1_2
    required: Flag = False

    @model_validator(mode="after")
    def _certificates_are_asked_for_or_not(self) -> LdapTls:
        if self.client_certificate is not ClientCertificates.NONE and self.client_ca_file is None:
            cure = "name a file of the CA certificates that sign the clients'"
            raise Unfit("client_ca_file beside it", cure, seen=f"client_certificate: {self.client_certificate}")
        if self.client_ca_file is not None and self.client_certificate is ClientCertificates.NONE:
            cure = "say request or require, or take client_ca_file out"
            raise Unfit("client_certificate beside it", cure, seen="client_ca_file, and no client is asked")
        return self


class UpstreamTls(Section):
    """TLS towards the directory: inside ``ldaps://``, or begun with StartTLS."""

    start_tls: Flag = False
    ca_file: Place | None = None
    verify: Verify = Verify.FULL
    pins: Fingerprints = ()
    minimum_version: MinimumTls = TlsVersion.V1_2
    certificate_file: Place | None = None
    key_file: Place | None = None

    # The default of pins stands for "absent"; checking it would refuse it as empty.
    model_config = ConfigDict(validate_default=False)

    @model_validator(mode="after")
    def _a_certificate_has_a_key(self) -> UpstreamTls:
        if (self.certificate_file is None) is not (self.key_file is None):
            cure = "a certificate of ours is shown with its key"
            raise Unfit("both or neither", cure, seen="one of certificate_file and key_file")
        return self


def _pattern(value: object) -> re.Pattern[str] | None:
    if value is None or isinstance(value, re.Pattern):
        return value
    expected = "a regular expression with a group (?P<user>...)"
    if not isinstance(value, str) or not 1 <= len(value) <= 1024:
        raise Unfit(expected)
    try:
        pattern = re.compile(value, re.IGNORECASE)
    except (re.error, OverflowError, RecursionError) as err:
        raise Unfit(expected, f"Python's re says: {err}") from None
    if "user" not in pattern.groupindex:
        raise Unfit(expected, "for instance uid=(?P<user>[a-z0-9._-]+),ou=people,dc=example,dc=org")
    return pattern


class LdapUser(Section):
    """Whose DN is whose name."""

    mapping: UserMapping = UserMapping.RDN
    attributes: Attributes = Field(default=("uid", "cn"), validation_alias=AliasChoices("attributes", "attribute"))
    base_dn: Dns = ()
    pattern: Annotated[re.Pattern[str] | None, BeforeValidator(_pattern)] = None
    bind_names: Flag = False

    @model_validator(mode="after")
    def _each_mapping_has_its_keys(self) -> LdapUser:
        if (self.pattern is not None) is not (self.mapping is UserMapping.PATTERN):
            seen = "mapping: pattern without one" if self.pattern is None else f"a pattern, and mapping: {self.mapping}"
            cure = "for instance pattern: 'uid=(?P<user>[^,+]+),ou=people,dc=example,dc=org'"
            raise Unfit("both or neither", cure, seen=seen)
        named = "attributes" in self.model_fields_set
        if self.mapping is UserMapping.PATTERN and named:
            raise Unfit("one of them", "the pattern says where the name stands", seen="both pattern and attributes")
        if self.mapping is UserMapping.ATTRIBUTE and (not named or len(self.attributes) != 1):
            cure = "name the attribute of the entry that holds the user name, such as sAMAccountName"
            raise Unfit("one attribute", cure, seen=f"{len(self.attributes)} attributes" if named else "no attribute")
        if not self.attributes:
            raise Unfit("at least one attribute", "the usual ones are uid and cn", seen="no attribute")
        return self


class LdapLookup(Section):
    """The service account for look-ups of our own. ``timeout`` and ``cache`` are seconds."""

    bind_dn: Text | None = None
    bind_password_file: Place | None = None
    timeout: Annotated[int, duration("1s", "30s")] = written("3s")
    cache: Annotated[int, duration("0", "1h")] = written("5m")
    cache_entries: Annotated[int, whole(1, 1_000_000)] = 10_000
    connections: Annotated[int, whole(1, 64)] = 2

    @field_validator("bind_dn", mode="after")
    @classmethod
    def _somebody(cls, bind_dn: str | None) -> str | None:
        if bind_dn is not None and not 1 <= len(bind_dn) <= 8192:
            raise Unfit("a DN", "leave bind_dn out for anonymous look-ups", seen="an empty bind_dn")
        return bind_dn

    @model_validator(mode="after")
    def _dn_and_password(self) -> LdapLookup:
        if (self.bind_dn is None) is not (self.bind_password_file is None):
            raise Unfit("both or neither", "bind_dn and bind_password_file belong together", seen="one of the two")
        return self


class LdapLimits(Section):
    """Bounds of the door, in each of its processes. Sizes are octets, times seconds."""

    connections: Annotated[int, whole(1, 100_000)] = 1000
    connections_per_source: Annotated[int, whole(1, 100_000)] = 100
    pdu_anonymous: Annotated[int, whole(4 * _KIB, 64 * _MIB)] = 256 * _KIB
    pdu_bound: Annotated[int, whole(4 * _KIB, 1024 * _MIB)] = 4 * _MIB
    pdu_upstream: Annotated[int, whole(64 * _KIB, 1024 * _MIB)] = 64 * _MIB
    queued: Annotated[int, whole(4 * _KIB, 64 * _MIB)] = 64 * _KIB
    write_buffer: Annotated[int, whole(16 * _KIB, 64 * _MIB)] = 256 * _KIB
    header: Annotated[int, duration("1s", "5m")] = written("10s")
    tls_handshake: Annotated[int, duration("1s", "60s")] = written("10s")
    idle: Annotated[int, duration("10s", "7d")] = written("1h")
    bind: Annotated[int, duration("5s", "10m")] = written("65s")
    operations: Annotated[int, whole(1, 100_000)] = 1024
    drain: Annotated[int, duration("0", "5m")] = written("10s")
    failed_binds: Annotated[int, whole(1, 10_000)] = 30


class LdapDoor(ApplicationKeys):
    """The LDAP door: its addresses, the directory, and the settings of applications that do not say."""

    listen: Listeners = (LdapAddress(LdapScheme.LDAP, "127.0.0.1", 389),)
    upstream: Servers
    upstream_tls: UpstreamTls = Field(default_factory=UpstreamTls)
    connect_timeout: Annotated[int, duration("1s", "60s")] = written("3s")
    health_interval: Annotated[int, duration("1s", "10m")] = written("5s")
    dead_time: Annotated[int, duration("0", "1h")] = written("10s")
    spread: Flag = False
    warm: Annotated[int, whole(0, 256)] = 4
    tls: LdapTls | None = None
    proxy_protocol: SomeNetworks = ()
    user: LdapUser = Field(default_factory=LdapUser)
    lookup: LdapLookup = Field(default_factory=LdapLookup)
    confirm: ConfirmBy = ConfirmBy.WHOAMI
    identity_cache: Annotated[int, duration("0", "1h")] = written("5m")
    applications: tuple[LdapApplication, ...] = ()
    workers: Annotated[int, whole(1, 64)] = 1
    bind_log: Place | None = written("-")
    limits: LdapLimits = Field(default_factory=LdapLimits)

    @field_validator("applications", mode="before")
    @classmethod
    def _nothing_is_an_empty_list(cls, value: object) -> object:
        return () if value is None else value

    @field_validator("applications", mode="after")
    @classmethod
    def _few(cls, applications: tuple[LdapApplication, ...]) -> tuple[LdapApplication, ...]:
        if len(applications) > MAX_APPLICATIONS:
            raise Unfit(f"at most {MAX_APPLICATIONS} applications", "put neighbours into one network")
        return applications

    @field_validator("bind_log", mode="wrap")
    @classmethod
    def _a_hyphen_is_stderr(cls, value: object, read: Any) -> Path | None:
        return Path("-") if value == "-" else read(value)

    def settings_for(self, application: LdapApplication) -> ApplicationKeys:
        """What the file says of ``application``: its own keys, and the door's where it says nothing."""
        own = application.model_fields_set
        return ApplicationKeys.model_construct(
            **{name: getattr(application if name in own else self, name) for name in ApplicationKeys.model_fields}
        )
