"""How single values are written: durations, places, networks, days and hours, lists of names.

Room rule: text in, a value of the core out, or :class:`Unfit` with what was expected and how to mend it. No key by name.
"""

from __future__ import annotations

import re
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, Strict, ValidationInfo

from mfa_core.errors import InvalidInput
from mfa_core.policy import FromNetworks


class Unfit(ValueError):
    """A value that cannot stand where it stands. Only this package sees it. ``seen`` is None to describe the value itself."""

    def __init__(self, expected: str, cure: str = "", *, seen: str | None = None) -> None:
        super().__init__(expected)
        self.expected = expected
        self.cure = cure
        self.seen = seen


Flag = Annotated[bool, Strict()]


def whole(minimum: int, maximum: int) -> Any:
    """A whole number between two bounds, both inside. YAML's ``true`` and ``"3"`` are none."""

    def read(value: object) -> int:
        if type(value) is int and minimum <= value <= maximum:
            return value
        raise Unfit(f"a whole number from {minimum} to {maximum}")

    return BeforeValidator(read)


_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"([0-9]{1,9})([smhd])").fullmatch


def duration(shortest: str, longest: str) -> Any:
    """A time with its unit, as seconds: ``90s``, ``15m``, ``8h``, ``7d``; ``0`` needs no unit."""
    lower, upper = _seconds(shortest), _seconds(longest)
    expected = f"a time with its unit from {shortest} to {longest}"

    def read(value: object) -> int:
        try:
            seconds = _seconds(value)
        except ValueError:
            raise Unfit(expected, "write 90s, 15m, 8h or 7d") from None
        if not lower <= seconds <= upper:
            raise Unfit(expected)
        return seconds

    return BeforeValidator(read)


def _seconds(value: object) -> int:
    # "0" and 0 alone need no unit; a bare 14 might be days or seconds.
    if value == "0" or (type(value) is int and value == 0):
        return 0
    parts = _DURATION(value) if isinstance(value, str) else None
    if parts is None:
        raise ValueError
    return int(parts[1]) * _UNITS_S[parts[2]]


_SPAN = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)(ms|[smh])").fullmatch
_SPAN_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def time_span(shortest: str, longest: str) -> Any:
    """A time with its unit, as seconds with a fraction: ``1.2s``, ``500ms``, ``2m``."""
    lower, upper = _span(shortest), _span(longest)
    expected = f"a time with its unit from {shortest} to {longest}"

    def read(value: object) -> float:
        try:
            seconds = _span(value)
        except ValueError:
            raise Unfit(expected, "write 1.2s, 500ms or 2m") from None
        if not lower <= seconds <= upper:
            raise Unfit(expected)
        return seconds

    return BeforeValidator(read)


def _span(value: object) -> float:
    parts = _SPAN(value) if isinstance(value, str) else None
    if parts is None:
        raise ValueError
    return float(parts[1]) * _SPAN_UNITS_S[parts[2]]


def _place(value: object, info: ValidationInfo) -> Path:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise Unfit("a path")
    base: Path = (info.context or {}).get("base", Path())
    return base / value


Place = Annotated[Path, BeforeValidator(_place)]
"""A path. A relative one starts at the folder of the configuration file, so that it means the same from every directory."""


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    raise Unfit("text", "put it in quotes" if isinstance(value, int | float) else "")


Text = Annotated[str, BeforeValidator(_text)]


def _one_or_many(value: object) -> object:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else value


Names = Annotated[tuple[Text, ...], BeforeValidator(_one_or_many)]
"""One name, or a list of names."""


def _at_least_one(value: object) -> object:
    if value is None or value in ([], ()):
        raise Unfit("at least one", "leave the key out if it does not matter")
    return _one_or_many(value)


SomeNames = Annotated[tuple[Text, ...], BeforeValidator(_at_least_one)]


def _prompt(value: object) -> str:
    text = _text(value)
    if not 1 <= len(text) <= 120 or not text.isprintable():
        raise Unfit("1 to 120 printable characters")
    return text


PromptText = Annotated[str, BeforeValidator(_prompt)]


def _separator(value: object) -> str:
    text = _text(value)
    # What can stand in a code cannot mark where it begins.
    if not 1 <= len(text) <= 8 or not text.isprintable() or any(c.isalnum() or c in " -" for c in text):
        raise Unfit("1 to 8 characters other than letters, digits, hyphens and blanks", "the usual one is a comma")
    return text


Separator = Annotated[str, BeforeValidator(_separator)]


def read_networks(networks: tuple[str, ...]) -> FromNetworks:
    """Check networks such as ``10.0.0.0/8`` and ``-10.1.0.0/16``. Raises: Unfit."""
    try:
        return FromNetworks(networks)
    except InvalidInput as err:
        raise Unfit("networks such as 10.0.0.0/8 or 2001:db8::/32", err.cure, seen=str(err)) from None


def _zone(value: object) -> tzinfo:
    text = _text(value)
    if text == "UTC":
        return UTC
    try:
        return ZoneInfo(text)
    except (KeyError, ValueError, OSError):
        raise Unfit("a time zone such as Europe/Berlin", "see timedatectl list-timezones") from None


Zone = Annotated[tzinfo, BeforeValidator(_zone)]

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_HOURS = re.compile(r"([0-9]{1,2}):([0-9]{2})-([0-9]{1,2}):([0-9]{2})(?: +(\S+))?").fullmatch


def _days(value: object) -> frozenset[int]:
    expected = "days such as mon-fri or [mon, wed, fri]"
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not parts:
        raise Unfit(expected)
    found: set[int] = set()
    for part in parts:
        first, dash, last = part.strip().lower().partition("-") if isinstance(part, str) else ("", "", "")
        if first not in _DAYS or (last if dash else first) not in _DAYS:
            raise Unfit(expected)
        start, end = _DAYS.index(first), _DAYS.index(last if dash else first)
        found.update((start + step) % 7 for step in range((end - start) % 7 + 1))
    return frozenset(found)


Days = Annotated[frozenset[int], BeforeValidator(_days)]
"""0 is Monday; ``sat-mon`` goes over the end of the week."""


def _hours(value: object) -> tuple[int, int, tzinfo | None]:
    parts = _HOURS(value) if isinstance(value, str) else None
    if parts is None:
        raise Unfit('hours such as "06:00-22:00 Europe/Berlin"', "put them in quotes")
    begin_h, begin_m, end_h, end_m = (int(part) for part in parts.groups()[:4])
    begin, end = begin_h * 60 + begin_m, end_h * 60 + end_m
    if begin_m > 59 or end_m > 59 or begin >= 1440 or end > 1440 or begin == end:
        raise Unfit("hours between 00:00 and 24:00 that differ", "22:00-06:00 goes over midnight")
    return begin, end, None if parts[5] is None else _zone(parts[5])


Hours = Annotated[tuple[int, int, tzinfo | None] | None, BeforeValidator(_hours)]
"""Minutes since midnight, begin and end, and the zone if it is named. None only as an unread default."""

