"""Jobs, audit, claims."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.mysql import LONGTEXT

revision = "0001"
down_revision = None

KEY = sa.Text().with_variant(sa.String(255), "mysql", "mariadb")
LONG = sa.Text().with_variant(LONGTEXT(), "mysql", "mariadb")
OPTIONS: dict[str, Any] = {
    f"{dialect}_{name}": value
    for dialect in ("mysql", "mariadb")
    for name, value in {
        "engine": "InnoDB",
        "charset": "utf8mb4",
        "collate": "utf8mb4_nopad_bin",  # by default a key with capitals is the one without
    }.items()
}


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "resilience_jobs",
        sa.Column("id", KEY, primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("dependency", KEY, nullable=False),
        sa.Column("task", KEY, nullable=False),
        sa.Column("queue", KEY, nullable=False),
        sa.Column("message", LONG, nullable=False),
        sa.Column("errors", LONG, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("dispatches", sa.Integer(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("born", sa.Double(), nullable=False),
        sa.Column("due", sa.Double()),
        sa.Column("owner", KEY),
        sa.Column("origin", KEY),
        sa.Column("died", sa.Double()),
        sa.Column("reason", KEY),
        sa.Column("fingerprint", sa.String(32)),
        **OPTIONS,
    )
    op.create_index("resilience_jobs_due", "resilience_jobs", ["due", "dependency", "state"])
    dead = sa.text("died IS NOT NULL")
    for name, columns in {"died": ["died"], "cause": ["fingerprint", "died"]}.items():
        op.create_index(
            f"resilience_jobs_{name}",
            "resilience_jobs",
            columns,
            postgresql_where=dead,
            sqlite_where=dead,
        )
    op.create_table(
        "resilience_audit",
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("actor", KEY, nullable=False),
        sa.Column("reason", LONG, nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("job", KEY, nullable=False),
        sa.Column("task", KEY, nullable=False),
        sa.Column("replay", KEY),
        **OPTIONS,
    )
    op.create_index("ix_resilience_audit_at", "resilience_audit", ["at"])
    op.create_index("ix_resilience_audit_job", "resilience_audit", ["job"])
    op.create_table(
        "resilience_claims",
        sa.Column("key", KEY, primary_key=True),
        sa.Column("owner", KEY, nullable=False),
        sa.Column("until", sa.Double(), nullable=False),
        sa.Column("result", LONG),
        **OPTIONS,
    )
    op.create_index("ix_resilience_claims_until", "resilience_claims", ["until"])
