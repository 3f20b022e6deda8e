"""What the store holds: every table, once, for SQLite and PostgreSQL alike.

Room rule: table definitions and nothing else. Times are Unix seconds (double precision, UTC by definition). ``sealed`` columns
hold the format of :mod:`mfa_runtime.sealing`. Migrations under ``migrations/`` bring an existing store here, and a test
holds the two against each other.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

# SQLite gives a 64-bit rowid only to a column that says INTEGER.
_Id = BigInteger().with_variant(Integer, "sqlite")

users = Table(
    "users",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("name", String(256), nullable=False, unique=True),  # canonical: mfa_core.identity
    Column("state", String(16), nullable=False),  # EnrolmentState
    Column("requirement", String(16), nullable=False),  # Requirement
    Column("grace_until", Double, nullable=False),  # 0: no grace
    Column("locked", Boolean(create_constraint=False), nullable=False),
    Column("created_at", Double, nullable=False),
)

credentials = Table(
    "credentials",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("user_id", _Id, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("kind", String(16), nullable=False),  # FactorKind: totp, hotp
    Column("state", String(16), nullable=False),  # CredentialState
    Column("digest", String(8), nullable=False),
    Column("digits", Integer, nullable=False),
    Column("period_s", Integer, nullable=False),  # 0 for hotp
    Column("last_step", BigInteger, nullable=False),  # the watermark: highest spent step or counter, -1: none
    Column("drift_steps", Integer, nullable=False),
    Column("resync_step", BigInteger, nullable=False),  # a good code outside the window, -1: none
    Column("secret", LargeBinary, nullable=False),  # sealed
    Column("secret_tag", LargeBinary, nullable=False),  # keyed tag: makes imports idempotent
    Column("label", String(128), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("verified_at", Double, nullable=False),  # 0: no code verified yet
    Column("last_used_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),  # end of PENDING; 0: does not expire
    # The first lane of its user, as long as that has no row in throttle: a login from there writes this row anyway.
    Column("known_source", String(256), nullable=False, server_default=""),  # "": none
    Column("known_at", Double, nullable=False, server_default="0"),  # the last success from there
    Column("known_scope", String(128), nullable=False, server_default=""),  # its host group
    Index("ix_credentials_user_id", "user_id"),
)

one_time_codes = Table(
    "one_time_codes",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("user_id", _Id, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("kind", String(16), nullable=False),  # FactorKind: recovery, recovery_key, bypass
    Column("position", Integer, nullable=False),  # the number printed before a recovery code; 0 otherwise
    Column("hash", Text, nullable=False),  # mfa_runtime.one_time_hash
    Column("uses_left", Integer, nullable=False),
    Column("not_after", Double, nullable=False),  # 0: does not expire
    Column("created_at", Double, nullable=False),
    Column("used_at", Double, nullable=False),  # 0: never
    Column("reason", Text, nullable=False),
    Column("approver", String(256), nullable=False),
    UniqueConstraint("user_id", "kind", "position", name="uq_one_time_codes"),
)

# The passwords of `primary: local`, for installations without a directory.
passwords = Table(
    "passwords",
    metadata,
    Column("user_id", _Id, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("hash", Text, nullable=False),  # argon2id, sealed
    Column("changed_at", Double, nullable=False),
)

# Challenges that a client carries (RADIUS State) and that were answered: each may be answered once. Forgotten after their end.
spent_challenges = Table(
    "spent_challenges",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("expires_at", Double, nullable=False),
    sqlite_with_rowid=False,
)

# One row for each account, each known (account, source) lane and each source that has something to remember. Of a lane that
# has a row, no credential's known_* counts.
throttle = Table(
    "throttle",
    metadata,
    Column("key", String(700), primary_key=True),
    Column("failures", Integer, nullable=False),  # in this lane since its last success
    Column("consecutive", Integer, nullable=False),  # of the account, over all lanes (NIST hard cap)
    Column("not_before", Double, nullable=False),  # refused without evaluation until then
    Column("last_failure_at", Double, nullable=False),
    Column("last_success_at", Double, nullable=False),
    Column("last_tag", LargeBinary, nullable=False),  # keyed tag of the last wrong code and its client
    Column("scope", String(128), nullable=False),  # host group of the last success: trust windows
    sqlite_with_rowid=False,
)

keys = Table(
    "keys",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("purpose", String(16), nullable=False),  # data, pepper, audit
    Column("state", String(16), nullable=False),  # active, retired (opens, does not seal)
    Column("wrapped", LargeBinary, nullable=False),
    Column("kek_id", String(16), nullable=False),
    Column("created_at", Double, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("node", String(64), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("event_id", String(32), nullable=False),
    Column("at", Double, nullable=False),
    Column("body", Text, nullable=False),  # canonical JSON of the event
    Column("hash", LargeBinary, nullable=False),  # SHA-256(previous hash, body)
    Index("ix_audit_event_id", "event_id"),
    sqlite_with_rowid=False,
)

audit_head = Table(
    "audit_head",
    metadata,
    Column("node", String(64), primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("mac", LargeBinary, nullable=False),  # under a key of the keyring: the tail cannot be cut unseen
)

counters = Table(
    "counters",
    metadata,
    Column("name", String(32), primary_key=True),  # users, credentials, one_time_codes
    Column("next", BigInteger, nullable=False),
)

meta = Table(
    "meta",
    metadata,
    Column("name", String(32), primary_key=True),  # store_id, generation, created_at
    Column("value", Text, nullable=False),
)
