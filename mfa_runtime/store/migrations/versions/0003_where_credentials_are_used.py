"""The source that a credential was used from, in its own row: most people come from one"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("credentials", sa.Column("known_source", sa.String(length=256), nullable=False, server_default=""))
    op.add_column("credentials", sa.Column("known_at", sa.Double(), nullable=False, server_default="0"))
    op.add_column("credentials", sa.Column("known_scope", sa.String(length=128), nullable=False, server_default=""))
