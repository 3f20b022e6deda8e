"""One administrative act: who, when, with which keys and which randomness; and its line in the audit log.

Room rule: the only file of this package that builds audit events, so that every change is written down in one form.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import Connection

from mfa_core.audit import Administered
from mfa_core.secret import Secret
from mfa_runtime.event_id import new_event_id
from mfa_runtime.sealing import Keyring, Place, RandomBytes, UnknownKey
from mfa_runtime.store import audit_log, key_table

LOCAL_NODE = "local"
"""The audit chain of a store that has one machine."""


@dataclass(frozen=True, slots=True)
class Act:
    """Who changes something. ``now`` is Unix seconds; ``node`` names the audit chain of this machine."""

    actor: str
    now: float
    random: RandomBytes
    keyring: Keyring
    node: str = LOCAL_NODE
    told: list[str] = field(default_factory=list, compare=False, repr=False)
    """The canonical texts of what was recorded, for the sinks, once the transaction is committed."""

    def record(self, connection: Connection, action: str, subject: str = "", **details: str | float) -> str:
        """Append one event in the transaction of the change; return its id. ``details`` never hold a secret or a code."""
        event = Administered(new_event_id(self.now, self.random), self.now, self.actor, action, subject, details)
        self.told.extend(audit_log.append(connection, [event], node=self.node, keyring=self.keyring))
        return event.event_id

    def seal(self, connection: Connection, secret: Secret, place: Place) -> bytes:
        """Seal for a row that this transaction writes.

        Raises:
            UnknownKey: another data key seals by now: load the keys again. Under the old one the row would be lost when
                rotation drops that key.
        """
        self.check_keys(connection)
        return self.keyring.seal(secret, place)

    def check_keys(self, connection: Connection) -> None:
        """Refuse to seal with a keyring that rotation has overtaken.

        Raises:
            UnknownKey: as :meth:`seal` says.
        """
        current = key_table.sealing_key(connection)
        if current != self.keyring.current:
            raise UnknownKey(
                f"the store seals under data key {current}, and key {self.keyring.current} was loaded", cure="try again"
            )
