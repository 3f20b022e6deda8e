"""The life of the daemon: start, reload, upkeep, stop.

Room rule: sequence and signals. A broken configuration on reload changes nothing and says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ldap_proxy.configuration import build_ldap_settings
from mfa_core.errors import MfaError
from mfa_core.model import Door
from mfa_runtime.config import Config
from mfa_runtime.config.sections import Role
from mfa_runtime.state_lock import StateLock
from mfa_runtime.store.database import restrict_file_mode
from mfa_runtime.upkeep import HighWater, WriteAheadLog, forget
from mfad.authority import RulesNote
from mfad.build import ALL_DOORS, Parts, build
from mfad.collector import let_the_collector_rest
from mfad.ldap import sockets_for_worker as ldap_sockets
from mfad.metrics import build_metrics
from mfad.notify import Notifier
from mfad.radius import sockets_for_worker as radius_sockets
from mfad.workers import STOP_S, Workers
from pam_mfa.listeners import inherited_listeners
from radius_plugin.configuration import build_radius_settings

CHECKPOINT_EVERY_S = 1.0
FORGET_EVERY_S = 600.0
HIGH_WATER_EVERY_S = 60.0
RULES_NOTE_EVERY_S = 10.0
"""How soon the doctor of another authority can see other rules; mostly there is nothing to say."""

log = logging.getLogger("mfad")


async def serve(config: Config, config_file: Path, load: Callable[[], Config], notifier: Notifier) -> None:
    """Run until SIGTERM or SIGINT. ``load`` reads the configuration again for SIGHUP, ``config_file`` is for workers.

    Raises:
        MfaError: it could not start.
    """
    restrict_file_mode()
    with StateLock(config.state_dir).shared():
        workers = _workers(config, config_file)
        parts = build(config, doors=ALL_DOORS - workers.keys())
        high_water = HighWater(config.state_dir)
        high_water.check(parts.store)
        with contextlib.suppress(MfaError, OSError):  # at once: after a restore the file tells of the store before it
            high_water.write(parts.store)
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGHUP, _reload, parts, load, notifier, workers)
        write_ahead_log = WriteAheadLog(parts.store, written=lambda: parts.ledger.written, monotonic=time.monotonic)
        write_ahead_log.make_long()
        parts.gate.start()
        following = None if parts.agent is None else loop.create_task(parts.agent.run())
        if parts.pam is not None:
            await parts.pam.start(inherited_listeners(os.environ, os.getpid()))
        if parts.radius is not None:
            await parts.radius.start()
        if parts.ldap is not None:
            await parts.ldap.start()
        if parts.authority is not None:
            await parts.authority.start()
        await _start_all(workers)
        if config.doors.radius is not None and Door.RADIUS in workers:
            parts.radius_settings = build_radius_settings(config, config.doors.radius)
        metrics = build_metrics(config, parts, workers)
        if metrics is not None:
            await metrics.start()
        upkeep = [
            asyncio.create_task(_every(CHECKPOINT_EVERY_S, write_ahead_log.checkpoint_if_due)),
            asyncio.create_task(_every(FORGET_EVERY_S, lambda: _forget(parts))),
            asyncio.create_task(_every(HIGH_WATER_EVERY_S, lambda: high_water.write(parts.store))),
            asyncio.create_task(_watchdog(notifier)),
        ]
        if parts.authority is not None:
            rules = RulesNote(parts.store)
            upkeep.append(asyncio.create_task(_every(RULES_NOTE_EVERY_S, lambda: rules.say(parts.config, time.time()))))
        let_the_collector_rest()
        notifier.ready()
        sys.stderr.write(f"mfad: ready, pid {os.getpid()}, {_listening(config)}\n")
        sys.stderr.flush()
        await stop.wait()
        notifier.stopping()
        log.info("stopping")
        if metrics is not None:
            await metrics.stop()
        # At once: each door may take its time for what is under way.
        doors = [door for door in (parts.pam, parts.radius, parts.ldap, parts.authority) if door is not None]
        await asyncio.gather(*(one.stop() for one in (*doors, *workers.values())))
        for task in upkeep:
            task.cancel()
        if parts.agent is not None and following is not None:
            following.cancel()
            await parts.agent.stop()
        await parts.gate.stop()
        await parts.enrolment.stop()
        with contextlib.suppress(MfaError, OSError):
            high_water.write(parts.store)
        parts.store.checkpoint()
        parts.store.close()


def _workers(config: Config, config_file: Path) -> dict[Door, Workers]:
    """Doors that several processes serve, with their addresses bound. Raises: ConfigurationError, when one cannot be had."""
    radius, ldap = config.doors.radius, config.doors.ldap
    found: dict[Door, Workers] = {}
    if radius is not None and radius.workers > 1:
        radius_settings = build_radius_settings(config, radius)
        sockets = [radius_sockets(radius_settings) for _ in range(radius.workers)]
        found[Door.RADIUS] = Workers(Door.RADIUS, config_file, sockets)
    if ldap is not None and ldap.workers > 1:
        ldap_settings = build_ldap_settings(config, ldap)
        sockets = [ldap_sockets(ldap_settings) for _ in range(ldap.workers)]
        patience_s = ldap_settings.limits.drain_s + STOP_S
        found[Door.LDAP] = Workers(Door.LDAP, config_file, sockets, patience_s=patience_s)
    return found


async def _start_all(workers: Mapping[Door, Workers]) -> None:
    """Start the processes of every door. Raises: ConfigurationError, when one does not; none is left then."""
    try:
        await asyncio.gather(*(one.start() for one in workers.values()))
    except BaseException:
        await asyncio.gather(*(one.stop() for one in workers.values()), return_exceptions=True)
        raise


def _listening(config: Config) -> str:
    pam, radius = config.doors.pam, config.doors.radius
    found = [] if pam is None else [f"PAM on {pam.socket_dir}"]
    if radius is not None:
        places = [*map(str, radius.listen)] + ([] if radius.freeradius is None else [str(radius.freeradius.socket)])
        found.append(f"RADIUS on {', '.join(places)}")
    if config.doors.ldap is not None:
        found.append(f"LDAP on {', '.join(map(str, config.doors.ldap.listen))}")
    if config.role is Role.AUTHORITY:
        found.append(f"HTTPS on {', '.join(map(str, config.authority.listen))}")
    return "; ".join(found)


def _reload(parts: Parts, load: Callable[[], Config], notifier: Notifier, workers: Mapping[Door, Workers]) -> None:
    notifier.reloading()
    try:
        config = load()
        left = parts.reload(config)
    except MfaError as err:
        log.error("the configuration was not reloaded, the previous one holds: %s; %s", err, err.cure)
    else:
        for one in workers.values():
            one.reload()
        logging.getLogger().setLevel(config.log_level.value.upper())
        log.info("configuration reloaded%s", f"; restart mfad for {', '.join(left)}" if left else "")
    notifier.ready()


def _forget(parts: Parts) -> None:
    forgotten = forget(parts.store, now=time.time(), rules=parts.config.throttle)
    log.debug("forgot %d lanes and %d sources", forgotten.lanes, forgotten.sources)


async def _every(interval_s: float, work: Callable[[], object]) -> None:
    while True:
        await asyncio.sleep(interval_s)
        try:
            await asyncio.get_running_loop().run_in_executor(None, work)
        except MfaError as err:
            log.error("upkeep of the store failed: %s; %s", err, err.cure)
        except Exception:
            log.exception("upkeep of the store failed")


async def _watchdog(notifier: Notifier) -> None:
    while notifier.watchdog_interval_s:
        notifier.alive()
        await asyncio.sleep(notifier.watchdog_interval_s)
