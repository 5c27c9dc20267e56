"""Orders about features and brownouts."""

import sqlalchemy as sa
from alembic import op

from resilience.ledger.migrations.versions.v0001_jobs import KEY, LONG, OPTIONS

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "resilience_orders",
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("namespace", KEY, nullable=False),
        sa.Column("feature", KEY, nullable=False),
        sa.Column("order", sa.String(16), nullable=False),
        sa.Column("until", sa.Double(), nullable=False),
        sa.Column("actor", LONG, nullable=False),
        sa.Column("reason", LONG, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Index("resilience_orders_once", "namespace", "feature", "version", unique=True),
        **OPTIONS,
    )
