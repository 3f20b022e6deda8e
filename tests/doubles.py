"""Stand-ins for the world around the core, and a small installation to try things on.

A store is migrated once a process and copied from then on; users are inserted in bulk. Nothing here patches a module: the
clock, the sink and the directory are arguments of the real parts.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from sqlalchemy import Connection, insert, select

from mfa_core.identity import IdentityRules
from mfa_core.model import (
    Attempt,
    Credential,
    CredentialState,
    Digest,
    Door,
    EnrolmentState,
    FactorKind,
    FirstFactor,
    Grammar,
    Interaction,
    Requirement,
)
from mfa_core.oath import code_at, step_at
from mfa_core.offline import Moment
from mfa_core.policy import Decision, Policy
from mfa_core.secret import Secret
from mfa_core.throttle import ThrottleRules
from mfa_core.verdict import Verdict
from mfa_core.verifier import Password, Settings
from mfa_runtime.administration.act import Act
from mfa_runtime.counsel import Counsel
from mfa_runtime.directory import NoGroups
from mfa_runtime.gate import Check, Checked
from mfa_runtime.key_file import KeyEncryptionKeys
from mfa_runtime.ledger import Ledger, Ruling
from mfa_runtime.primary import Primary, PrimaryUnavailable
from mfa_runtime.sealing import Keyring, Place
from mfa_runtime.sitting import Entry
from mfa_runtime.store import agent_state
from mfa_runtime.store.agent_state import AgentState
from mfa_runtime.store.creation import ensure_store
from mfa_runtime.store.database import STORE_FILE, Store, connect
from mfa_runtime.store.ids import take
from mfa_runtime.store.key_table import load_keyring
from mfa_runtime.store.schema import audit, credentials, one_time_codes, throttle, users
from mfa_runtime.verification import Enroller, Rules, Verification

T0 = 1_700_000_040.0
"""Where clocks start: the first second of a time step of 30 and of 60 s."""
NODE = "test"
KEK = Secret(bytes(range(32)))
SOURCE = "192.0.2.1"


class FakeClock:
    """Seconds that move when told to."""

    def __init__(self, now: float = T0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class RecordingSink:
    """Keeps the audit lines that it was given."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, lines: Sequence[str]) -> None:
        self.lines += lines


class ScriptedPrimary:
    """A first factor that knows passwords, counts how often it is asked, and can be down."""

    def __init__(self, **passwords: str) -> None:
        self.passwords = {name: text.encode() for name, text in passwords.items()}
        self.asked: list[str] = []
        self.down = False

    async def check(self, name: str, password: Secret, attempt: Attempt) -> bool:
        self.asked.append(name)
        if self.down:
            raise PrimaryUnavailable("the directory is away")
        return self.passwords.get(name) == password.reveal()


class DoorCheck:
    """What a door asks its directory: knows some passwords, keeps what it was asked, and tells at once unless ``held``."""

    def __init__(self, *passwords: str, held: bool = False) -> None:
        self.passwords = {text.encode() for text in passwords}
        self.asked: list[bytes] = []
        self.held = held
        self.waiting: list[tuple[Checked, Password]] = []
        self.reached = asyncio.Event()

    def __call__(self, password: Secret, tell: Checked) -> None:
        self.asked.append(password.reveal())
        self.reached.set()
        outcome = Password.GOOD if password.reveal() in self.passwords else Password.BAD
        if self.held:
            self.waiting.append((tell, outcome))
        else:
            tell(outcome)

    def tell_all(self) -> None:
        """Tell what was held."""
        waiting, self.waiting = self.waiting, []
        for tell, outcome in waiting:
            tell(outcome)


@dataclass(frozen=True, slots=True)
class Person:
    """A user to put into a store, with one credential unless ``kind`` is None. The secret follows from the name."""

    name: str
    kind: FactorKind | None = FactorKind.TOTP
    credential_state: CredentialState = CredentialState.ACTIVE
    digest: Digest = Digest.SHA1
    digits: int = 6
    period_s: int = 30
    last_step: int = -1
    drift_steps: int = 0
    state: EnrolmentState = EnrolmentState.ACTIVE
    requirement: Requirement = Requirement.INHERIT
    grace_until: float = 0.0
    locked: bool = False

    @property
    def secret(self) -> bytes:
        return hashlib.sha1(self.name.encode()).digest()

    @property
    def credential(self) -> Credential:
        """The credential as the core sees it; its id is not the store's."""
        if self.kind is None:
            raise ValueError(f"{self.name} has no credential")
        period_s = 0 if self.kind is FactorKind.HOTP else self.period_s
        return Credential(
            1, self.kind, self.credential_state, Secret(self.secret), self.digest, self.digits, period_s, self.last_step,
            self.drift_steps,
        )  # fmt: skip

    def code(self, now: float, offset: int = 0) -> str:
        """The TOTP code at ``now``, ``offset`` steps away."""
        return code_at(self.credential, step_at(now, self.period_s) + offset)

    def code_number(self, counter: int) -> str:
        """The code of a counter."""
        return code_at(self.credential, counter)


