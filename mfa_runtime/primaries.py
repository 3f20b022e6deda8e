"""Which backend checks passwords, as the section ``primary`` of a door says?

Room rule: a section in, a backend out. The libraries of a backend are imported when it is chosen, and not before.
"""

from __future__ import annotations

from typing import Protocol

from mfa_runtime.config.primary import NoneSection, PamSection
from mfa_runtime.config.primary import Primary as PrimarySection
from mfa_runtime.primary import Primary


class OpenPrimary(Primary, Protocol):
    """A backend that holds threads or connections until it is closed."""

    def close(self) -> None:
        """Let them go. Whoever waits is answered first, or hears that nobody can be asked."""
        ...


def open_primary(section: PrimarySection) -> OpenPrimary | None:
    """The backend of a section; None where no password is ours. No server is asked yet.

    Raises:
        ConfigurationError: a file that it names cannot be used.
    """
    match section:
        case PamSection():
            from mfa_runtime.primary_pam import PamPrimary

            return PamPrimary(section.service)
        case NoneSection():
            return None
        case _:
            raise AssertionError(section.type)
