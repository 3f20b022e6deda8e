"""The life of a worker: one door on sockets that the daemon has opened, over the same store.

Room rule: sequence and signals, as in :mod:`mfad.service`. Upkeep of the store is the daemon's; a worker ends with it.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import logging
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mfa_core.errors import ConfigurationError, MfaError
from mfa_core.model import Door
from mfa_runtime.config import Config
from mfa_runtime.state_lock import StateLock
from mfa_runtime.store.database import restrict_file_mode
from mfad.build import Parts, build
from radius_plugin.door import Counters, RadiusDoor, Sockets
from radius_plugin.settings import Listen, Purpose, Transport

TELL_EVERY_S = 1.0
_PR_SET_PDEATHSIG = 1

log = logging.getLogger("mfad.worker")


@dataclass(frozen=True, slots=True)
class Inherited:
    """What the daemon handed down: the pipe to it, and the sockets with what each is for.

    The configuration is not asked: it may have other addresses by the time that a worker is started again.
    """

    pipe: int
    udp: tuple[tuple[Purpose, int], ...]
    tls: tuple[int, ...]

    @classmethod
    def of(cls, pipe: int, sockets: Sockets) -> Inherited:
        """What a worker gets."""
        udp = tuple((listen.purpose, opened.fileno()) for listen, opened in sockets.udp)
        return cls(pipe, udp, tuple(opened.fileno() for opened in sockets.tls))

    @property
    def descriptors(self) -> tuple[int, ...]:
        """All of them, to be passed on."""
        return (self.pipe, *(number for _, number in self.udp), *self.tls)

    def written(self) -> str:
        """For the command line."""
        udp = [f"{purpose}:{number}" for purpose, number in self.udp]
        return ",".join([str(self.pipe), *udp, *(f"{_TLS}:{number}" for number in self.tls)])

    @classmethod
    def read(cls, text: str) -> Inherited:
        """Take apart what stands on the command line. Raises: ConfigurationError."""
        try:
            pipe, *rest = text.split(",")
            parts = [(kind, int(number)) for kind, _, number in (one.partition(":") for one in rest)]
            udp = tuple((Purpose(kind), number) for kind, number in parts if kind != _TLS)
            return cls(int(pipe), udp, tuple(number for kind, number in parts if kind == _TLS))
        except ValueError:
            raise ConfigurationError("--worker is for mfad itself", cure="set doors.radius.workers instead") from None

    def sockets(self) -> Sockets:
        """The sockets, each with the address that it is for."""
        udp: list[tuple[Listen, socket.socket]] = []
        for purpose, number in self.udp:
            opened = _opened(number)
            host, port = opened.getsockname()[:2]
            udp.append((Listen(host, port, Transport.UDP, purpose), opened))
        return Sockets(udp, [_opened(number) for number in self.tls])


_TLS = "tls"


def _opened(number: int) -> socket.socket:
    opened = socket.socket(fileno=number)
    opened.setblocking(False)
    return opened


async def serve_worker(config: Config, load: Callable[[], Config], inherited: Inherited) -> None:
    """Run until SIGTERM, or until the daemon is gone.

    Raises: MfaError, when it cannot start.
    """
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    restrict_file_mode()
    with StateLock(config.state_dir).shared():
        parts = build(config, doors=frozenset({Door.RADIUS}))
        if parts.radius is None:
            raise ConfigurationError("doors.radius is not configured", cure="restart mfad")
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        loop.add_signal_handler(signal.SIGINT, lambda: None)  # a terminal sends it to the daemon too, which tells us
        loop.add_signal_handler(signal.SIGHUP, _reload, parts, load)
        parts.gate.start()
        await parts.radius.start(inherited.sockets())
        gc.collect()
        gc.freeze()
        tell = loop.create_task(_tell(parts.radius, inherited.pipe, stop))
        if os.getppid() != parent:
            stop.set()
        await stop.wait()
        tell.cancel()
        await parts.radius.stop()
        await parts.gate.stop()
        await parts.enrolment.stop()
        for primary in parts.primaries.values():
            primary.close()
        parts.store.close()


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


async def _tell(door: RadiusDoor, pipe: int, stop: asyncio.Event) -> None:
    """Say that it is ready, then every second what was counted."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_write_pipe(lambda: _Pipe(stop), os.fdopen(pipe, "wb", buffering=0))
    news = News()
    transport.write(json.dumps({"ready": True}).encode() + b"\n")
    while True:
        await asyncio.sleep(TELL_EVERY_S)
        if not transport.get_write_buffer_size():  # a daemon that reads slowly misses a second
            transport.write(json.dumps(news.of(door.counters())).encode() + b"\n")


class News:
    """What has changed since it was told: there may be 10,000 clients, of which few speak in a second."""

    def __init__(self) -> None:
        self._told: dict[str, dict[str, int]] = {}

    def of(self, counters: Counters) -> dict[str, object]:
        """The line to write; it counts as told. ``whole``: there are no clients but these."""
        clients, told = counters["clients"], self._told
        self._told = clients
        if clients.keys() != told.keys():
            return {"counters": counters, "whole": True}
        changed = {name: counts for name, counts in clients.items() if counts != told[name]}
        return {"counters": {**counters, "clients": changed}, "whole": False}


def with_news(known: Counters | None, said: dict[str, Any]) -> Counters:
    """The counters of a worker after a line that :class:`News` has made. Raises: ValueError for any other line."""
    try:
        news: Counters = said["counters"]
        if not said["whole"]:
            news["clients"] = {**(known["clients"] if known is not None else {}), **news["clients"]}
    except (KeyError, TypeError) as err:
        raise ValueError(f"a line without {err}") from err
    return news
