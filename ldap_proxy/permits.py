"""Which operations may pass to the directory, for a session as it stands?

Room rule: facts of one request in, None or a refusal out; nothing is sent and nothing kept. Whatever could go round the second
factor is refused here, by default: an operation that this file does not know does not pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ldap_proxy.message import START_TLS, WHO_AM_I, ResultCode
from ldap_proxy.settings import Anonymous, OperationsSettings

CANCEL: Final = "1.3.6.1.1.8"
VERIFY_CREDENTIALS: Final = "1.3.6.1.4.1.4203.666.6.5"
FAST_BIND: Final = "1.2.840.113556.1.4.1781"
NEVER: Final = frozenset({VERIFY_CREDENTIALS, FAST_BIND, START_TLS})
"""Extended operations that no configuration lets through: two that check a password as a bind does, and the one that would
change the stream under us."""
HARMLESS: Final = frozenset({WHO_AM_I, CANCEL})
"""Extended operations for somebody who is not bound. Modify Password (RFC 3062) takes an old password, and is none."""
PROXIED_AUTHORIZATION: Final = frozenset({"2.16.840.1.113730.3.4.18", "2.16.840.1.113730.3.4.12"})
"""RFC 4370, and the draft before it, which directories still take."""
EXTERNAL: Final = "EXTERNAL"
"""The SASL mechanism that would give a client the identity of our own connection."""
PASSWORDS: Final = frozenset({"userpassword", "2.5.4.35", "authpassword", "1.3.6.1.4.1.4203.1.3.4"})
"""Attributes whose comparison says whether a password is right (RFC 4519 section 2.41, RFC 3112)."""
AUTHORIZATION_DENIED: Final = 123
"""RFC 4370 section 3."""
_ROOT_DSE: Final = b"\x04\x00\x0a\x01\x00"
ROOT_DSE_OCTETS: Final = 5
"""How a SearchRequest begins whose base is empty and whose scope is baseObject (RFC 4512 section 5.1)."""


@dataclass(frozen=True, slots=True)
class Denied:
    """A refusal: what the result says. ``text`` is public."""

    code: int
    text: str


_UNKNOWN_EXTENDED = Denied(ResultCode.PROTOCOL_ERROR, "unsupported extended operation")
_NOT_BOUND = Denied(ResultCode.INSUFFICIENT_ACCESS_RIGHTS, "bind first")
_NO_COMPARE = Denied(ResultCode.UNWILLING_TO_PERFORM, "passwords cannot be compared here")
_NO_PROXY = Denied(AUTHORIZATION_DENIED, "proxied authorization is not allowed here")
_NO_MECHANISM = Denied(ResultCode.AUTH_METHOD_NOT_SUPPORTED, "only simple binds are taken here")


class Permits:
    """What one application may do."""

    __slots__ = ("_compare", "_extended", "_proxied", "_sasl", "denies_anonymous")

    def __init__(self, operations: OperationsSettings, anonymous: Anonymous) -> None:
        self._extended = operations.extended - NEVER
        self._sasl = frozenset(mechanism.upper() for mechanism in operations.sasl) - {EXTERNAL}
        self._compare = operations.compare_password
        self._proxied = operations.proxied_authorization
        self.denies_anonymous = anonymous is Anonymous.DENY

    def extended(self, oid: str, *, bound: bool) -> Denied | None:
        """Whether an extended operation may pass. What is not allowed looks like one that the directory does not know."""
        if oid not in self._extended:
            return _UNKNOWN_EXTENDED
        if not bound and (self.denies_anonymous or oid not in HARMLESS):
            return _NOT_BOUND
        return None

    def unbound(self, operation: bytes) -> Denied | None:
        """Whether a search of somebody who is not bound may pass; ``operation`` is the content of the SearchRequest."""
        if self.denies_anonymous and not operation.startswith(_ROOT_DSE):
            return _NOT_BOUND
        return None

    def operation(self, *, bound: bool) -> Denied | None:
        """Whether any other operation may pass."""
        return _NOT_BOUND if self.denies_anonymous and not bound else None

    def compare(self, attribute: str) -> Denied | None:
        """Whether a Compare on ``attribute``, an AttributeDescription with or without options, may pass."""
        return None if self._compare or not is_password(attribute) else _NO_COMPARE

    def controls(self, oids: tuple[tuple[str, bool], ...], *, exempt: bool) -> Denied | None:
        """Whether a request with these controls may pass; ``exempt``: the session's identity needs no second factor."""
        if self._proxied and exempt:
            return None
        for oid, _ in oids:
            if oid in PROXIED_AUTHORIZATION:
                return _NO_PROXY
        return None

    def sasl(self, mechanism: str) -> Denied | None:
        """Whether a bind by this SASL mechanism may pass, and be judged by the identity that it ends in."""
        return None if mechanism.upper() in self._sasl else _NO_MECHANISM


def is_password(attribute: str) -> bool:
    """Whether an AttributeDescription (RFC 4512 section 2.5) names a password, in any case, as an OID, with any options."""
    kind = attribute.partition(";")[0].strip().lower()
    return kind.removeprefix("oid.") in PASSWORDS
