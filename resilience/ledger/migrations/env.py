"""What Alembic runs: the migrations, on the connection that it is handed."""

from alembic import context

from resilience.ledger.tables import METADATA, VERSION_TABLE

# A table of its own, so that it can share a database with an app that uses Alembic, too.
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    version_table=VERSION_TABLE,
)
with context.begin_transaction():
    context.run_migrations()
