"""Who says whether a password is right: the seam between the gate and its first-factor backends."""

from __future__ import annotations

from typing import Protocol

from mfa_core.errors import MfaError
from mfa_core.model import Attempt
from mfa_core.secret import Secret


class PrimaryUnavailable(MfaError):
    """The backend cannot be asked now: refuse, without counting."""


class Primary(Protocol):
    """Checks a password: asked at most once for an attempt, because directories count wrong ones themselves."""

    async def check(self, name: str, password: Secret, attempt: Attempt) -> bool:
        """Whether this is the password of the user.

        Raises:
            PrimaryUnavailable: no answer within the backend's own time.
        """
        ...
