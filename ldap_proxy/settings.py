"""What the door is told: where it listens, which directory stands behind it, and how binds are read there.

Room rule: frozen values in their final form, made by :mod:`ldap_proxy.configuration`; nothing is read or decided here. Times
are seconds, sizes are octets.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

from ldap_proxy.dn import Dn
from mfa_core.model import Grammar, SplitMode
from mfa_core.secret import Secret

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Scheme(enum.StrEnum):
    """How octets travel, on either side."""

    LDAP = "ldap"
    LDAPS = "ldaps"
    LDAPI = "ldapi"


@dataclass(frozen=True, slots=True)
class Listen:
    """One address of the door. ``host`` is an address literal or ``*``; for LDAPI the path of the socket, and ``port`` is 0."""

    scheme: Scheme
    host: str
    port: int = 0

    def __str__(self) -> str:
        if self.scheme is Scheme.LDAPI:
            return f"ldapi://{self.host}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Server:
    """One directory server. ``host`` is a name or an address literal; for LDAPI the path of its socket."""

    scheme: Scheme
    host: str
    port: int = 0

    def __str__(self) -> str:
        return str(Listen(self.scheme, self.host, self.port))


class Verify(enum.StrEnum):
    """Whether the directory's certificate is looked at."""

    FULL = "full"
    NONE = "none"


class ClientCertificate(enum.StrEnum):
    """Whether clients show a certificate."""

    NONE = "none"
    REQUEST = "request"
    """One that is shown must be good."""
    REQUIRE = "require"


@dataclass(frozen=True, slots=True)
class ServerTls:
    """TLS towards clients. ``minimum_version`` is ``1.2`` or ``1.3``. ``required``: nothing but StartTLS is done in clear."""

    certificate_file: Path
    key_file: Path
    client_ca_file: Path | None = None
    client_certificate: ClientCertificate = ClientCertificate.NONE
    minimum_version: str = "1.2"
    required: bool = False


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    """The directory. Servers are tried in this order, the first healthy one; equal ones are told so by ``spread``.

    ``start_tls`` is for LDAP servers. ``pins`` are SHA-256 fingerprints of certificates (hex), any of which must fit; empty for
    no pinning. ``warm`` connections are kept open beforehand, never bound.
    """

    servers: tuple[Server, ...]
    start_tls: bool = False
    ca_file: Path | None = None
    verify: Verify = Verify.FULL
    pins: frozenset[str] = frozenset()
    minimum_version: str = "1.2"
    certificate_file: Path | None = None
    key_file: Path | None = None
    connect_timeout_s: float = 3.0
    health_interval_s: float = 5.0
    dead_time_s: float = 10.0
    spread: bool = False
    """Among healthy servers the one with the fewest connections, in place of the first."""
    warm: int = 4


class MappingKind(enum.StrEnum):
    """How a DN becomes a user name."""

    RDN = "rdn"
    """The value of the leaf's naming attribute."""
    PATTERN = "pattern"
    """A regular expression over the normalised DN, with a group ``user``."""
    ATTRIBUTE = "attribute"
    """An attribute of the entry, looked up by a service account."""


@dataclass(frozen=True, slots=True)
class MappingSettings:
    """Whose DN is whose name.

    ``attributes``: for RDN the naming attributes that count (first match), for ATTRIBUTE the one to read. ``bases``: only DNs
    under one of these are users; empty for all. ``bind_names``: names that are no DN (``user@realm``, ``DOMAIN\\user``, as
    Active Directory takes them) are user names as they stand.
    """

    kind: MappingKind = MappingKind.RDN
    attributes: tuple[str, ...] = ("uid", "cn")
    bases: tuple[Dn, ...] = ()
    pattern: re.Pattern[str] | None = None
    bind_names: bool = False


@dataclass(frozen=True, slots=True)
class LookupSettings:
    """The service account for look-ups of our own (attributes, groups). ``bind_dn`` "" is anonymous."""

    bind_dn: str = ""
    bind_password: Secret | None = None
    timeout_s: float = 3.0
    keep_s: float = 300.0
    max_entries: int = 10_000
    connections: int = 2


@dataclass(frozen=True, slots=True)
class ExemptSettings:
    """Who needs no code: decided on the identity that the directory has confirmed, and on where the bind comes from.

    ``networks`` narrow the other three when there are any of them, and exempt by themselves when there are none.
    """

    dns: frozenset[Dn] = frozenset()
    subtrees: tuple[Dn, ...] = ()
    groups: tuple[Dn, ...] = ()
    networks: tuple[Network, ...] = ()
    member_attributes: tuple[str, ...] = ("member", "uniqueMember")


class Anonymous(enum.StrEnum):
    """What somebody who is not bound may do."""

    ALLOW = "allow"
    """What the directory lets him; extended operations only where they are harmless."""
    DENY = "deny"
    """Bind, StartTLS, unbind and the root DSE's search; 48 for an anonymous bind, 50 for all else."""


