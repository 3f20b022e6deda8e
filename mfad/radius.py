"""The RADIUS door, put together.

Room rule: choices of parts for this door. Settings are mapped in :mod:`radius_plugin.configuration`.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable

from mfa_core.secret import Secret
from mfa_runtime.config import Config
from mfa_runtime.config.radius_door import RadiusDoor as RadiusSection
from mfa_runtime.directory import Groups
from mfa_runtime.event_id import new_event_id
from mfa_runtime.gate import Gate
from mfa_runtime.sealing import Keyring
from mfad.inherited import Handed
from radius_plugin.authentication_log import AuthenticationLog
from radius_plugin.configuration import build_radius_settings, policy_warnings, warnings
from radius_plugin.door import RadiusDoor, Sockets
from radius_plugin.exchange import Exchange
from radius_plugin.settings import Listen, Purpose, RadiusDoorSettings, Transport
from radius_plugin.signers import FOLDER, SignersOnDisk
from radius_plugin.state import KEY_SIZE, StateSeal

_TLS = "tls"

log = logging.getLogger(__name__)


def build_radius_door(
    config: Config, section: RadiusSection, *, gate: Gate, groups: Groups, keyring: Callable[[], Keyring]
) -> RadiusDoor:
    """Make the door. Nothing listens yet.

    Raises:
        ConfigurationProblems: a secret, a preset or a reply attribute cannot be used.
    """
    settings = build_radius_settings(config, section)
    for told in (*warnings(settings), *policy_warnings(section, config.policy)):
        log.warning("%s", told)
    journal = None
    if section.authentication_log is not None:
        journal = AuthenticationLog(section.authentication_log, clock=time.time)
    exchange = Exchange(
        settings,
        gate,
        seal=StateSeal([state_key(keyring())], random=os.urandom),
        groups=groups,
        signers=SignersOnDisk(config.state_dir / FOLDER),
        clock=time.time,
        monotonic=time.monotonic,
        new_event_id=lambda: new_event_id(time.time(), os.urandom),
        journal=journal,
    )
    return RadiusDoor(settings, exchange, journal=journal)


def sockets_for_worker(settings: RadiusDoorSettings) -> Handed:
    """One set of sockets, each with what it is for. Raises: ConfigurationError."""
    sockets = Sockets.open(settings, shared=True)
    return [*((listen.purpose.value, opened) for listen, opened in sockets.udp), *((_TLS, opened) for opened in sockets.tls)]


def handed_down(handed: Handed) -> Sockets:
    """What :func:`sockets_for_worker` has opened, at the worker."""
    udp: list[tuple[Listen, socket.socket]] = []
    for what, opened in handed:
        if what != _TLS:
            host, port = opened.getsockname()[:2]
            udp.append((Listen(host, port, Transport.UDP, Purpose(what)), opened))
    return Sockets(udp, [opened for what, opened in handed if what == _TLS])


def state_key(keyring: Keyring) -> Secret:
    """The key of the State of challenges: the same in every worker, and after a restart."""
    return Secret(keyring.tag("radius-state-key", b"1")[:KEY_SIZE])
