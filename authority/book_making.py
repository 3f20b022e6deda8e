"""Codes by the million, made in a process of their own: logins are answered meanwhile.

Room rule: one child (:mod:`authority.book_press`) and the pipe to it; which codes are wanted stands in :mod:`authority.books`.
In a thread this would hold up every login of the process, by some milliseconds each time that it runs.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from typing import Final

from authority import book_press
from authority.book_press import LENGTH, written
from authority.books import Lack
from mfa_core import codebook
from mfa_core.errors import MfaError
from mfa_core.secret import Secret

CHUNK_CODES: Final = 20_000
"""Codes of one job, about: whoever comes next waits for no more."""
IDLE_S: Final = 10.0
JOB_S: Final = 60.0
"""A job takes a tenth of a second; on a machine that has come to a stand, longer."""

log = logging.getLogger(__name__)


class NoChild(MfaError):
    """The process that makes codes cannot be had, or went away."""


class BookMaker:
    """Makes codes. Lives on one loop. ``nice`` is how much its child stands back behind logins: 0 where a host waits."""

    def __init__(self, *, nice: int = 0) -> None:
        self._nice = nice
        self._turn = asyncio.Lock()
        self._child: Process | None = None
        self._rest: asyncio.TimerHandle | None = None
        self.made = 0
        """Codes, since the start."""

    async def make(self, lacks: Sequence[Lack]) -> list[Secret]:
        """The codes that these books lack, in their order."""
        made: list[Secret] = []
        for some in _chunks(lacks):
            async with self._turn:
                made += await self._one_job(some)
        return made

    async def stop(self) -> None:
        """End the child."""
        async with self._turn:
            await self._end()

    async def _one_job(self, lacks: Sequence[Lack]) -> list[Secret]:
        if self._rest is not None:
            self._rest.cancel()
        try:
            octets = await self._asked(_job(lacks))
        except NoChild as err:
            log.warning("books of codes are made beside logins: %s; %s", err, err.cure)
            octets = await asyncio.get_running_loop().run_in_executor(None, _packed, lacks)
        except BaseException:
            await self._end()  # an answer that nobody waits for would be taken for the next one's
            raise
        self._rest = asyncio.get_running_loop().call_later(IDLE_S, self._let_go)
        found, at = [], 0
        for one in lacks:
            size = one.count * codebook.width(one.credential.digits)
            found.append(Secret(octets[at : at + size]))
            at += size
            self.made += one.count
        return found

    async def _asked(self, job: bytes) -> bytes:
        try:
            if self._child is None or self._child.returncode is not None:
                self._child = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", book_press.__name__, str(self._nice), stdin=PIPE, stdout=PIPE, cwd="/"
                )
            into, out = self._child.stdin, self._child.stdout
            assert into is not None  # noqa: S101  both are pipes
            assert out is not None  # noqa: S101  as above
            async with asyncio.timeout(JOB_S):
                into.write(LENGTH.pack(len(job)) + job)
                await into.drain()
                (size,) = LENGTH.unpack(await out.readexactly(LENGTH.size))
                return await out.readexactly(size)
        except (OSError, asyncio.IncompleteReadError) as err:  # TimeoutError is an OSError
            await self._end()
            raise NoChild(
                f"the process that makes codes is gone: {type(err).__name__}", cure="see TasksMax and memory of mfad"
            ) from None

    def _let_go(self) -> None:
        if self._child is not None and self._child.stdin is not None and not self._turn.locked():
            self._child.stdin.close()  # it ends by itself
            self._child = None

    async def _end(self) -> None:
        child, self._child = self._child, None
        if self._rest is not None:
            self._rest.cancel()
        if child is None:
            return
        if child.returncode is None:
            child.kill()
        await child.wait()


def _chunks(lacks: Sequence[Lack]) -> list[list[Lack]]:
    chunks: list[list[Lack]] = []
    room = 0
    for one in lacks:
        if not chunks or one.count > room:
            chunks.append([])
            room = CHUNK_CODES
        chunks[-1].append(one)
        room -= one.count
    return chunks


def _packed(lacks: Sequence[Lack]) -> bytes:
    return b"".join(codebook.pack(one.credential, one.begin, one.count) for one in lacks)


def _job(lacks: Sequence[Lack]) -> bytes:
    return written((one.credential, one.begin, one.count) for one in lacks)
