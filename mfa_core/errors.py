"""The errors of mfad, each named for what the caller does next. Expected outcomes (a wrong code) are verdicts, not errors."""

from __future__ import annotations


class MfaError(Exception):
    """Root of all errors that mfad raises on purpose. ``cure`` is one line that tells an administrator how to mend it."""

    def __init__(self, message: str, *, cure: str = "") -> None:
        super().__init__(message)
        self.cure = cure


class UsernameRefused(MfaError):
    """The presented name maps to no identity, or to more than one: refuse the attempt. The message holds no raw text."""


class InvalidInput(MfaError):
    """An administrator's or a file's value is wrong: say which, ask again. Nothing was changed."""


class NotFound(MfaError):
    """The user, credential or event does not exist: list and choose another."""


class Conflict(MfaError):
    """The state does not allow this (a name is taken, a code was used): look again. Nothing was changed."""


class ConfigurationError(MfaError):
    """The configuration, the policy or a key file cannot be used: do not start, or keep the previous one."""


class StoreUnavailable(MfaError):
    """The store cannot be read or written now: refuse, and try again later."""


class StoreFull(StoreUnavailable):
    """There is no room to record a use: refuse, and page a human."""


class StoreCorrupt(MfaError):
    """The store holds what it cannot hold (a moved row, a broken seal, an unknown schema): stop and page a human."""


class PeerProtocolError(MfaError):
    """A peer broke the protocol: answer as the protocol says, close, and count it."""


class Overloaded(MfaError):
    """A bound was reached: refuse now, the caller may try again."""
