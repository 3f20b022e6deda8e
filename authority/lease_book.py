"""What was heard of hosts, and until when each may verify alone: that is written down before it is promised.

Room rule: one queue and one thread; what is worth a write :mod:`mfa_runtime.store.hosts` knows. Ten thousand hosts that come at
once are a few dozen transactions.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from mfa_core.errors import MfaError, Overloaded
from mfa_runtime.group_commit import GroupCommit
from mfa_runtime.store import hosts
from mfa_runtime.store.database import Store
from mfa_runtime.store.hosts import Host

MAX_WAITING: Final = 50_000

log = logging.getLogger(__name__)


class LeaseBook:
    """Writes rows of hosts, many in one transaction. Lives on one loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._commit: GroupCommit[Host, BaseException | None] = GroupCommit(
            self._write, capacity=MAX_WAITING, idle=lambda: None
        )

    def start(self) -> None:
        """Start the thread; call it on the loop."""
        self._commit.start()

    async def write(self, host: Host) -> None:
        """Return when the row is durable. Raises: Overloaded, and as :meth:`Store.writing`."""
        failed = await self._commit.submit(host)
        if failed is not None:
            raise failed

    def note(self, host: Host) -> None:
        """Have the row written soon; nothing was promised by it. What cannot be written now is written with the next answer."""
        try:
            self._commit.submit_to(host, _say_if_not_written)
        except Overloaded as err:
            _say_if_not_written(err)

    async def stop(self) -> None:
        """Write what waits, and end."""
        await self._commit.stop()

    def _write(self, heard: Sequence[Host]) -> Sequence[BaseException | None]:
        try:
            with self._store.writing() as connection:
                hosts.save_heard(connection, heard)
        except MfaError as err:
            return [err] * len(heard)
        return [None] * len(heard)


def _say_if_not_written(result: BaseException | None) -> None:
    if result is not None:
        log.warning("how far a host has come was not written down: %s", result)