ALICE = Person("alice")
BOB = Person("bob")


def wrong(*good: str) -> str:
    """A code of the same length that is none of ``good``."""
    return next(text for text in (f"{n:0{len(good[0])}d}" for n in range(len(good) + 1)) if text not in good)


_event_numbers = itertools.count(1)


def attempt(
    username: str = "alice",
    typed: str | bytes | None = None,
    *,
    source: str | None = SOURCE,
    first_factor: FirstFactor = FirstFactor.ELSEWHERE,
    interaction: Interaction = Interaction.PROMPTS,
    grammar: Grammar | None = None,
    service: str = "sshd",
    client: str = "tty1",
    challenge_id: str = "",
    door: Door = Door.PAM,
) -> Attempt:
    """An attempt as a door would make it, with an event id of its own."""
    raw = typed.encode() if isinstance(typed, str) else typed
    return Attempt(
        event_id=f"event-{next(_event_numbers)}",
        door=door,
        service=service,
        username=username,
        source=source,
        typed=None if raw is None else Secret(raw),
        first_factor=first_factor,
        interaction=interaction,
        client=client,
        challenge_id=challenge_id,
        grammar=grammar or Grammar(),
    )


@functools.cache
def _template() -> bytes:
    """A migrated store with keys and no users, as bytes."""
    directory = Path(tempfile.mkdtemp(prefix="mfad-template-"))
    mask = os.umask(0o077)
    try:
        store, _ = ensure_store(directory, KeyEncryptionKeys((KEK,)), now=T0, random=os.urandom)
        store.checkpoint()
        store.close()
        return (directory / STORE_FILE).read_bytes()
    finally:
        os.umask(mask)
        shutil.rmtree(directory)


def new_store(directory: Path) -> Store:
    """A store without users in ``directory``, sealed under :data:`KEK`."""
    path = directory / STORE_FILE
    path.write_bytes(_template())
    path.chmod(0o600)
    return connect(path)


def add_people(connection: Connection, people: Iterable[Person], keyring: Keyring) -> None:
    """Insert people and their credentials."""
    people = list(people)
    first_user = take(connection, "users", len(people))
    with_credential = [(first_user + at, one) for at, one in enumerate(people) if one.kind is not None]
    first_credential = take(connection, "credentials", len(with_credential)) if with_credential else 0
    connection.execute(
        insert(users),
        [
            {
                "id": first_user + at, "name": one.name, "state": one.state.value, "requirement": one.requirement.value,
                "grace_until": one.grace_until, "locked": one.locked, "created_at": T0,
            }
            for at, one in enumerate(people)
        ],
    )  # fmt: skip
    if not with_credential:
        return
    connection.execute(
        insert(credentials),
        [
            {
                "id": number, "user_id": user_id, "kind": one.credential.kind.value, "state": one.credential_state.value,
                "digest": one.digest.value, "digits": one.digits, "period_s": one.credential.period_s,
                "last_step": one.last_step, "drift_steps": one.drift_steps, "resync_step": -1,
                "secret": keyring.seal(Secret(one.secret), Place("credentials", "secret", number, user_id)),
                "secret_tag": b"", "label": "", "created_at": T0, "verified_at": T0, "last_used_at": 0.0, "expires_at": 0.0,
            }
            for number, (user_id, one) in enumerate(with_credential, start=first_credential)
        ],
    )  # fmt: skip


def default_policy(**decision: object) -> Policy:
    """A policy whose default rule has these effects."""
    return Policy((), replace(Policy().default, **decision))  # type: ignore[arg-type]


