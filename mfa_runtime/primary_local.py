"""The `local` first-factor backend: passwords that `mfactl user password` has set, in our own store.

Room rule: read a row, compare, count. Comparing costs some 30 ms and 19 MiB, so few run at once, in fair threads; a user who is
unknown or has no password costs the same. Directories count wrong passwords themselves; these are counted here, for the user
over all sources, processes and restarts: the first thirty cost no waiting, one is forgiven a minute, then waits double up to
the cap (`throttle.source_free`, `forgive`, `base`, `cap`). What is typed while waiting is not looked at.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from mfa_core.model import Attempt
from mfa_core.secret import Secret
from mfa_core.throttle import CLEAN, ThrottleRules, charge_source, may_try
from mfa_runtime import password_hash
from mfa_runtime.fair_threads import FairThreads, Shares
from mfa_runtime.sealing import Keyring
from mfa_runtime.store import accounts
from mfa_runtime.store.database import Store
from mfa_runtime.store.passwords import password_key, password_row

log = logging.getLogger(__name__)

MAX_PASSWORD_BYTES = 256
TIMEOUT_S = 10.0
_SHARES = Shares(threads=2, waiting=64, user_threads=1, user_waiting=4, source_threads=1, source_waiting=32)


class LocalPrimary:
    """Passwords of ``store``. ``keyring`` gives the keys as they are now, ``clock`` Unix seconds."""

    def __init__(
        self, store: Store, *, keyring: Callable[[], Keyring], clock: Callable[[], float], throttle: ThrottleRules
    ) -> None:
        self._store = store
        self._keyring = keyring
        self._clock = clock
        self._throttle = throttle
        self._threads = FairThreads("primary-local", _SHARES)

    async def check(self, name: str, password: Secret, attempt: Attempt) -> bool:
        """See :class:`mfa_runtime.primary.Primary`.

        Raises:
            PrimaryUnavailable: too many passwords are being checked.
            StoreUnavailable: the row could not be read.
        """
        if not 1 <= len(password) <= MAX_PASSWORD_BYTES:
            return False
        work = partial(self._compare, name, password)
        return await self._threads.run(work, user=name, source=attempt.source or None, timeout_s=TIMEOUT_S)

    def _compare(self, name: str, password: Secret) -> bool:
        key = password_key(name)
        with self._store.reading() as connection:
            row = password_row(connection, name)
            record = accounts.load_records(connection, [key]).get(key, CLEAN)
        if row is None:
            return password_hash.fits(None, password, keyring=self._keyring())
        if not may_try(record, self._clock()):
            log.warning("the password of %a is not looked at: too many wrong ones came before it", name)
            return False
        user_id, stored = row
        good = password_hash.fits(stored, password, user_id, keyring=self._keyring())
        if not good or record.failures:
            self._count(key, good=good)
        return good

    def _count(self, key: str, *, good: bool) -> None:
        with self._store.writing() as connection:
            record = CLEAN
            if not good:
                now = accounts.load_records(connection, [key]).get(key, CLEAN)
                record = charge_source(now, self._clock(), self._throttle)
            accounts.write_records(connection, {key: record})

    def close(self) -> None:
        """Take no more calls; those under way are answered."""
        self._threads.close()
