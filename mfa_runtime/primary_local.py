"""The `local` first-factor backend: passwords that `mfactl user password` has set, in our own store.

Room rule: read a row, compare. Comparing costs some 30 ms and 19 MiB, so few run at once, in fair threads; a user who is
unknown or has no password costs the same.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from mfa_core.model import Attempt
from mfa_core.secret import Secret
from mfa_runtime import password_hash
from mfa_runtime.fair_threads import FairThreads, Shares
from mfa_runtime.sealing import Keyring
from mfa_runtime.store.database import Store
from mfa_runtime.store.passwords import password_row

MAX_PASSWORD_BYTES = 256
TIMEOUT_S = 10.0
_SHARES = Shares(threads=2, waiting=64, user_threads=1, user_waiting=4, source_threads=1, source_waiting=32)


class LocalPrimary:
    """Passwords of ``store``. ``keyring`` gives the keys as they are now."""

    def __init__(self, store: Store, *, keyring: Callable[[], Keyring]) -> None:
        self._store = store
        self._keyring = keyring
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
        with self._store.reading() as connection:
            row = password_row(connection, name)
        if row is None:
            return password_hash.fits(None, password, keyring=self._keyring())
        user_id, stored = row
        return password_hash.fits(stored, password, user_id, keyring=self._keyring())

    def close(self) -> None:
        """Take no more calls; those under way are answered."""
        self._threads.close()
