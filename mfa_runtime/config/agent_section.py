"""The section ``agent``: which authorities this host asks, and how long it waits for them.

Room rule: text in, checked keys out. No name is resolved, and no authority is asked.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated

from pydantic import BeforeValidator

from mfa_runtime.config.notation import Unfit, duration, time_span
from mfa_runtime.config.section import Section, written

MAX_AUTHORITIES = 16
_URL = re.compile(r"https://(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::([0-9]{1,5}))?/?").fullmatch
_EXPECTED = "a URL such as https://mfa.example.org:18443"


def authority_url(value: object) -> str:
    """The one spelling of an authority's URL: no path, no slash at its end. Raises: Unfit."""
    parts = _URL(value) if isinstance(value, str) else None
    if parts is None:
        raise Unfit(_EXPECTED, "https:// and nothing behind the port; IPv6 stands in brackets")
    if parts[1].startswith("["):
        try:
            ipaddress.IPv6Address(parts[1].strip("[]"))
        except ValueError:
            raise Unfit(_EXPECTED, "IPv6 stands in brackets, and nothing else does") from None
    if parts[2] is not None and not 1 <= int(parts[2]) <= 65_535:
        raise Unfit(_EXPECTED, "a port is a number from 1 to 65535")
    port = "" if parts[2] is None else f":{int(parts[2])}"
    return f"https://{parts[1].lower()}{port}"


def _urls(value: object) -> tuple[str, ...]:
    found = () if value is None else (value,) if isinstance(value, str) else value
    if not isinstance(found, list | tuple) or len(found) > MAX_AUTHORITIES:
        raise Unfit(f"at most {MAX_AUTHORITIES} URLs", "leave it out to use those that were given at `mfactl agent join`")
    read = tuple(map(authority_url, found))
    if len(set(read)) != len(read):
        raise Unfit("URLs that differ", "take one of them out", seen="the same URL twice")
    return read


class Agent(Section):
    """How this host asks. ``budget``, ``try``, ``retry`` and ``sync_wait`` are seconds.

    ``authorities`` empty: those of `mfactl agent join`. ``budget`` bounds a whole login's asking, ``attempt_s`` (the key
    ``try``) one authority's part of it; ``retry`` is how often a lost authority is looked for.
    """

    authorities: Annotated[tuple[str, ...], BeforeValidator(_urls)] = ()
    budget: Annotated[float, time_span("0.1s", "30s")] = written("3s")
    attempt_s: Annotated[float, time_span("0.05s", "30s")] = written("1.2s", key="try")
    retry: Annotated[float, time_span("0.1s", "5m")] = written("2s")
    sync_wait: Annotated[int, duration("0", "50s")] = written("50s")
