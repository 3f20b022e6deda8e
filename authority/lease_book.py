"""What was heard of hosts, and until when each may verify alone: written down before it is promised.

Room rule: one queue and one thread; what is worth a write :mod:`mfa_runtime.store.hosts` knows. Ten thousand hosts that come at
once are a few dozen transactions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mfa_core.errors import MfaError
from mfa_runtime.group_commit import GroupCommit
from mfa_runtime.store import hosts
from mfa_runtime.store.database import Store
from mfa_runtime.store.hosts import Host

MAX_WAITING: Final = 50_000


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
