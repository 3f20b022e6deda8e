"""What a door may ask: the one call between a door and everything behind it."""

from __future__ import annotations

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
