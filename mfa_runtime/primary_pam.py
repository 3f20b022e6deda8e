"""The `pam` first-factor backend: another PAM service says whether a password is right.

Room rule: the only file that imports python-pam. python-pam blocks, so calls run in fair threads and are given up on after a
while; the thread of a call that hangs is lost until the module behind it returns.
"""

from __future__ import annotations

import ctypes
from functools import partial
from typing import Any

import pam

from mfa_core.model import Attempt
from mfa_core.secret import Secret
from mfa_runtime.fair_threads import FairThreads, Shares
from mfa_runtime.primary import PrimaryUnavailable

WORKERS = 8
TIMEOUT_S = 10.0
_AUTH_ERR, _USER_UNKNOWN, _MAXTRIES, _ACCT_EXPIRED, _PERM_DENIED = 7, 10, 11, 13, 6
_REFUSALS = {_AUTH_ERR, _USER_UNKNOWN, _MAXTRIES, _ACCT_EXPIRED, _PERM_DENIED}
"""PAM results that mean "no"; every other one means that nobody knows."""
_PAM_FAIL_DELAY = 10
_no_delay = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p)(lambda _result, _microseconds, _data: None)
"""What libpam calls in the place of sleeping."""


def _without_delay(client: Any) -> None:
    """Let libpam not sleep after a wrong password (pam_unix asks for 2 s): a handful of them would hold every thread.

    How often a source may guess is the throttle's business, and the program that logs in has a delay of its own.
    """
    start = client.pam_start

    def started(*arguments: Any) -> Any:
        code = start(*arguments)
        if code == 0:
            client.pam_set_item(client.handle, _PAM_FAIL_DELAY, ctypes.cast(_no_delay, ctypes.c_void_p))
        return code

    client.pam_start = started


class PamPrimary:
    """Asks the PAM service ``service``. It must not contain pam_mfa.so: that would ask us again."""

    def __init__(self, service: str, *, workers: int = WORKERS, timeout_s: float = TIMEOUT_S) -> None:
        self._service = service
        self._timeout_s = timeout_s
        self._threads = FairThreads("primary-pam", Shares.of(workers))

    async def check(self, name: str, password: Secret, attempt: Attempt) -> bool:
        """See :class:`mfa_runtime.primary.Primary`.

        Raises:
            PrimaryUnavailable: PAM failed, or was too slow, or too many calls wait.
        """
        work = partial(self._authenticate, name, password)
        return await self._threads.run(work, user=name, source=attempt.source or None, timeout_s=self._timeout_s)

    def _authenticate(self, name: str, password: Secret) -> bool:
        client = pam.pam()
        _without_delay(client)
        # resetcreds False: setcred would refresh Kerberos tickets in this process.
        text = password.reveal().decode("utf-8", "surrogateescape")
        try:
            good = client.authenticate(name, text, service=self._service, resetcreds=False)
        except (ValueError, UnicodeError, TypeError):
            return False  # a NUL, or bytes that no PAM password can hold
        if good:
            return True
        if client.code in _REFUSALS:
            return False
        raise PrimaryUnavailable(
            f"PAM service {self._service} answered {client.code} ({client.reason})",
            cure=f"check /etc/pam.d/{self._service}; try it with pamtester",
        )

    def close(self) -> None:
        """Take no more calls; those under way are answered."""
        self._threads.close()
