"""The life of a worker: one door on sockets that the daemon has opened, over the same store.

Room rule: sequence and signals, as in :mod:`mfad.service`. Upkeep of the store is the daemon's; a worker ends with it.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import logging
import os
import signal
from collections.abc import Callable, Mapping
from typing import Any

from ldap_proxy.door import LdapDoor
from mfa_core.errors import ConfigurationError, MfaError
from mfa_core.model import Door
from mfa_runtime.agent.follower import Follower
from mfa_runtime.agent.watcher import Watcher
from mfa_runtime.config import Config
from mfa_runtime.state_lock import StateLock
from mfa_runtime.store.database import restrict_file_mode
from mfad import ldap, radius
from mfad.agent import Part, link_counters
from mfad.build import Parts, build
from mfad.collector import let_the_collector_rest
from mfad.inherited import Inherited
from radius_plugin.door import RadiusDoor

TELL_EVERY_S = 1.0
Counted = dict[str, Any]
"""The counters of a door, as JSON carries them."""
_PR_SET_PDEATHSIG = 1

log = logging.getLogger("mfad.worker")


_TABLES = {Door.RADIUS: "clients", Door.LDAP: "applications"}
"""The counters of a door that may be many."""


async def serve_worker(config: Config, load: Callable[[], Config], inherited: Inherited) -> None:
    """Run until SIGTERM, or until the daemon is gone.

    Raises: MfaError, when it cannot start.
    """
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    restrict_file_mode()
    with StateLock(config.state_dir).shared():
        parts = build(config, doors=frozenset({inherited.door}), read_ldap=ldap.settings_among_others, part=Part.WATCHES)
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        loop.add_signal_handler(signal.SIGINT, lambda: None)  # a terminal sends it to the daemon too, which tells us
        loop.add_signal_handler(signal.SIGHUP, _reload, parts, load)
        parts.gate.start()
        watching = None if parts.agent is None else loop.create_task(parts.agent.run())
        door = await _start(parts, inherited)
        let_the_collector_rest()
        tell = loop.create_task(_tell(lambda: counters_of(door, parts.agent), _TABLES[inherited.door], inherited.pipe, stop))
        if os.getppid() != parent:
            stop.set()
        await stop.wait()
        tell.cancel()
        await door.stop()
        if parts.agent is not None and watching is not None:
            watching.cancel()
            await parts.agent.stop()
        await parts.gate.stop()
        await parts.enrolment.stop()
        for primary in parts.primaries.values():
            primary.close()
        parts.store.close()


async def _start(parts: Parts, inherited: Inherited) -> RadiusDoor | LdapDoor:
    """Let the door listen on what was handed down. Raises: ConfigurationError."""
    handed = inherited.handed()
    if inherited.door is Door.RADIUS and parts.radius is not None:
        await parts.radius.start(radius.handed_down(handed))
        return parts.radius
    if inherited.door is Door.LDAP and parts.ldap is not None:
        await parts.ldap.start(ldap.handed_down(handed))
        return parts.ldap
    raise ConfigurationError(f"doors.{inherited.door} is not configured", cure="restart mfad")


def _reload(parts: Parts, load: Callable[[], Config]) -> None:
    try:
        config = load()
        parts.reload(config)
    except MfaError as err:
        log.error("the configuration was not reloaded, the previous one holds: %s; %s", err, err.cure)
    else:
        logging.getLogger().setLevel(config.log_level.value.upper())


class _Pipe(asyncio.BaseProtocol):
    """To the daemon. When it does not listen any more, it is gone."""

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  the protocol's shape
        self._stop.set()


def counters_of(door: RadiusDoor | LdapDoor, agent: Follower | Watcher | None) -> Counted:
    """What the daemon is told: the numbers of the door, and on an agent those of the way to its authority."""
    counted: Counted = {**door.counters()}
    if agent is not None:
        counted["agent"] = link_counters(agent)
    return counted


async def _tell(count: Callable[[], Counted], table: str, pipe: int, stop: asyncio.Event) -> None:
    """Say that it is ready, then every second what was counted."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_write_pipe(lambda: _Pipe(stop), os.fdopen(pipe, "wb", buffering=0))
    news = News(table)
    transport.write(json.dumps({"ready": True}).encode() + b"\n")
    while True:
        await asyncio.sleep(TELL_EVERY_S)
        if not transport.get_write_buffer_size():  # a daemon that reads slowly misses a second
            transport.write(json.dumps(news.of(count())).encode() + b"\n")


class News:
    """What has changed since it was told: ``table`` may have 10,000 entries (clients), of which few change in a second."""

    def __init__(self, table: str) -> None:
        self._table = table
        self._told: Mapping[str, object] = {}

    def of(self, counters: Mapping[str, Any]) -> dict[str, object]:
        """The line to write; it counts as told. ``whole``: there are no entries but these."""
        entries, told = counters[self._table], self._told
        self._told = entries
        if entries.keys() != told.keys():
            return {"counters": counters, "table": self._table, "whole": True}
        changed = {name: counts for name, counts in entries.items() if counts != told[name]}
        return {"counters": {**counters, self._table: changed}, "table": self._table, "whole": False}


def with_news(known: Counted | None, said: Mapping[str, Any]) -> Counted:
    """The counters of a worker after a line that :class:`News` has made. Raises: ValueError for any other line."""
    try:
        news: Counted = said["counters"]
        if not said["whole"]:
            table = said["table"]
            news[table] = {**(known[table] if known is not None else {}), **news[table]}
    except (KeyError, TypeError) as err:
        raise ValueError(f"a line without {err}") from err
    return news
