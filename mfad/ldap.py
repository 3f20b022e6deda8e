"""The LDAP door, put together.

Room rule: choices of parts for this door. Settings are mapped in :mod:`ldap_proxy.configuration`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import time
from collections.abc import Callable
from dataclasses import replace

from ldap_proxy.configuration import build_ldap_settings, warnings
from ldap_proxy.door import LdapDoor
from ldap_proxy.server import Opened, open_sockets
from ldap_proxy.settings import LdapDoorSettings, Listen, RememberSettings, Scheme
from mfa_runtime.config import Config
from mfa_runtime.config.ldap_door import LdapDoor as LdapSection
from mfa_runtime.event_id import new_event_id
from mfa_runtime.gate import Gate
from mfad.inherited import Handed

FILES_PER_CLIENT = 2
OTHER_FILES = 256
"""Of the store, the other doors, and connections that are warm, looked after or on their way."""

log = logging.getLogger(__name__)


Settings = Callable[[Config, LdapSection], LdapDoorSettings]


def settings_among_others(config: Config, section: LdapSection) -> LdapDoorSettings:
    """The settings of one process among several. Raises: ConfigurationProblems.

    Nothing is remembered: what one process remembers the others do not know, and could not forget. The file that has a worker
    read may say `workers: 1` by now, and `remember` with it; until the restart that this needs it does not hold.
    """
    settings = build_ldap_settings(config, section)
    return replace(
        settings, applications=tuple(replace(one, remember=RememberSettings()) for one in settings.applications)
    )


def build_ldap_door(settings: LdapDoorSettings, *, gate: Gate) -> LdapDoor:
    """Make the door. Nothing listens yet.

    Raises:
        ConfigurationError: a certificate cannot be used.
    """
    for told in warnings(settings):
        log.warning("%s", told)
    make_room_for_connections(settings)
    return LdapDoor(
        settings,
        gate,
        clock=time.time,
        monotonic=time.monotonic,
        random=os.urandom,
        new_event_id=lambda: new_event_id(time.time(), os.urandom),
    )


def make_room_for_connections(settings: LdapDoorSettings) -> None:
    """See that the process may open as many files as its clients need: a client has a connection here and one behind."""
    needed = FILES_PER_CLIENT * settings.limits.connections + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < needed:
        wanted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with contextlib.suppress(OSError, ValueError):  # a container may forbid it: then it is told below
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    if soft < needed:
        log.warning(
            "LDAP door: %d connections need %d open files, and this process may have %d; raise LimitNOFILE of its unit "
            "(`ulimit -n`), or lower doors.ldap.limits.connections", settings.limits.connections, needed, soft,
        )  # fmt: skip


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
