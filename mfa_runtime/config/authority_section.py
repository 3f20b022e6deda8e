"""The section ``authority``: where hosts reach this one, which certificate it shows, and how many it takes.

Room rule: text in, checked keys out. No file is opened, and no name is resolved.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from typing import Annotated

from pydantic import BeforeValidator, field_validator

from mfa_runtime.config.listen import AnEndpointOrAll, Endpoint
from mfa_runtime.config.notation import Names, Place, Unfit, duration, whole
from mfa_runtime.config.section import Section, written

MAX_LISTENERS = 16
MAX_CERTIFICATE_NAMES = 64

_NAME = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._-]{0,62})?").fullmatch
_DNS_NAME = re.compile(r"(?:\*\.)?(?!-)[A-Za-z0-9-]{1,63}(?:\.(?!-)[A-Za-z0-9-]{1,63})*").fullmatch


class OnReplay(enum.StrEnum):
    """What happens when the same code turns out to have been used on two hosts that could not ask."""

    ALERT = "alert"
    """An alarm."""
    SUSPEND = "suspend"
    """An alarm, and the credential verifies nowhere until an administrator says so."""


def _name(value: object) -> str:
    if isinstance(value, str) and _NAME(value):
        return value
    raise Unfit("1 to 63 letters, digits, dots, hyphens or underscores", "the host's name is the usual one, without its domain")


def _listeners(value: object) -> object:
    found = value if isinstance(value, list | tuple) else [value]
    if not 1 <= len(found) <= MAX_LISTENERS:
        raise Unfit(f"1 to {MAX_LISTENERS} addresses, each with its port", 'such as ["0.0.0.0:18443", "[::]:18443"]')
    return found


class AuthorityTls(Section):
    """A certificate from somebody else, in place of the one that the authority issues to itself."""

    certificate_file: Place
    key_file: Place


class Authority(Section):
    """What an authority is. ``host_certificate`` and ``long_poll`` are seconds.

    ``name`` "" is the host's own; two authorities on one database need two. ``tls`` None: a certificate of mfad's own CA.
    ``trust_file`` is what hosts check a certificate of ``tls`` against: they trust nothing else.
    """

    listen: Annotated[tuple[AnEndpointOrAll, ...], BeforeValidator(_listeners)] = (Endpoint("127.0.0.1", 18_443),)
    name: Annotated[str, BeforeValidator(_name)] = ""
    certificate_names: Names = ("localhost", "127.0.0.1")
    tls: AuthorityTls | None = None
    trust_file: Place | None = None
    host_certificate: Annotated[int, duration("1h", "365d")] = written("30d")
    long_poll: Annotated[int, duration("0", "50s")] = written("50s")
    on_replay: OnReplay = OnReplay.ALERT
    max_hosts: Annotated[int, whole(1, 1_000_000)] = 20_000
    max_verifications: Annotated[int, whole(1, 1_000_000)] = 4_096

    @field_validator("certificate_names", mode="after")
    @classmethod
    def _names_can_stand_in_a_certificate(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not 1 <= len(names) <= MAX_CERTIFICATE_NAMES:
            raise Unfit(f"1 to {MAX_CERTIFICATE_NAMES} names or addresses", "list every name that hosts use in the URL")
        for name in names:
            try:
                ipaddress.ip_address(name)
            except ValueError:
                if len(name) > 253 or not _DNS_NAME(name) or all(part.isdigit() for part in name.split(".")):
                    raise Unfit(
                        "names and addresses such as mfa.example.org or 192.0.2.7",
                        "without https:// and without a port",
                        seen=f"{name[:64]!a}",
                    ) from None
        return names
