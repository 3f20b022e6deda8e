"""Authorities and agents: who may log in where, hosts, what they have heard, and what an agent holds"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def _number() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "agent_state",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("host_id", _number(), nullable=False),
        sa.Column("host_name", sa.String(length=256), nullable=False),
        sa.Column("authority_id", sa.String(length=64), nullable=False),
        sa.Column("authorities", sa.Text(), nullable=False),
        sa.Column("trust", sa.LargeBinary(), nullable=False),
        sa.Column("signers", sa.Text(), nullable=False),
        sa.Column("standing", sa.String(length=16), nullable=False),
        sa.Column("generation", sa.String(length=64), nullable=False),
        sa.Column("cursor", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("not_after", sa.Double(), nullable=False),
        sa.Column("floor", sa.Double(), nullable=False),
        sa.Column("synced_at", sa.Double(), nullable=False),
        sa.Column("boot_id", sa.String(length=64), nullable=False),
        sa.Column("boottime_s", sa.Double(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("rules", sa.Text(), nullable=False),
        sa.Column("journal_epoch", sa.Integer(), nullable=False),
        sa.Column("journal_seq", sa.BigInteger(), nullable=False),
        sa.Column("trouble", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "alarms",
        sa.Column("id", _number(), autoincrement=False, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("host_id", _number(), nullable=False),
        sa.Column("user_id", _number(), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "changes",
        sa.Column("topic", sa.String(length=160), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("user_id", _number(), autoincrement=False, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("topic", "seq", "user_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_changes_seq", "changes", ["seq"], unique=False)
    op.create_index("ix_changes_at", "changes", ["at"], unique=False)
    op.create_table(
        "host_groups",
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("material", sa.String(length=16), nullable=False),
        sa.Column("max_offline_s", sa.Double(), nullable=False),
        sa.Column("offline_after_s", sa.Double(), nullable=False),
        sa.Column("offline_services", sa.Text(), nullable=False),
        sa.Column("key_protection", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "key_pairs",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("private", sa.LargeBinary(), nullable=False),
        sa.Column("public", sa.LargeBinary(), nullable=False),
        sa.Column("certificate", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("not_after", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "otp_uses",
        sa.Column("credential_id", _number(), autoincrement=False, nullable=False),
        sa.Column("step", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("host_id", _number(), nullable=False),
        sa.Column("event_id", sa.String(length=32), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("credential_id", "step"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_otp_uses_at", "otp_uses", ["at"], unique=False)
    op.create_table(
        "sync_clock",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "host_scope",
        sa.Column("host_group", sa.String(length=128), nullable=False),
        sa.Column("user_group", sa.String(length=128), nullable=False),
        sa.ForeignKeyConstraint(["host_group"], ["host_groups.name"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("host_group", "user_group"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "hosts",
        sa.Column("id", _number(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(length=256), nullable=False),
        sa.Column("host_group", sa.String(length=128), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("certificate", sa.LargeBinary(), nullable=False),
        sa.Column("next_certificate", sa.LargeBinary(), nullable=False),
        sa.Column("hpke_public", sa.LargeBinary(), nullable=False),
        sa.Column("joined_at", sa.Double(), nullable=False),
        sa.Column("last_seen", sa.Double(), nullable=False),
        sa.Column("cursor", sa.BigInteger(), nullable=False),
        sa.Column("lease_until", sa.Double(), nullable=False),
        sa.Column("journal_epoch", sa.Integer(), nullable=False),
        sa.Column("journal_seq", sa.BigInteger(), nullable=False),
        sa.Column("journal_hash", sa.LargeBinary(), nullable=False),
        sa.Column("key_protection", sa.String(length=16), nullable=False),
        sa.Column("clock_offset_s", sa.Double(), nullable=False),
        sa.Column("software", sa.String(length=64), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["host_group"],
            ["host_groups.name"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    op.create_index("ix_hosts_certificate", "hosts", ["certificate"], unique=False)
    op.create_index("ix_hosts_next_certificate", "hosts", ["next_certificate"], unique=False)
    op.create_table(
        "join_tokens",
        sa.Column("id", _number(), autoincrement=False, nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("host_group", sa.String(length=128), nullable=False),
        sa.Column("host_name", sa.String(length=256), nullable=False),
        sa.Column("not_after", sa.Double(), nullable=False),
        sa.Column("created_by", sa.String(length=256), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("used_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["host_group"], ["host_groups.name"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("hash"),
    )
    op.create_table(
        "memberships",
        sa.Column("user_id", _number(), autoincrement=False, nullable=False),
        sa.Column("user_group", sa.String(length=128), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("user_id", "user_group"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_memberships_user_group", "memberships", ["user_group", "user_id"], unique=False)
    op.create_table(
        "offline_logins",
        sa.Column("user_id", _number(), autoincrement=False, nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("since", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("user_id"),
    )
    op.create_table(
        "codebooks",
        sa.Column("credential_id", _number(), autoincrement=False, nullable=False),
        sa.Column("first_step", sa.BigInteger(), nullable=False),
        sa.Column("codes", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["credential_id"], ["credentials.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("credential_id"),
    )
    op.add_column("credentials", sa.Column("host_id", _number(), server_default="0", nullable=False))
    op.add_column("credentials", sa.Column("material", sa.String(length=16), server_default="seed", nullable=False))
    op.add_column("users", sa.Column("version", sa.BigInteger(), server_default="0", nullable=False))
