"""The section ``primary`` of a door: who says whether a password is right, and how he is asked.

Room rule: one class a type of backend, chosen by the key ``type``; each knows its own keys alone. Nothing is opened here:
whether a file can be read or a server answers is for :mod:`mfa_runtime.primaries`.
"""

from __future__ import annotations

import difflib
import enum
import re
from typing import Annotated, Any, Final

from pydantic import (
    BeforeValidator,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails

from mfa_runtime.config.notation import Flag, Place, Text, Unfit, duration, whole
from mfa_runtime.config.section import Section, written

MAX_SERVERS = 8


class PrimaryType(enum.StrEnum):
    """Who verifies the password where it stands in a combined answer."""

    NONE = "none"
    """The modules after ours, which get it as PAM_AUTHTOK."""
    PAM = "pam"
    LDAP = "ldap"
    RADIUS = "radius"
    LOCAL = "local"
    """mfad itself: `mfactl user password`."""


class Verify(enum.StrEnum):
    """Whether the certificate of a server is looked at."""

    FULL = "full"
    NONE = "none"
    """Whoever stands in between reads every password."""


class SentName(enum.StrEnum):
    """Which form of the user name an upstream RADIUS server hears."""

    CANONICAL = "canonical"
    """As mfad counts it: folded, without the realms of `identity`."""
    PRESENTED = "presented"


_SERVICE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}").fullmatch


def _service_name(value: object) -> str:
    if isinstance(value, str) and _SERVICE_NAME(value):
        return value
    raise Unfit("the name of a PAM service, such as sshd")


ServiceName = Annotated[str, BeforeValidator(_service_name)]


def _list(value: object) -> list[object]:
    found = list(value) if isinstance(value, list | tuple) else [value]
    if not 1 <= len(found) <= MAX_SERVERS or None in found:
        raise Unfit(f"1 to {MAX_SERVERS} servers", "they are tried in this order")
    return found


_LDAP_URL = re.compile(r"(?:ldaps?://(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::[0-9]{1,5})?|ldapi://\S{1,300})/?").fullmatch


def _ldap_servers(value: object) -> tuple[str, ...]:
    found = _list(value)
    for one in found:
        if not isinstance(one, str) or not _LDAP_URL(one) or _port_of(one, 389) is None:
            raise Unfit("URLs such as ldaps://ldap.example.org or ldap://10.0.0.1:389", "a base stands in base_dn")
    return tuple(str(one).rstrip("/") for one in found)


_HOST_PORT = re.compile(r"(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::[0-9]{1,5})?").fullmatch


def _radius_servers(value: object) -> tuple[str, ...]:
    found = _list(value)
    for one in found:
        if not isinstance(one, str) or not _HOST_PORT(one) or _port_of(one, 1812) is None:
            raise Unfit("servers such as radius.example.org:1812, 10.0.0.1 or [2001:db8::1]:1812")
    return tuple(str(one) for one in found)


def _port_of(server: str, usual: int) -> int | None:
    """The port, or None for one that no socket has."""
    _, _, text = server.rstrip("/").rpartition("]")[2].rpartition(":")
    if server.startswith("ldapi://") or not text.isdigit():
        return usual
    return int(text) if 1 <= int(text) <= 65_535 else None


_DN_TEMPLATE = re.compile(r"[A-Za-z][A-Za-z0-9-]*=\{user\}(?:[,+][^{}\0]+)?").fullmatch


def _dn_template(value: object) -> str | None:
    if value is None or (isinstance(value, str) and _DN_TEMPLATE(value)):
        return value
    raise Unfit("a DN that begins with ATTRIBUTE={user}", "for instance uid={user},ou=people,dc=example,dc=org")


_FILTER = re.compile(r"[^{}\0]*=\{user\}\)(?:[^{}\0]*(?:=\{user\}\))?)*").fullmatch


def _filter(value: object) -> str:
    if isinstance(value, str) and value.startswith("(") and value.count("(") == value.count(")") and _FILTER(value):
        return value
    raise Unfit("a filter of RFC 4515 with {user} as a whole value", "for instance (uid={user}), or (sAMAccountName={user})")


def _name(value: object) -> str:
    if isinstance(value, str) and 1 <= len(value) <= 63 and value.isascii() and value.isprintable():
        return value
    raise Unfit("1 to 63 printable ASCII characters")


class Primary(Section):
    """The first factor, where it is ours. Reading one gives the class of its ``type``."""

    type: PrimaryType = PrimaryType.NONE

    @model_validator(mode="wrap")
    @classmethod
    def _as_its_type(cls, data: Any, read: ModelWrapValidatorHandler[Primary], info: ValidationInfo) -> Primary:
        if not isinstance(data, dict | None):
            return read(data)
        given = dict(data or {})
        kind = _type_of(given.get("type", PrimaryType.NONE))
        if cls is Primary and kind is not None:
            return CLASSES[kind].model_validate(given, context=info.context)
        if kind is None:
            return read({"type": given.get("type")})
        strange = [_strange_key(key, given[key], kind) for key in given if key not in cls.model_fields]
        if not strange:
            return read(given)
        # Everything is told at once: what is wrong with the known keys as well.
        try:
            read({key: value for key, value in given.items() if key in cls.model_fields})
        except ValidationError as err:
            strange += [_again(detail) for detail in err.errors(include_url=False)]
        raise ValidationError.from_exception_data("primary", strange)


