"""What a door may ask: the one call between a door and everything behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from mfa_core.model import Attempt
from mfa_core.verdict import Verdict


class Gate(Protocol):
    """Answers attempts. Behind it stand policy, store and core; in front of it PAM, RADIUS and LDAP look alike."""

    async def decide(self, attempt: Attempt) -> Verdict:
        """Decide one attempt; the answer is durable when it arrives. Never raises: what breaks becomes ``Unavailable``.

        With ``typed`` None the answer is a ``Challenge`` (ask), ``Exempt``, ``Rejected`` or ``Unavailable``.
        """
        ...

    def ask(self, attempt: Attempt, answer: Callable[[Verdict], None]) -> None:
        """Decide one attempt as :meth:`decide` does, and call ``answer`` with the verdict on the loop, after this has returned.

        For doors that keep no task for a request: most attempts need nothing but the ledger, and cost neither a task nor a
        future then. Never raises; ``answer`` is called once and must not block.
        """
        ...
