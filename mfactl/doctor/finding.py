"""What the doctor says of one thing."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Weight(enum.StrEnum):
    """How much it matters."""

    GOOD = "ok"
    UNKNOWN = "unknown"
    """It could not be looked at."""
    WARNING = "warning"
    PROBLEM = "problem"
    """Logins fail, or the second factor is not asked for."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``cure`` is empty when it is good."""

    weight: Weight
    place: str
    seen: str
    cure: str = ""
