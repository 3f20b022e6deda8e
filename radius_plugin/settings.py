"""What may an administrator choose at this door?

Room rule: frozen values with defaults, units in their names, and the reason beside each number. Nothing here reads a file; the
composition root maps the configuration onto these. Reply attributes arrive encoded and size-checked.
"""

from __future__ import annotations

import enum
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from mfa_core.model import FirstFactor
from mfa_core.secret import Secret

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class RequireSignature(enum.StrEnum):
    """Whether requests of a client must carry a Message-Authenticator (RFC 3579 section 3.2, CVE-2024-3596)."""

    YES = "yes"
    NO = "no"
    AUTO = "auto"
    """Learnt upwards: from the first signed request on, YES. Only for a client that is one host; kept over restarts."""


class SignReplies(enum.StrEnum):
    """Whether replies carry a Message-Authenticator."""

    ALWAYS = "always"
    NEVER = "never"
    """For clients that drop signed replies (Check Point before it is reconfigured). Warned of at start."""


class Mode(enum.StrEnum):
    """What stands in User-Password."""

    AUTO = "auto"
    """Whatever the person typed: the code alone (no backend for passwords), password and code, or the password and then a
    challenge for the code."""
    CONCAT = "concat"
    """Password and code in one text, and nothing else."""
    CHALLENGE = "challenge"
    """The password; the code is asked for by an Access-Challenge."""
    MFA_ONLY = "mfa_only"
    """The code alone: somebody else has checked the password."""
    KEYWORD = "keyword"
    """As CONCAT, and a word (``secret,push``) in the place of the code."""


class Split(enum.StrEnum):
    """How password and code share one text."""

    APPEND = "append"
    SEPARATOR = "separator"


class Refusal(enum.StrEnum):
    """What a client hears when there is no verdict in time, or none at all."""

    REJECT = "reject"
    SILENCE = "silence"
    """Nothing: the client asks its next server."""


class EmptyPassword(enum.StrEnum):
    """What a request with an empty password, or with none, means."""

    REJECT = "reject"
    CHALLENGE = "challenge"
    """Ask for the code: clients that check the password themselves send their first request so."""


@dataclass(frozen=True, slots=True)
class AttributeName:
    """Where a value stands in a request: a type of RFC 2865, or a vendor's (number, type) inside Vendor-Specific (26)."""

    type: int
    vendor: int = 0


CALLING_STATION_ID = AttributeName(31)


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """One NAS, or a network of them.

    ``secrets`` are tried in order: the present one, then the previous one while a rotation is under way. ``source_attribute``
    is where the address of the person's device stands; a value that is no address literal counts as unknown, and the NAS's own
    address never stands in for it. ``realms`` are taken off user names for this client, beside those of ``identity.realms``.
    ``password_encoding`` is what the client sends; passwords of another encoding than UTF-8 are re-coded to it, bytes that do
    not decode are refused. ``challenges`` is False for clients that know no Access-Challenge. ``join_retries``: the same login
    again from a new port with a new authenticator is the same attempt. ``attempts`` is how many codes one dialogue of
    challenges may try. ``wait_s`` is how long an out-of-band factor may take, within the client's own time for an answer.
    ``retry_budget_s`` is how long this client may go on retransmitting: answers are kept so long at least.
    ``previous_secret_until`` is Unix seconds after which only the first secret counts, 0 for no end.
    """

    name: str
    network: Network
    secrets: tuple[Secret, ...]
    previous_secret_until: float = 0.0
    require_message_authenticator: RequireSignature = RequireSignature.YES
    reply_message_authenticator: SignReplies = SignReplies.ALWAYS
    limit_proxy_state: bool = True
    mode: Mode = Mode.AUTO
    split: Split = Split.APPEND
    separator: str = ","
    challenges: bool = True
    empty_password: EmptyPassword = EmptyPassword.REJECT
    first_factor: FirstFactor = FirstFactor.ELSEWHERE
    source_attribute: AttributeName = CALLING_STATION_ID
    realms: tuple[str, ...] = ()
    password_encoding: str = "utf-8"  # noqa: S105  the name of an encoding
    join_retries: bool = False
    attempts: int = 3
    wait_s: float = 25.0
    on_timeout: Refusal = Refusal.REJECT
    on_unavailable: Refusal = Refusal.SILENCE
    retry_budget_s: float = 30.0
    prompt: str = "Verification code: "
    requests_per_s: float = 0.0
    """Sustained Access-Requests a second that this client may send; 0 for no limit."""

    @property
    def is_one_host(self) -> bool:
        """Whether the entry names a single address."""
        return self.network.num_addresses == 1