class Confirm(enum.StrEnum):
    """How the identity behind a DN is known."""

    WHOAMI = "whoami"
    """The directory is asked (RFC 4532), and its answer kept for ``identity_keep_s`` by DN."""
    AS_BOUND = "as_bound"
    """The DN as it was written, normalised: for directories without WhoAmI. Aliases are not seen through."""


class RememberMode(enum.StrEnum):
    """What is accepted again."""

    OFF = "off"
    SAME_CREDENTIAL = "same_credential"
    """The very text that was accepted: password and code."""
    PASSWORD_ONLY = "password_only"  # noqa: S105  a mode, not a password
    """The password alone, and the very text."""


class RememberScope(enum.StrEnum):
    """What must be the same. The user and the application always must."""

    LISTENER = "listener"
    SOURCE = "source_ip"


@dataclass(frozen=True, slots=True)
class RememberSettings:
    """For applications that bind again and again. ``max_uses`` 0 is no limit."""

    mode: RememberMode = RememberMode.OFF
    scope: frozenset[RememberScope] = frozenset(RememberScope)
    ttl_s: float = 600.0
    max_uses: int = 0


STANDARD_EXTENDED = frozenset(
    {
        "1.3.6.1.4.1.4203.1.11.1",  # Modify Password, RFC 3062
        "1.3.6.1.4.1.4203.1.11.3",  # Who am I?, RFC 4532
        "1.3.6.1.1.8",  # Cancel, RFC 3909
        "1.3.6.1.1.21.1",  # Start Transaction, RFC 5805
        "1.3.6.1.1.21.3",  # End Transaction, RFC 5805
        "1.3.6.1.4.1.1466.101.119.1",  # Dynamic Refresh, RFC 2589
    }
)


@dataclass(frozen=True, slots=True)
class OperationsSettings:
    """What goes to the directory beside the operations of RFC 4511. All that could go round the factor is denied by default.

    ``extended``: OIDs that are relayed, for sessions that are bound. ``sasl``: mechanisms that are relayed, for identities that
    are exempt. ``compare_password``: Compare on userPassword. ``proxied_authorization``: the control of RFC 4370, from sessions
    that are exempt.
    """

    extended: frozenset[str] = STANDARD_EXTENDED
    sasl: frozenset[str] = frozenset()
    compare_password: bool = False
    proxied_authorization: bool = False


SEPARATED = Grammar(SplitMode.SEPARATOR, ",")


@dataclass(frozen=True, slots=True)
class Application:
    """One application, and how its binds are taken. ``name`` stands in policy rules, metrics and the audit log as the service.

    It is known by where it comes from (longest prefix) and, where ``listens`` are named, by the listener that it uses.
    ``refusal_text`` is the diagnosticMessage of refusals of ours.
    """

    name: str = "ldap"
    networks: tuple[Network, ...] = ()
    listens: tuple[Listen, ...] = ()
    grammar: Grammar = SEPARATED
    exempt: ExemptSettings = ExemptSettings()
    anonymous: Anonymous = Anonymous.ALLOW
    remember: RememberSettings = RememberSettings()
    operations: OperationsSettings = OperationsSettings()
    refusal_text: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one worker."""

    connections: int = 1000
    connections_per_source: int = 100
    """By address; of IPv6 by /64."""
    pdu_anonymous: int = 256 * 1024
    pdu_bound: int = 4 * 1024 * 1024
    pdu_upstream: int = 64 * 1024 * 1024
    queued: int = 64 * 1024
    """Octets that are kept while a bind is pending; then reading stops."""
    write_buffer: int = 256 * 1024
    """Octets that a peer has not taken; then the other side is not read."""
    header_s: float = 10.0
    """For a PDU that has begun to be complete, and for the PROXY header."""
    tls_handshake_s: float = 10.0
    idle_s: float = 3600.0
    bind_s: float = 65.0
    operations: int = 1024
    """Outstanding ones of one connection; then reading stops."""
    drain_s: float = 10.0
    failed_binds: int = 30
    """Of exempt identities from one source, before it waits; core counts all others."""


@dataclass(frozen=True, slots=True)
class LdapDoorSettings:
    """All of it. ``applications``: the first is the door's own settings, for connections that no other one knows."""

    listens: tuple[Listen, ...]
    upstream: UpstreamSettings
    applications: tuple[Application, ...] = (Application(),)
    mapping: MappingSettings = MappingSettings()
    lookup: LookupSettings = LookupSettings()
    tls: ServerTls | None = None
    proxy_protocol: tuple[Network, ...] = ()
    """Who may say whose connection it hands on (PROXY protocol version 2); everybody else who tries is closed."""
    confirm: Confirm = Confirm.WHOAMI
    identity_keep_s: float = 300.0
    workers: int = 1
    bind_log: Path | None = Path("-")
    limits: Limits = Limits()
