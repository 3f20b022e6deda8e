"""The words of the protocol: paths, what protects a host's key, and why a request is refused.

Room rule: names and numbers that both sides must agree on, and nothing that acts.
"""

from __future__ import annotations

import enum

HEALTH = "/v1/health"
JOIN = "/v1/join"
RENEW = "/v1/renew"
SYNC = "/v1/sync"
VERIFY = "/v1/verify"
JOURNAL = "/v1/journal"

JSON_TYPE = "application/json"

MAX_WAIT_S = 50.0
"""A sync is held open no longer than this."""
MAX_ATTEMPTS = 64
"""In one verify request."""
MAX_BODIES = 500
"""In one journal request."""
MAX_PAGE_USERS = 500
PAGE_MATERIAL_OCTETS = 1 << 20
"""A page of a sync takes up no further user once its material, before it is packed, has reached this."""
MAX_CREDENTIALS = 32
"""Of one user, on the wire."""


class KeyProtection(enum.StrEnum):
    """What keeps a host's key: the later, the stronger."""

    FILE = "file"
    """A file that only root reads: a copy of the disk is a copy of the key."""
    SYSTEMD_CREDS = "systemd-creds"
    """Sealed by systemd-creds: with the host's TPM where there is one, else with a key of that host."""

    def is_enough(self, wanted: str) -> bool:
        """Whether a host group that asks for ``wanted`` (``any`` or one of these) is content."""
        order = list(KeyProtection)
        return wanted == "any" or (wanted in order and order.index(self) >= order.index(KeyProtection(wanted)))


def protection_of(key_source: str) -> KeyProtection:
    """What keeps a key that comes from a path, or from ``systemd-creds:NAME``."""
    return KeyProtection.SYSTEMD_CREDS if key_source.startswith("systemd-creds:") else KeyProtection.FILE


class Refusal(enum.StrEnum):
    """The ``error`` of a refused request: what the agent does next depends on it, and on nothing else in the answer."""

    BAD_REQUEST = "bad_request"
    """The message is none of this protocol."""
    TOO_LARGE = "too_large"
    NOT_FOUND = "not_found"
    """There is no such path, or no such method at it."""
    NO_CERTIFICATE = "no_certificate"
    """Only join and health are answered without one."""
    UNKNOWN_HOST = "unknown_host"
    """The certificate is of no host that is known here."""
    REVOKED = "revoked"
    """The host may never again ask: it wipes what it holds."""
    QUARANTINED = "quarantined"
    """The host may not ask until an administrator has released it."""
    BAD_TOKEN = "bad_token"  # noqa: S105  a code, not a token
    """The join token is unknown, used, over, or meant for another host. Which of them is not said."""
    NAME_TAKEN = "name_taken"
    """Another host has joined under this name."""
    NO_ROOM = "no_room"
    """As many hosts have joined as the authority takes."""
    JOURNAL_FORK = "journal_fork"
    """The journal does not continue what is here: ``journal`` says what is."""
    OVERLOADED = "overloaded"
    UNAVAILABLE = "unavailable"
    """The authority cannot use its store."""
    INTERNAL = "internal"


STATUS = {
    Refusal.BAD_REQUEST: 400,
    Refusal.TOO_LARGE: 413,
    Refusal.NOT_FOUND: 404,
    Refusal.NO_CERTIFICATE: 401,
    Refusal.UNKNOWN_HOST: 403,
    Refusal.REVOKED: 403,
    Refusal.QUARANTINED: 403,
    Refusal.BAD_TOKEN: 403,
    Refusal.NAME_TAKEN: 409,
    Refusal.NO_ROOM: 409,
    Refusal.JOURNAL_FORK: 409,
    Refusal.OVERLOADED: 503,
    Refusal.UNAVAILABLE: 503,
    Refusal.INTERNAL: 500,
}
"""The HTTP status that goes with each."""

IS_LIKE_SILENCE = frozenset({Refusal.OVERLOADED, Refusal.UNAVAILABLE, Refusal.INTERNAL})
"""An agent takes these as if the authority could not be reached."""