@dataclass(frozen=True, slots=True)
class ReplyRule:
    """Attributes for an Access-Accept: given when all that is named holds. Empty sets match everybody.

    ``attributes`` are encoded (type, length, value, one after another), size-checked at load, and never change on the way.
    """

    attributes: bytes
    clients: frozenset[str] = frozenset()
    users: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    policy_rules: frozenset[str] = frozenset()
    last: bool = False
    """Whether later rules are not looked at when this one gave something."""


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """RADIUS over TLS (RFC 6614). Files are read when the listener starts and at each reload."""

    certificate_file: str
    key_file: str
    client_ca_file: str
    minimum_version: str = "1.2"
    """RFC 6614 allows 1.1; nothing that is alive needs it."""


@dataclass(frozen=True, slots=True)
class TlsClient:
    """Who may speak on a TLS listener: a certificate name that the CA vouches for, or a SHA-256 fingerprint."""

    client: ClientSettings
    subject_names: frozenset[str] = frozenset()
    fingerprints: frozenset[str] = frozenset()


class Transport(enum.StrEnum):
    """How a listener carries packets."""

    UDP = "udp"
    TLS = "tls"


class Purpose(enum.StrEnum):
    """What a UDP port is for; TLS carries both (RFC 6614 section 2.5)."""

    AUTHENTICATION = "authentication"
    ACCOUNTING = "accounting"


@dataclass(frozen=True, slots=True)
class Listen:
    """One address to listen on. ``host`` is an address literal; "::" takes IPv4 as well only when ``host`` says so by "*"."""

    host: str
    port: int
    transport: Transport = Transport.UDP
    purpose: Purpose = Purpose.AUTHENTICATION


@dataclass(frozen=True, slots=True)
class FreeRadiusSettings:
    """The local socket for FreeRADIUS's module. ``client`` is for clients of FreeRADIUS that are none of ours by name."""

    socket: Path
    users: tuple[str, ...]
    client: ClientSettings


@dataclass(frozen=True, slots=True)
class RadiusDoorSettings:
    """The whole door. A request keeps the settings that it began with."""

    listen: tuple[Listen, ...]
    clients: tuple[ClientSettings, ...]
    tls: TlsSettings | None = None
    tls_clients: tuple[TlsClient, ...] = ()
    reply_rules: tuple[ReplyRule, ...] = ()
    realms: tuple[str, ...] = ()
    max_in_flight: int = 4096
    """Requests under way at once; more are not answered, so that the client turns to its next server."""
    max_cached_replies: int = 65_536
    """Answers kept for retransmits, in two generations of 30 s: enough for 1,000 logins a second, in some 30 MB."""
    max_attributes: int = 200
    """FreeRADIUS's bound; a login has about 20."""
    max_tls_connections: int = 1024
    max_requests_per_connection: int = 256
    """Under way at once on one TLS connection: an identifier has 8 bits."""
    tls_idle_s: float = 600.0
    tls_handshake_s: float = 10.0
    receive_buffer_bytes: int = 4 * 1024 * 1024
    """The kernel's default of 212,992 holds 131 requests: a burst of 256 loses half of itself."""
    state_lifetime_s: float = 120.0
    decision_s: float = 30.0
    """How long a decision may take (a slow first-factor backend) before the client hears ``on_timeout``."""
    join_s: float = 10.0
    """How long after its answer the same login is still the same attempt, for clients with ``join_retries``."""
    freeradius: FreeRadiusSettings | None = None
