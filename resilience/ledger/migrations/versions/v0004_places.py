"""Due jobs by dependency and queue, so that what is held costs nothing to pass."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the index in place of the one by time alone."""
    columns = ["dependency", "queue", "due", "state"]
    op.create_index("resilience_jobs_place", "resilience_jobs", columns)
    op.drop_index("resilience_jobs_due", "resilience_jobs")