class NoneSection(Primary):
    """No password is ours. ``service`` says nothing here: it stands in the sample beside ``type: none``."""

    service: ServiceName = "mfad-primary"


class PamSection(Primary):
    """Another PAM service is asked: ``service``."""

    type: PrimaryType = PrimaryType.PAM
    service: ServiceName = "mfad-primary"


class LdapSection(Primary):
    """A directory is asked by a simple bind as the user. ``timeout`` is seconds for one server, ``dead_time`` seconds."""

    type: PrimaryType = PrimaryType.LDAP
    servers: Annotated[tuple[str, ...], BeforeValidator(_ldap_servers)]
    start_tls: Flag = False
    ca_file: Place | None = None
    verify: Verify = Verify.FULL
    user_dn: Annotated[str | None, BeforeValidator(_dn_template)] = None
    bind_dn: Text | None = None
    bind_password_file: Place | None = None
    base_dn: Text | None = None
    filter: Annotated[str, BeforeValidator(_filter)] = "(uid={user})"
    timeout: Annotated[int, duration("1s", "30s")] = written("5s")
    dead_time: Annotated[int, duration("0", "1h")] = written("30s")
    connections: Annotated[int, whole(1, 64)] = 8

    @model_validator(mode="after")
    def _one_way_to_the_entry(self) -> LdapSection:
        if self.user_dn is None and self.base_dn is None:
            raise Unfit("one of them, to find the entry of a user by", seen="neither user_dn nor base_dn")
        searches = self.base_dn is not None or "filter" in self.model_fields_set
        if self.user_dn is not None and searches:
            raise Unfit("one of them", "user_dn names the entry without a search", seen="both user_dn and a search")
        if (self.bind_dn is None) != (self.bind_password_file is None):
            raise Unfit("both or neither", "bind_dn and bind_password_file belong together", seen="one of the two")
        if self.bind_dn == "":
            raise Unfit("a DN", "leave bind_dn out for an anonymous search", seen="an empty bind_dn")
        return self

    @field_validator("start_tls", mode="after")
    @classmethod
    def _not_inside_tls(cls, start_tls: bool, info: ValidationInfo) -> bool:
        if start_tls and any(not url.startswith("ldap://") for url in info.data.get("servers", ())):
            raise Unfit("false, or servers of ldap:// alone", "ldaps:// is inside TLS from the first byte")
        return start_tls


class RadiusSection(Primary):
    """Another RADIUS server is asked. ``timeout`` is seconds after each of ``retries`` sends, ``dead_time`` seconds."""

    type: PrimaryType = PrimaryType.RADIUS
    servers: Annotated[tuple[str, ...], BeforeValidator(_radius_servers)]
    secret_file: Place
    timeout: Annotated[int, duration("1s", "30s")] = written("3s")
    retries: Annotated[int, whole(1, 10)] = 2
    dead_time: Annotated[int, duration("0", "1h")] = written("30s")
    user_name: SentName = SentName.CANONICAL
    nas_identifier: Annotated[str, BeforeValidator(_name)] = "mfad"
    connections: Annotated[int, whole(1, 64)] = 8


class LocalSection(Primary):
    """Passwords in the store: `mfactl user password NAME`."""

    type: PrimaryType = PrimaryType.LOCAL


CLASSES: Final[dict[PrimaryType, type[Primary]]] = {
    PrimaryType.NONE: NoneSection,
    PrimaryType.PAM: PamSection,
    PrimaryType.LDAP: LdapSection,
    PrimaryType.RADIUS: RadiusSection,
    PrimaryType.LOCAL: LocalSection,
}


def _type_of(value: object) -> PrimaryType | None:
    return next((kind for kind in PrimaryType if kind.value == value), None)


def _strange_key(key: object, value: object, kind: PrimaryType) -> InitErrorDetails:
    """A key that this type does not have: of another type, misspelt, or none at all."""
    others = ((other.value, section) for other, section in CLASSES.items() if other is not PrimaryType.NONE)
    owners = [other for other, section in others if key in section.model_fields]
    known = sorted(CLASSES[kind].model_fields)
    cure = ""
    if owners:
        cure = f"{key} belongs to type {' or '.join(owners)}: change the type, or take the key out"
    elif near := difflib.get_close_matches(str(key), known, n=1):
        cure = f"perhaps {near[0]} is meant"
    seen = "a key of another type" if owners else "an unknown key"
    error = Unfit(f"a key of type {kind.value}: {', '.join(known)}", cure, seen=seen)
    return InitErrorDetails(type="value_error", loc=(str(key),), input=value, ctx={"error": error})


def _again(detail: Any) -> InitErrorDetails:
    return InitErrorDetails(type=detail["type"], loc=detail["loc"], input=detail["input"], ctx=detail.get("ctx", {}))
