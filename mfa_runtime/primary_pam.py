"""The `pam` first-factor backend: another PAM service says whether a password is right.

Room rule: the only file that imports python-pam. python-pam blocks, so calls run in a bounded pool and are given up on after a
while; the thread of a call that hangs is lost until the module behind it returns.
"""

from __future__ import annotations

import asyncio
import ctypes
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pam

from mfa_core.model import Attempt
from mfa_core.secret import Secret
from mfa_runtime.primary import PrimaryUnavailable

WORKERS = 4
TIMEOUT_S = 10.0
_AUTH_ERR, _USER_UNKNOWN, _MAXTRIES, _ACCT_EXPIRED, _PERM_DENIED = 7, 10, 11, 13, 6
_REFUSALS = {_AUTH_ERR, _USER_UNKNOWN, _MAXTRIES, _ACCT_EXPIRED, _PERM_DENIED}
"""PAM results that mean "no"; every other one means that nobody knows."""
_PAM_FAIL_DELAY = 10
_no_delay = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p)(lambda _result, _microseconds, _data: None)
"""What libpam calls in the place of sleeping."""


def _without_delay(client: Any) -> None:
    """Let libpam not sleep after a wrong password (pam_unix asks for 2 s): sixteen of them would hold every thread for 8 s.

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
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="primary-pam")
        self._under_way = 0
        self._most = 4 * workers

    async def check(self, name: str, password: Secret, attempt: Attempt) -> bool:  # noqa: ARG002  the protocol's shape
        """See :class:`mfa_runtime.verification.Primary`.

        Raises:
            PrimaryUnavailable: PAM failed, or was too slow, or too many calls wait.
        """
        if self._under_way >= self._most:
            raise PrimaryUnavailable(f"{self._under_way} calls of PAM service {self._service} are under way already")
        self._under_way += 1
        call = asyncio.get_running_loop().run_in_executor(self._threads, self._authenticate, name, password)
        call.add_done_callback(self._returned)
        done, _ = await asyncio.wait([call], timeout=self._timeout_s)
        if not done:
            raise PrimaryUnavailable(f"PAM service {self._service} gave no answer within {self._timeout_s:.0f} s")
        return call.result()

    def _returned(self, call: asyncio.Future[bool]) -> None:
        self._under_way -= 1
        if not call.cancelled():
            call.exception()  # a caller that has given up does not look

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
        """Let the threads go."""
        self._threads.shutdown(wait=False, cancel_futures=True)
