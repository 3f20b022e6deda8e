"""How does the gate have a password checked by the door itself? An LDAP bind is checked on the connection that it is for.

Room rule: what stands between a check and who hears of it: told once, and awaited like any other first factor where the gate
needs a task. Nothing is decided here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from mfa_core.model import Attempt
from mfa_core.secret import Secret
from mfa_core.verifier import Password
from mfa_runtime.gate import Check

log = logging.getLogger(__name__)

Outcome = Password | Exception


class Told:
    """Hears what came of one check, and hands the first word on. What is neither GOOD nor BAD is an error of the door's."""

    __slots__ = ("_event_id", "_hear")

    def __init__(self, event_id: str, hear: Callable[[Outcome], None]) -> None:
        self._event_id = event_id
        self._hear: Callable[[Outcome], None] | None = hear

    def __call__(self, outcome: Outcome) -> None:
        """Tell. A second word changes nothing: the first one may be in the store already."""
        hear, self._hear = self._hear, None
        if hear is None:
            log.error("attempt %s: the outcome of a check was told twice; the second, %s, is dropped", self._event_id, outcome)
            return
        if outcome is Password.GOOD or outcome is Password.BAD or isinstance(outcome, Exception):
            hear(outcome)
        else:
            hear(TypeError(f"a check told {outcome}"))


class ByDoor:
    """A first factor (:class:`mfa_runtime.primary.Primary`) that is one check of the door's."""

    def __init__(self, check: Check) -> None:
        self._check = check

    async def check(self, name: str, password: Secret, attempt: Attempt) -> bool:  # noqa: ARG002  the door knows whom it asks about
        """Have it checked, and wait. Raises: what the door tells or raises."""
        checked: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def hear(outcome: Outcome) -> None:
            if checked.done():  # cancelled, as the daemon stops
                return
            if isinstance(outcome, Exception):
                checked.set_exception(outcome)
            else:
                checked.set_result(outcome is Password.GOOD)

        self._check(password, Told(attempt.event_id, hear))
        return await checked
