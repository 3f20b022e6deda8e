"""What a door may ask: the one call between a door and everything behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from mfa_core.model import Attempt
from mfa_core.secret import Secret
from mfa_core.verdict import Verdict
from mfa_core.verifier import Password

Checked = Callable[[Password | Exception], None]
"""Hears GOOD or BAD, or why nobody knows."""
Check = Callable[[Secret, Checked], None]
"""Has a password checked, and tells once. Whoever is asked may take his time; nothing blocks."""


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

    def ask_with(self, attempt: Attempt, check: Check, answer: Callable[[Verdict], None]) -> None:
        """Decide one attempt, as :meth:`ask` does, whose password the door itself can have checked: an LDAP bind is checked on
        the very connection that it is for.

        ``attempt.first_factor`` is OURS. ``check`` is called on the loop at most once, and not at all where the password is not
        worth asking about: somebody has to wait, or no code stands in the text. An exception that it
        tells, or raises, makes the answer ``Unavailable``. Whoever gives up tells an exception too: nothing is kept for ever.
        """
        ...

    def canonical(self, username: str) -> str:
        """The identity that ``username`` is counted as; "" when it is none. For doors that confirm who somebody is."""
        ...
