"""Which backend checks passwords, as the section ``primary`` of a door says?

Room rule: a section in, a backend out. The libraries of a backend are imported when it is chosen, and not before.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from mfa_core.secret import Secret
from mfa_core.throttle import ThrottleRules
from mfa_runtime.config.primary import LdapSection, LocalSection, NoneSection, PamSection, RadiusSection
from mfa_runtime.config.primary import Primary as PrimarySection
from mfa_runtime.primary import Primary
from mfa_runtime.primary_local import LocalPrimary
from mfa_runtime.sealing import Keyring
from mfa_runtime.secret_file import read_secret_file
from mfa_runtime.store.database import Store


class OpenPrimary(Primary, Protocol):
    """A backend that holds threads or connections until it is closed."""

    def close(self) -> None:
        """Take no more calls. Those under way are answered, then everything is let go."""
        ...


def open_primary(
    section: PrimarySection, *, store: Store, keyring: Callable[[], Keyring], throttle: ThrottleRules
) -> OpenPrimary | None:
    """The backend of a section; None where no password is ours. No server is asked yet.

    ``store``, ``throttle`` and ``keyring``, which gives the keys as they are now, are for passwords of our own.

    Raises:
        ConfigurationError: a file that it names cannot be used, or what it says cannot be.
    """
    match section:
        case NoneSection():
            return None
        case PamSection():
            from mfa_runtime.primary_pam import PamPrimary

            return PamPrimary(section.service)
        case LdapSection():
            from mfa_runtime.primary_ldap import LdapPrimary

            return LdapPrimary(section, bind_password=_bind_password(section), monotonic=time.monotonic)
        case RadiusSection():
            from mfa_runtime.primary_radius import RadiusPrimary

            return RadiusPrimary(section, secret=_shared_secret(section))
        case LocalSection():
            return LocalPrimary(store, keyring=keyring, clock=time.time, throttle=throttle)
        case _:
            raise AssertionError(section.type)


def check_files(section: PrimarySection) -> None:
    """Read what the section names, as :func:`open_primary` will. Raises: ConfigurationError, when a file cannot be used."""
    if isinstance(section, LdapSection):
        _bind_password(section)
    elif isinstance(section, RadiusSection):
        _shared_secret(section)


def _bind_password(section: LdapSection) -> Secret | None:
    path = section.bind_password_file
    return None if path is None else read_secret_file(path, key="primary.bind_password_file")


def _shared_secret(section: RadiusSection) -> Secret:
    return read_secret_file(section.secret_file, key="primary.secret_file")
