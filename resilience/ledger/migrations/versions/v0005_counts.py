"""Index jobs by state, so that counting can end at a limit, and letters by the usual filters."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Recreate the index by place with the state before the time; create those for letters."""
    jobs = "resilience_jobs"
    # On MariaDB an upgrade that is interrupted keeps what it has done: it must be able to go on.
    op.drop_index("resilience_jobs_place", jobs, if_exists=True)
    op.create_index("resilience_jobs_place", jobs, ["dependency", "queue", "state", "due"])
    dead = sa.text("died IS NOT NULL")
    for name in ("dependency", "task"):
        op.create_index(
            f"resilience_jobs_{name}",
            jobs,
            [name, "died"],
            postgresql_where=dead,
            sqlite_where=dead,
            if_not_exists=True,
        )
    op.create_index(
        "ix_resilience_audit_replay", "resilience_audit", ["replay"], if_not_exists=True
    )
