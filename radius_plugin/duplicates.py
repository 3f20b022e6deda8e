"""Was this request seen before, and what was it answered?

Room rule: keys, octets and a clock that is given; nothing is decided about a request that is new. An entry lives from the
first octet of a request until its answer is recorded, and the answer a retransmission budget longer (RFC 5080 section 2.2.2).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

Work = TypeVar("Work")

MAX_OCTETS = 32 * 1024 * 1024
"""Of requests and answers in one of the two dictionaries: 100,000 of the usual size, 4,000 of the greatest."""


@dataclass(frozen=True, slots=True, eq=False)
class InFlight(Generic[Work]):
    """A request that is under way. ``request`` is its octets: the same again is a duplicate, other ones are another request."""

    request: bytes
    work: Work


class Duplicates(Generic[Work]):
    """The requests under way, and the answers of the last while.

    Answers live between one and two times ``keep_s``: two dictionaries take turns, so that forgetting costs nothing. When
    ``max_answers`` are kept, or twice ``max_octets``, the older ones are forgotten early; ``forgotten_early`` counts how often.
    """

    def __init__(
        self, *, keep_s: float, max_answers: int, monotonic: Callable[[], float], max_octets: int = MAX_OCTETS
    ) -> None:
        self.keep_s = keep_s
        self._most = max(1, max_answers // 2)
        self._most_octets = max_octets
        self._octets = 0
        self._monotonic = monotonic
        self._under_way: dict[Hashable, InFlight[Work]] = {}
        self._young: dict[Hashable, tuple[bytes, bytes]] = {}
        self._old: dict[Hashable, tuple[bytes, bytes]] = {}
        self._turn_at = monotonic() + keep_s
        self.forgotten_early = 0

    @property
    def under_way(self) -> int:
        """How many requests wait for their answer."""
        return len(self._under_way)

    def answer_to(self, key: Hashable, request: bytes) -> bytes | None:
        """The answer that this very request got, None if it got none."""
        known = self._young.get(key) or self._old.get(key)
        return known[1] if known is not None and known[0] == request else None

    def pending(self, key: Hashable) -> InFlight[Work] | None:
        """The request under way under this key."""
        return self._under_way.get(key)

    def begin(self, key: Hashable, request: bytes, work: Work) -> InFlight[Work]:
        """A new request takes its key; another one that was under way there is forgotten: nobody waits for it any more."""
        entry = InFlight(request, work)
        self._under_way[key] = entry
        return entry

    def is_current(self, key: Hashable, entry: InFlight[Work]) -> bool:
        """Whether the client still waits for this request, and not for a later one."""
        return self._under_way.get(key) is entry

    def answered(self, key: Hashable, entry: InFlight[Work], answer: bytes) -> None:
        """Keep the answer; call it before the answer is sent."""
        del self._under_way[key]
        self.remember(key, entry.request, answer)

    def remember(self, key: Hashable, request: bytes, answer: bytes) -> None:
        """Keep the answer to a request that was answered at once."""
        if len(self._young) >= self._most or self._octets >= self._most_octets:
            self.forgotten_early += 1
            self._turn(self._monotonic())
        self._octets += len(request) + len(answer)
        self._young[key] = (request, answer)

    def turn_if_due(self) -> None:
        """Forget what is past. Call it every second or so."""
        now = self._monotonic()
        if now >= self._turn_at:
            self._turn(now)

    def _turn(self, now: float) -> None:
        self._old, self._young, self._octets = self._young, {}, 0
        self._turn_at = now + self.keep_s

    def dropped(self, key: Hashable, entry: InFlight[Work]) -> None:
        """No answer will be sent: the next copy is a new request."""
        if self._under_way.get(key) is entry:
            del self._under_way[key]
