"""Requests and pages of a sync for tests, without a connection."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select

from mfa_core.audit import GENESIS
from mfa_core.offline import Moment
from mfa_core.secret import Secret
from mfa_runtime.administration.act import Act
from mfa_runtime.agent import cache
from mfa_runtime.agent.cache import Applied, Progress
from mfa_runtime.agent.snapshot import Expected, read_snapshot
from mfa_runtime.key_file import KeyEncryptionKeys
from mfa_runtime.protocol.reporting import JournalHead
from mfa_runtime.protocol.sealed import new_private_key, public_of
from mfa_runtime.protocol.syncing import Cursor, SyncRequest
from mfa_runtime.protocol.words import KeyProtection
from mfa_runtime.sealing import Keyring
from mfa_runtime.store import agent_state
from mfa_runtime.store.accounts import Account, load
from mfa_runtime.store.agent_state import AgentState
from mfa_runtime.store.database import Store
from mfa_runtime.store.key_table import load_keyring
from mfa_runtime.store.schema import credentials, users
from tests.doubles import KEK
from tests.runtime.agent.fake_authority import FakeAuthority


def sync_request(**values: Any) -> SyncRequest:
    """A request that has nothing yet."""
    usual: dict[str, Any] = {
        "nonce": bytes(16), "cursor": None, "seq": 0, "digest": "", "rules_digest": "", "wait_s": 0.0, "codes_until": 0.0,
        "journal": JournalHead(epoch=1, seq=0, hash=GENESIS), "key_protection": KeyProtection.FILE, "now": 0.0,
        "software": "test",
    }  # fmt: skip
    return SyncRequest(**(usual | values))


@dataclass
class Cache:
    """A store of an agent that pages are brought into by hand."""

    store: Store
    authority: FakeAuthority
    private: Secret = field(default_factory=new_private_key)

    def __post_init__(self) -> None:
        self.authority.hpke_public = public_of(self.private)
        signers = {self.authority.signer.key_id: self.authority.signer.public}
        with self.store.writing() as connection:
            agent_state.save(
                connection,
                AgentState(self.authority.host_id, "edge-1", self.authority.authority_id, ("https://localhost",), b"", signers),
            )

    @property
    def keyring(self) -> Keyring:
        with self.store.reading() as connection:
            return load_keyring(connection, KeyEncryptionKeys((KEK,)), random=os.urandom)

    @property
    def state(self) -> AgentState:
        with self.store.reading() as connection:
            found = agent_state.load(connection)
        assert found is not None
        return found

    def ask(self, page: str | None = None) -> SyncRequest:
        state = self.state
        cursor = None if state.cursor < 0 else Cursor(generation=state.generation, seq=state.cursor)
        with self.store.reading() as connection:
            ends = cache.codes_until(connection)
        return sync_request(nonce=os.urandom(16), cursor=cursor, seq=state.seq, page=page, codes_until=ends)

    def take(self, asked: SyncRequest, progress: Progress) -> tuple[Applied, str | None]:
        """One page; what it did, and the key of the next."""
        state, authority = self.state, self.authority
        body = authority.twist(authority.sync_answer(asked)).octets()
        wanted = Expected(state.host_id, state.authority_id, state.signers, asked.nonce, state.seq)
        snapshot = read_snapshot(body, authority.signer.sign(body), wanted, self.private)
        now = authority.clock()
        with self.store.writing() as connection:
            act = Act("test", now, os.urandom, self.keyring)
            applied = cache.apply(connection, snapshot, progress, Moment(now, 100.0, "boot"), act)
        return applied, snapshot.answer.page

    def sync(self) -> list[Applied]:
        """All pages."""
        progress, page, done = Progress(), None, []
        while True:
            applied, page = self.take(self.ask(page), progress)
            done.append(applied)
            if page is None:
                return done

    def account(self, name: str) -> Account | None:
        with self.store.reading() as connection:
            return load(connection, [name], self.keyring).get(name)

    def names(self) -> list[str]:
        with self.store.reading() as connection:
            return list(connection.execute(select(users.c.name).order_by(users.c.name)).scalars())

    def set_watermark(self, step: int) -> None:
        with self.store.writing() as connection:
            connection.execute(credentials.update().values(last_step=step))
