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
    Column("version", BigInteger, nullable=False, server_default="0"),  # sync_clock at the last change that hosts must hear of
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
    Column("host_id", _Id, nullable=False, server_default="0"),  # the only host where it verifies; 0: everywhere
    Column("material", String(16), nullable=False, server_default="seed"),  # Material: what an agent holds of it
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

# -- an authority: who may log in where, and what its hosts have heard ------------------------------------------------------

memberships = Table(
    "memberships",
    metadata,
    Column("user_id", _Id, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("user_group", String(128), primary_key=True),
    Index("ix_memberships_user_group", "user_group", "user_id"),
    sqlite_with_rowid=False,
)

host_groups = Table(
    "host_groups",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("material", String(16), nullable=False),  # HostMaterial: seed, codebook, per_host
    Column("max_offline_s", Double, nullable=False),  # a lease lasts so long; 0: never offline
    Column("offline_after_s", Double, nullable=False),  # the authority must have been gone for so long before
    Column("offline_services", Text, nullable=False),  # JSON list of service names; ["*"]: all
    Column("key_protection", String(16), nullable=False),  # any, systemd-creds: who has less gets no material
    Column("created_at", Double, nullable=False),
)

# Which groups of users may log in on which group of hosts. user_group "*": everybody.
host_scope = Table(
    "host_scope",
    metadata,
    Column("host_group", String(128), ForeignKey("host_groups.name", ondelete="CASCADE"), primary_key=True),
    Column("user_group", String(128), primary_key=True),
    sqlite_with_rowid=False,
)

hosts = Table(
    "hosts",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("name", String(256), nullable=False, unique=True),
    Column("host_group", String(128), ForeignKey("host_groups.name"), nullable=False),
    Column("state", String(16), nullable=False),  # HostState: active, quarantined, revoked
    Column("certificate", LargeBinary, nullable=False),  # SHA-256 of the certificate that it may show
    Column("next_certificate", LargeBinary, nullable=False),  # renewed and not shown yet; b"": none
    Column("hpke_public", LargeBinary, nullable=False),
    Column("joined_at", Double, nullable=False),
    Column("last_seen", Double, nullable=False),  # to the minute
    Column("cursor", BigInteger, nullable=False),  # what it has said to have stored; -1: nothing; -2: released since
    Column("lease_until", Double, nullable=False),  # no lease that it holds ends later
    Column("journal_epoch", Integer, nullable=False),
    Column("journal_seq", BigInteger, nullable=False),  # the last event of its journal that is here
    Column("journal_hash", LargeBinary, nullable=False),
    Column("key_protection", String(16), nullable=False),
    Column("clock_offset_s", Double, nullable=False),
    Column("software", String(64), nullable=False),
    Column("address", String(64), nullable=False),
    Index("ix_hosts_certificate", "certificate"),
    Index("ix_hosts_next_certificate", "next_certificate"),
)

join_tokens = Table(
    "join_tokens",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary, nullable=False, unique=True),  # SHA-256: the token has 160 random bits
    Column("host_group", String(128), ForeignKey("host_groups.name", ondelete="CASCADE"), nullable=False),
    Column("host_name", String(256), nullable=False),  # "": whatever the host calls itself
    Column("not_after", Double, nullable=False),
    Column("created_by", String(256), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("used_at", Double, nullable=False),  # 0: not yet
)

# One row, and only where there is an authority: a change takes its number in the transaction that makes it, so that numbers
# appear in their order. A serial would let a reader pass by a smaller number that is committed later.
sync_clock = Table(
    "sync_clock",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
)

# Who must hear of a change: topics are group:NAME, group:* (everybody), hostgroup:NAME, host:ID and rules.
changes = Table(
    "changes",
    metadata,
    Column("topic", String(160), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("user_id", _Id, primary_key=True, autoincrement=False),  # 0: the topic itself
    Column("at", Double, nullable=False),
    Index("ix_changes_seq", "seq"),
    Index("ix_changes_at", "at"),
    sqlite_with_rowid=False,
)

# Which code was used where: the same step from two hosts is an alarm. Forgotten when no host can bring an older one.
otp_uses = Table(
    "otp_uses",
    metadata,
    Column("credential_id", _Id, primary_key=True, autoincrement=False),
    Column("step", BigInteger, primary_key=True, autoincrement=False),
    Column("host_id", _Id, nullable=False),  # 0: a door of the authority itself
    Column("event_id", String(32), nullable=False),
    Column("at", Double, nullable=False),
    Index("ix_otp_uses_at", "at"),
    sqlite_with_rowid=False,
)

alarms = Table(
    "alarms",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("at", Double, nullable=False),
    Column("kind", String(32), nullable=False),  # AlarmKind
    Column("host_id", _Id, nullable=False),
    Column("user_id", _Id, nullable=False),
    Column("details", Text, nullable=False),  # canonical JSON
    Column("seen_at", Double, nullable=False),  # 0: nobody has acknowledged it
)

# -- keys that sign, and keys that prove who we are: of an authority and of an agent -----------------------------------------

key_pairs = Table(
    "key_pairs",
    metadata,
    Column("name", String(32), primary_key=True),  # signing, ca, https; tls, hpke
    Column("private", LargeBinary, nullable=False),  # PKCS #8 or raw, sealed
    Column("public", LargeBinary, nullable=False),
    Column("certificate", LargeBinary, nullable=False),  # DER; b"": none
    Column("created_at", Double, nullable=False),
    Column("not_after", Double, nullable=False),  # 0: does not end
)

# -- an agent: what it was told, and what it did alone ------------------------------------------------------------------------

# One row.
agent_state = Table(
    "agent_state",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("host_id", _Id, nullable=False),
    Column("host_name", String(256), nullable=False),
    Column("authority_id", String(64), nullable=False),
    Column("authorities", Text, nullable=False),  # JSON list of URLs, as given when it joined
    Column("trust", LargeBinary, nullable=False),  # PEM: the CA of the authority
    Column("signers", Text, nullable=False),  # JSON: key id -> base64 of an Ed25519 public key
    Column("standing", String(16), nullable=False),  # joined, revoked, quarantined
    Column("generation", String(64), nullable=False),  # of the authority's store; with cursor: how far we are
    Column("cursor", BigInteger, nullable=False),  # -1: nothing yet
    Column("digest", String(64), nullable=False),
    Column("seq", BigInteger, nullable=False),  # of the last signed answer; they only rise
    Column("not_after", Double, nullable=False),  # the lease
    Column("floor", Double, nullable=False),  # no clock is right that says less
    Column("synced_at", Double, nullable=False),  # the authority's time in that answer
    Column("boot_id", String(64), nullable=False),
    Column("boottime_s", Double, nullable=False),  # CLOCK_BOOTTIME when it arrived
    Column("host", Text, nullable=False),  # JSON: HostTerms
    Column("rules", Text, nullable=False),  # JSON: the authority's rules
    Column("journal_epoch", Integer, nullable=False),
    Column("journal_seq", BigInteger, nullable=False),  # the last event that the authority has
    Column("trouble", Text, nullable=False),  # JSON: the last thing that went wrong with it, "" for nothing
)

codebooks = Table(
    "codebooks",
    metadata,
    Column("credential_id", _Id, ForeignKey("credentials.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("first_step", BigInteger, nullable=False),
    Column("codes", LargeBinary, nullable=False),  # sealed
)

offline_logins = Table(
    "offline_logins",
    metadata,
    Column("user_id", _Id, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("count", Integer, nullable=False),
    Column("since", Double, nullable=False),
)
