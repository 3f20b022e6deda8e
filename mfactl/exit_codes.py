"""What the exit status of ``mfactl`` says. Programs rely on these numbers (docs/mfactl.md): add to them, never move them."""

from __future__ import annotations

import enum

from mfa_core.errors import (
    ConfigurationError,
    Conflict,
    InvalidInput,
    MfaError,
    NotFound,
    StoreCorrupt,
    StoreUnavailable,
    UsernameRefused,
)


class ExitCode(enum.IntEnum):
    """The exit statuses."""

    OK = 0
    REFUSED = 1
    """The answer is no: a wrong code, a policy with errors, a broken chain, a doctor who found something."""
    USAGE = 2
    """An option, an argument or a value in a file is wrong."""
    NOT_FOUND = 3
    CONFLICT = 4
    """The present state does not allow it."""
    UNAVAILABLE = 5
    """Configuration, key file or store cannot be used now."""
    CORRUPT = 6
    """The store holds what it cannot hold: a human must look."""
    BUG = 70
    """An error that nobody foresaw."""


_MEANINGS: tuple[tuple[type[MfaError], ExitCode], ...] = (
    (InvalidInput, ExitCode.USAGE),
    (UsernameRefused, ExitCode.USAGE),
    (NotFound, ExitCode.NOT_FOUND),
    (Conflict, ExitCode.CONFLICT),
    (StoreCorrupt, ExitCode.CORRUPT),
    (StoreUnavailable, ExitCode.UNAVAILABLE),
    (ConfigurationError, ExitCode.UNAVAILABLE),
)


def exit_code_of(err: MfaError) -> ExitCode:
    """The exit status of an error."""
    return next((code for kind, code in _MEANINGS if isinstance(err, kind)), ExitCode.UNAVAILABLE)
