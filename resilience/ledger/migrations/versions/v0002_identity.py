"""An identity, by which processes tell their ledger from another."""

import uuid
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

OPTIONS: dict[str, Any] = {
    f"{dialect}_{name}": value
    for dialect in ("mysql", "mariadb")
    for name, value in {
        "engine": "InnoDB",
        "charset": "utf8mb4",
        "collate": "utf8mb4_nopad_bin",
    }.items()
}


def upgrade() -> None:
    """Make the table and its only row."""
    identity = op.create_table(
        "resilience_identity",
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("id", sa.String(32), nullable=False),
        **OPTIONS,
    )
    op.bulk_insert(identity, [{"number": 1, "id": uuid.uuid4().hex}])
