"""The LDAP door, put together.

Room rule: choices of parts for this door. Settings are mapped in :mod:`ldap_proxy.configuration`.
"""

from __future__ import annotations

import logging
import os
import time

from ldap_proxy.configuration import build_ldap_settings, warnings
from ldap_proxy.door import LdapDoor
from ldap_proxy.server import Opened, open_sockets
from ldap_proxy.settings import LdapDoorSettings, Listen, Scheme
from mfa_runtime.config import Config
from mfa_runtime.config.ldap_door import LdapDoor as LdapSection
from mfa_runtime.event_id import new_event_id
from mfa_runtime.gate import Gate
from mfad.inherited import Handed

log = logging.getLogger(__name__)


def build_ldap_door(config: Config, section: LdapSection, *, gate: Gate) -> LdapDoor:
    """Make the door. Nothing listens yet.

    Raises:
        ConfigurationError: a DN, a secret or a certificate cannot be used.
    """
    settings = build_ldap_settings(config, section)
    for told in warnings(settings):
        log.warning("%s", told)
    return LdapDoor(
        settings,
        gate,
        clock=time.time,
        monotonic=time.monotonic,
        random=os.urandom,
        new_event_id=lambda: new_event_id(time.time(), os.urandom),
    )


def sockets_for_worker(settings: LdapDoorSettings) -> Handed:
    """One set of sockets, each with its address as the file writes it. Raises: ConfigurationError."""
    return [(str(listen), opened) for listen, opened in open_sockets(settings.listens, shared=True)]


def handed_down(handed: Handed) -> list[Opened]:
    """What :func:`sockets_for_worker` has opened, at the worker."""
    return [(_listen(written), opened) for written, opened in handed]


def _listen(written: str) -> Listen:
    scheme, _, rest = written.partition("://")
    host, _, port = rest.rpartition(":")
    return Listen(Scheme(scheme), host.strip("[]"), int(port))
