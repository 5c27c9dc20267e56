"""Index due jobs by dependency and queue, so that relays skip what is held at no cost."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create the index, and drop the one by time alone."""
    columns = ["dependency", "queue", "due", "state"]
    # On MariaDB an upgrade that is interrupted keeps what it has done: it must be able to go on.
    op.create_index("resilience_jobs_place", "resilience_jobs", columns, if_not_exists=True)
    op.drop_index("resilience_jobs_due", "resilience_jobs", if_exists=True)
