"""A process of its own that spends codes of one store: ``python -m tests.runtime.racer STATE_DIR MODE CODES``.

``steps``: alice's codes one after another, on a clock that moves by one step each. ``people``: one code of each of person0,
person1 ... all at once. It waits for a line on stdin before it begins, and prints the numbers of the codes it got in with.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from mfa_core.verdict import Accepted, Rejected
from mfa_runtime.store.database import STORE_FILE, connect
from tests.doubles import ALICE, NO_WAITING, T0, Installation, Person, attempt


async def spend_steps(installation: Installation, count: int) -> list[int]:
    """The codes that were accepted here."""
    won = []
    async with installation.gate() as gate:
        for number in range(count):
            verdict = await gate.decide(attempt("alice", ALICE.code(installation.clock())))
            if isinstance(verdict, Accepted):
                won.append(number)
            elif not isinstance(verdict, Rejected):
                raise TypeError(f"{verdict}")
            installation.clock.advance(30)
    return won


async def spend_people(installation: Installation, count: int) -> list[int]:
    """The people who were let in here."""
    people = [Person(f"person{number}") for number in range(count)]
    async with installation.gate() as gate:
        verdicts = await asyncio.gather(*(gate.decide(attempt(one.name, one.code(T0))) for one in people))
    return [number for number, verdict in enumerate(verdicts) if isinstance(verdict, Accepted)]


def main() -> None:
    """See the module."""
    directory, mode, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    installation = Installation(connect(directory / STORE_FILE), settings=NO_WAITING)
    spending = spend_steps if mode == "steps" else spend_people
    print("here", flush=True)
    sys.stdin.readline()
    print(json.dumps(asyncio.run(spending(installation, count))), flush=True)
    installation.close()


if __name__ == "__main__":
    main()
