"""A process of its own that spends codes of one store: ``python -m tests.runtime.racer STATE_DIR MODE CODES [URL NODE]``.

``steps``: alice's codes one after another, on a clock that moves by one step each. ``people``: one code of each of person0,
person1 ... all at once. It waits for a line on stdin before it begins, and prints the numbers of the codes it got in with.
``each``: a code of each of person0, person1 ... one after another, whatever becomes of it; a line for each that was accepted,
so that what was told before a kill is known. ``URL`` is a database, for which this process writes the audit chain ``NODE``.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from mfa_core.verdict import Accepted, Rejected
from mfa_runtime.store.opening import open_store
from mfa_runtime.store.place import StorePlace
from tests.doubles import ALICE, NO_WAITING, NODE, T0, Installation, Person, attempt


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


async def spend_each(installation: Installation, count: int) -> list[int]:
    """The people who were let in here; each is said as soon as it is known."""
    won = []
    async with installation.gate() as gate:
        for number in range(count):
            person = Person(f"person{number}")
            if isinstance(await gate.decide(attempt(person.name, person.code(T0))), Accepted):
                print(number, flush=True)
                won.append(number)
    return won


def main() -> None:
    """See the module."""
    directory, mode, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    url, node = sys.argv[4:] or ("", NODE)
    installation = Installation(open_store(StorePlace(directory, url)), settings=NO_WAITING, node=node)
    spending = {"steps": spend_steps, "people": spend_people, "each": spend_each}[mode]
    print("here", flush=True)
    sys.stdin.readline()
    print(json.dumps(asyncio.run(spending(installation, count))), flush=True)
    installation.close()


if __name__ == "__main__":
    main()
