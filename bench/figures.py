"""What is said of the figures of several rounds?"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

HIGHEST_SHARE = 0.85
"""Of its core, that the generator may use before it counts as the bottleneck."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Figures of several rounds."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, runs: Iterable[object], figure: str) -> Spread:
        """One figure of each run, by its name."""
        return cls(tuple(float(getattr(run, figure)) for run in runs))

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    def text(self, form: str) -> str:
        """``median (least..most)``, each in ``form``."""
        return f"{self.median:{form}} ({min(self.values):{form}}..{max(self.values):{form}})"


def ratios(ours: Iterable[object], theirs: Iterable[object], figure: str) -> Spread:
    """A figure of ours by theirs, round by round: what disturbed the machine disturbed both."""
    return Spread(tuple(getattr(a, figure) / getattr(b, figure) for a, b in zip(ours, theirs, strict=True)))


class Loaded(Protocol):
    """What a generator tells of itself."""

    @property
    def cpu_share(self) -> float:
        """Of its core, from 0 to 1."""


def bottlenecks(runs: Iterable[Loaded]) -> list[str]:
    """What is to be said of the generator's own share of its core."""
    highest = max(run.cpu_share for run in runs)
    print(f"  the generator used at most {highest:.2f} of its core")
    return [f"generator at {highest:.2f} of its core: it was the bottleneck"] if highest > HIGHEST_SHARE else []


def conclude(missed: Sequence[str]) -> int:
    """Say which bars were missed; the exit status."""
    print("bars missed: " + "; ".join(missed) if missed else "bars met")
    return int(bool(missed))
