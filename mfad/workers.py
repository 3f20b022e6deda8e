"""Several processes for one door: start them, tell them what changes, start them again when they die.

Room rule: processes and pipes. The sockets are opened here, once, and handed down: a worker that is started again finds what
has come meanwhile. Workers share nothing but the store; a worker says that it is ready, and its counters, as lines of JSON.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mfa_core.errors import ConfigurationError
from mfa_core.model import Door
from mfad.inherited import Handed, Inherited
from mfad.worker import Counted, with_news

READY_S = 60.0
"""How long a worker may take to open the store and listen."""
STOP_S = 10.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
CANNOT_START = -1
STEADY_S = 60.0
"""A worker that ran so long is started again at once when it dies."""
MAX_LINE = 1 << 24
"""Octets of a worker's line: ten thousand clients make about 2 MB."""

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Worker:
    number: int
    sockets: Handed
    process: Process | None = None
    counters: Counted | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)


class Workers:
    """The workers of one door. ``sockets`` has one set for each; all are bound to the same addresses.

    ``patience_s`` is how long they may take to end.
    """

    def __init__(self, door: Door, config_file: Path, sockets: Sequence[Handed], *, patience_s: float = STOP_S) -> None:
        self._door = door
        self._name = f"{door.value.upper()} worker"
        self._config_file = config_file
        self._patience_s = patience_s
        self._workers = [_Worker(number, one) for number, one in enumerate(sockets)]
        self._keepers: list[asyncio.Task[None]] = []
        self._ended_early: asyncio.Future[int] | None = None
        self._stopping = False

    async def start(self) -> None:
        """Start all; return when each of them listens.

        Raises: ConfigurationError, when one of them does not; all are stopped then.
        """
        loop = asyncio.get_running_loop()
        self._ended_early = ended = loop.create_future()
        self._keepers = [loop.create_task(self._keep(worker)) for worker in self._workers]
        ready = loop.create_task(self._all_ready())
        await asyncio.wait({ready, ended}, timeout=READY_S, return_when=asyncio.FIRST_COMPLETED)
        self._ended_early = None
        if ready.done():
            return
        ready.cancel()
        await self.stop()
        what = f"ended with {ended.result()}" if ended.done() else f"was not ready within {READY_S:.0f} s"
        raise ConfigurationError(f"{_a(self._name)} {what}", cure="see what it said above")

    async def _all_ready(self) -> None:
        for worker in self._workers:
            await worker.ready.wait()

    def reload(self) -> None:
        """Let every worker read the configuration again; the caller has found it good."""
        for worker in self._workers:
            _send(worker, signal.SIGHUP)

    async def stop(self) -> None:
        """End all workers: they answer what is under way first. The sockets are closed."""
        self._stopping = True
        for worker in self._workers:
            _send(worker, signal.SIGTERM)
            for _, opened in worker.sockets:  # else the kernel would go on taking connections
                opened.close()
        if not self._keepers:
            return
        _, late = await asyncio.wait(self._keepers, timeout=self._patience_s)
        for worker in self._workers:
            _send(worker, signal.SIGKILL)
        for keeper in late:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)

    def counters(self) -> list[Counted]:
        """What each worker has counted, a second ago or less; nothing of those that are being started."""
        return [worker.counters for worker in self._workers if worker.counters is not None]

    async def _keep(self, worker: _Worker) -> None:
        pause = FIRST_PAUSE_S
        loop = asyncio.get_running_loop()
        while not self._stopping:
            began = loop.time()
            try:
                code = await self._run(worker)
            except OSError as err:  # no process or no pipe to be had: as one that has died
                log.error("%s %d cannot be started: %s", self._name, worker.number, err)
                code = CANNOT_START
            if self._stopping:
                return
            if self._ended_early is not None and not worker.ready.is_set():
                if not self._ended_early.done():
                    self._ended_early.set_result(code)
                return
            log.error("%s %d ended with %d; it is started again", self._name, worker.number, code)
            if loop.time() - began > STEADY_S:
                pause = FIRST_PAUSE_S
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _run(self, worker: _Worker) -> int:
        reading, writing = os.pipe()
        inherited = Inherited.of(self._door, writing, worker.sockets)
        try:
            worker.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "mfad", "--config", os.fspath(self._config_file), "--worker", inherited.written(),
                stdin=DEVNULL, pass_fds=inherited.descriptors,
            )  # fmt: skip
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        if self._stopping:  # it came to be while all others were told
            _send(worker, signal.SIGTERM)
        try:
            await self._listen_to(worker, reading)
            return await worker.process.wait()
        finally:
            worker.process, worker.counters = None, None

    async def _listen_to(self, worker: _Worker, reading: int) -> None:
        """Take its lines until it is gone."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=MAX_LINE)
        pipe = os.fdopen(reading, "rb", buffering=0)
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        try:
            while line := await reader.readline():
                said = json.loads(line)
                if said == {"ready": True}:
                    worker.ready.set()
                else:
                    worker.counters = with_news(worker.counters, said)
        except (ValueError, asyncio.LimitOverrunError) as err:
            log.error("%s %d says what cannot be read: %s", self._name, worker.number, err)
        finally:
            transport.close()


def _a(name: str) -> str:
    return f"an {name}" if name.startswith("LDAP") else f"a {name}"


def _send(worker: _Worker, number: int) -> None:
    if worker.process is not None and worker.process.returncode is None:
        try:
            worker.process.send_signal(number)
        except ProcessLookupError:
            return