@dataclass(slots=True)
class Installation:
    """A store with people in it, and the parts that verify against it."""

    store: Store
    clock: FakeClock = field(default_factory=FakeClock)
    sink: RecordingSink = field(default_factory=RecordingSink)
    policy: Policy = field(default_factory=Policy)
    settings: Settings = field(default_factory=Settings)
    primary: Primary | None = None
    enroller: Enroller | None = None
    counsel: Counsel | None = None
    moment: Callable[[float], Moment] | None = None
    records_uses: bool = False
    capacity: int = 10_000
    node: str = NODE
    _ledgers: list[Ledger] = field(default_factory=list)

    def keyring(self) -> Keyring:
        """The keys as they stand in the store."""
        with self.store.reading() as connection:
            return load_keyring(connection, KeyEncryptionKeys((KEK,)), random=os.urandom)

    def ledger(self) -> Ledger:
        made = Ledger(
            self.store, keyring=self.keyring(), reload_keyring=self.keyring, node=self.node, clock=self.clock, sink=self.sink,
            moment=self.moment, records_uses=self.records_uses,
        )  # fmt: skip
        self._ledgers.append(made)
        return made

    def act(self, actor: str = "tester") -> Act:
        return Act(actor, self.clock(), os.urandom, self.keyring(), NODE)

    def process(self, ledger: Ledger, *attempts: Attempt, decision: Decision | None = None) -> list[Ruling]:
        """Judge attempts of codes alone as one batch, as the gate would hand them over."""
        chosen = decision or self.policy.default.decision()
        return ledger.process([Entry(one, one.username, chosen, self.settings) for one in attempts])

    @asynccontextmanager
    async def gate(self, ledger: Ledger | None = None) -> AsyncIterator[Verification]:
        """A running gate."""
        verification = Verification(
            store=self.store,
            ledger=ledger or self.ledger(),
            rules=Rules(IdentityRules(), self.policy, self.settings),
            groups=NoGroups(),
            clock=self.clock,
            capacity=self.capacity,
            primaries={} if self.primary is None else dict.fromkeys(Door, self.primary),
            enroller=self.enroller,
            counsel=self.counsel,
        )
        verification.start()
        try:
            yield verification
        finally:
            await verification.stop()

    def decide(self, *attempts: Attempt) -> list[Verdict]:
        """The verdicts on attempts that arrive together, from a gate that is started and stopped for it."""

        async def decided() -> list[Verdict]:
            async with self.gate() as gate:
                return list(await asyncio.gather(*(gate.decide(one) for one in attempts)))

        return asyncio.run(decided())

    def ask(self, *attempts: Attempt) -> list[Verdict]:
        """As :meth:`decide`, through the call of doors that keep no task for a request."""

        async def decided() -> list[Verdict]:
            async with self.gate() as gate:
                answers = [asyncio.get_running_loop().create_future() for _ in attempts]
                for one, future in zip(attempts, answers, strict=True):
                    gate.ask(one, future.set_result)
                return list(await asyncio.gather(*answers))

        return asyncio.run(decided())

    def ask_with(self, check: Check, *attempts: Attempt) -> list[Verdict]:
        """As :meth:`ask`, for doors that have the password checked themselves."""

        async def decided() -> list[Verdict]:
            async with self.gate() as gate:
                answers = [asyncio.get_running_loop().create_future() for _ in attempts]
                for one, future in zip(attempts, answers, strict=True):
                    gate.ask_with(one, check, future.set_result)
                return list(await asyncio.gather(*answers))

        return asyncio.run(decided())

    def in_order(self, *attempts: Attempt | Callable[[], Attempt]) -> list[Verdict]:
        """The verdicts on attempts that arrive one after another."""

        async def decided() -> list[Verdict]:
            async with self.gate() as gate:
                return [await gate.decide(one() if callable(one) else one) for one in attempts]

        return asyncio.run(decided())

    def rows(self, table: str) -> list[dict[str, object]]:
        """All rows of a table, in the order of its key."""
        chosen = {t.name: t for t in (users, credentials, one_time_codes, throttle, audit)}[table]
        with self.store.reading() as connection:
            return [dict(row._mapping) for row in connection.execute(select(chosen).order_by(*chosen.primary_key.columns))]

    def credential_of(self, name: str) -> dict[str, object]:
        """The row of a person's first credential."""
        owner = next(row["id"] for row in self.rows("users") if row["name"] == name)
        return next(row for row in self.rows("credentials") if row["user_id"] == owner)

    def close(self) -> None:
        for ledger in self._ledgers:
            ledger._session.close()
        self.store.close()


def install(directory: Path, *people: Person, **parts: object) -> Installation:
    """An installation in ``directory`` with these people (alice and bob if none are named)."""
    installation = Installation(new_store(directory), **parts)  # type: ignore[arg-type]
    keyring = installation.keyring()
    with installation.store.writing() as connection:
        add_people(connection, people or (ALICE, BOB), keyring)
    return installation


BOOT = "boot-a"


def agent_state_row(**fields: object) -> AgentState:
    """A host that has synced at T0, may decide alone for a day, at once and for every service."""
    terms = {
        "host_group": "servers", "material": "seed", "max_offline_s": 86_400.0, "offline_after_s": 0.0,
        "offline_services": ["*"], "key_protection": "any",
    }  # fmt: skip
    values: dict[str, object] = {
        "host_id": 5, "host_name": "web1", "authority_id": "a1", "authorities": (), "trust": b"", "signers": {},
        "cursor": 1, "not_after": T0 + 86_400, "floor": T0, "synced_at": T0, "boot_id": BOOT, "boottime_s": 100.0,
        "host": json.dumps(terms | {k: fields.pop(k) for k in list(fields) if k in terms}),
    }  # fmt: skip
    return AgentState(**(values | fields))  # type: ignore[arg-type]


def as_agent(installation: Installation, **fields: object) -> Installation:
    """The same installation, on a host that has an authority: see :func:`agent_state_row`. Its clock was never set."""
    installation.moment = lambda now: Moment(now, 100.0 + now - T0, BOOT)
    with installation.store.writing() as connection:
        agent_state.save(connection, agent_state_row(**fields))
    return installation


NO_WAITING = Settings(throttle=ThrottleRules(free=1_000_000, hard_cap=1_000_000, source_free=1_000_000))
"""For tests about something else than the throttle."""
