"""Does what was read of the store before a transaction still hold in it? Then nobody reads it twice.

Room rule: one way to know, and no statement on a table. Whoever commits is either this process's writer, which notes what it
changed, or somebody else, who moves the number of the writer's own connection. A look that began after the last commit of the
writer that touched its rows, and after the last time that the number moved, saw what the writer sees.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from mfa_core.throttle import Throttle
from mfa_core.value import hot_value
from mfa_runtime.store.accounts import Account

MAX_TOUCHED = 50_000
"""Keys that the writer remembers to have changed; then it forgets them, and the looks of before."""


class Keys(NamedTuple):
    """The throttle keys of an entry; "" where there is none. The account's stands for the account as well."""

    account: str
    lane: str
    source: str


class Mark(NamedTuple):
    """A point in the writer's life: how often somebody else was met, and how often it has committed."""

    met: int
    commits: int


@hot_value
class Look:
    """What the store held about one entry after the point that ``mark`` names."""

    mark: Mark
    keys: Keys
    account: Account | None
    throttle: Throttle
    has_row: bool = False
    """Whether the lane has a row of its own."""


class Freshness:
    """What the writer's thread keeps to know whether looks still hold. Other threads read :attr:`mark`, before they look."""

    def __init__(self) -> None:
        self._version: object = None
        self._since = 0
        self._touched: dict[str, int] = {}
        self.mark = Mark(0, 0)
        """The present point. Take it before the reading transaction of a look begins."""

    def meet(self, version: object) -> None:
        """Compare what the writer's session says of others, inside a writing transaction; None is for not knowing."""
        if version is None or version != self._version:
            self._version = version
            self.mark = Mark(self.mark.met + 1, self.mark.commits)

    def holds(self, look: Look) -> bool:
        """Whether this is what the store holds in the transaction that :meth:`meet` was called in."""
        met, commits = look.mark
        if met != self.mark.met or commits < self._since:
            return False
        touched = self._touched.get
        account, lane, source = look.keys
        return touched(account, 0) <= commits and touched(lane, 0) <= commits and touched(source, 0) <= commits

    def committed(self, keys: Iterable[str]) -> None:
        """Note a commit of the writer's, and what it changed."""
        met, commits = self.mark
        commits += 1
        if len(self._touched) >= MAX_TOUCHED:
            self._touched.clear()
            self._since = commits
        self._touched.update(dict.fromkeys(keys, commits))
        self.mark = Mark(met, commits)
