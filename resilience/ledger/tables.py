"""What the ledger keeps, as tables.

A new ledger gets them as they stand here, an older one by migrations; a test compares the two.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
)
from sqlalchemy.dialects.mysql import LONGTEXT

from resilience.ledger.job import KEY_LENGTH

HEAD = "0005"
"""The schema that this version of the library reads and writes; schemas count up."""
VERSION_TABLE = "resilience_version"

KEY = Text().with_variant(String(KEY_LENGTH), "mysql", "mariadb")
LONG = Text().with_variant(LONGTEXT, "mysql", "mariadb")

OPTIONS: dict[str, Any] = {
    f"{dialect}_{name}": value
    for dialect in ("mysql", "mariadb")
    for name, value in {
        "engine": "InnoDB",
        "charset": "utf8mb4",
        "collate": "utf8mb4_nopad_bin",  # by default a key with capitals is the one without
    }.items()
}

METADATA = MetaData()

# As Alembic makes it, and apart from the others as it is Alembic's.
VERSION = Table(
    VERSION_TABLE,
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name=f"{VERSION_TABLE}_pkc"),
)

# All times are epoch seconds of the database's own clock; those of orders are fleet time.
JOBS = Table(
    "resilience_jobs",
    METADATA,
    Column("id", KEY, primary_key=True),
    Column("state", String(16), nullable=False),
    Column("dependency", KEY, nullable=False),
    Column("task", KEY, nullable=False),
    Column("queue", KEY, nullable=False),
    Column("message", LONG, nullable=False),  # JSON, as it was given
    Column("errors", LONG, nullable=False),  # one JSON object a line, oldest first
    Column("attempts", Integer, nullable=False),
    Column("dispatches", Integer, nullable=False),  # a fence: who has an older number is too late
    Column("created", Double, nullable=False),
    Column("born", Double, nullable=False),  # when the job was first published
    # When a relay must act: publish the job, or, if it is dispatched, publish it again because
    # the lease has run out. Null: never, it is dead.
    Column("due", Double),
    Column("owner", KEY),  # who has the lease
    Column("origin", KEY),  # id of the dead letter that this job is a replay of
    Column("died", Double),
    Column("reason", KEY),
    Column("fingerprint", String(32)),
    # A relay finds the jobs that may run without reading those that are held. The jobs of each
    # state lie together, so that counting can end at a limit.
    Index("resilience_jobs_place", "dependency", "queue", "state", "due"),
    **OPTIONS,
)
# Indexes of dead letters. They are partial, so that other jobs have no entries in them. With each
# filter the oldest letters are found at once, however many others there are.
for _name, _columns in {
    "died": ("died",),
    "cause": ("fingerprint", "died"),
    "dependency": ("dependency", "died"),
    "task": ("task", "died"),  # SQLite has no statistics, and prefers the last
}.items():
    Index(
        f"resilience_jobs_{_name}",
        *(JOBS.c[column] for column in _columns),
        postgresql_where=JOBS.c.died.is_not(None),
        sqlite_where=JOBS.c.died.is_not(None),
    )

AUDIT = Table(
    "resilience_audit",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("at", Double, nullable=False, index=True),
    Column("actor", KEY, nullable=False),
    Column("reason", LONG, nullable=False),
    Column("action", String(16), nullable=False),
    Column("job", KEY, nullable=False, index=True),
    Column("task", KEY, nullable=False),
    Column("replay", KEY, index=True),  # id of the job that a replay made
    **OPTIONS,
)

CLAIMS = Table(
    "resilience_claims",
    METADATA,
    Column("key", KEY, primary_key=True),
    Column("owner", KEY, nullable=False),
    Column("until", Double, nullable=False, index=True),  # end of the lease, or of the result
    Column("result", LONG),  # JSON; null while it runs
    **OPTIONS,
)

IDENTITY = Table(
    "resilience_identity",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=False),  # 1: there is one row
    Column("id", String(32), nullable=False),
    **OPTIONS,
)

ORDERS = Table(
    "resilience_orders",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("at", Double, nullable=False),
    Column("namespace", KEY, nullable=False),  # of the store in which it is in force
    Column("feature", KEY, nullable=False),  # or `brownout`
    Column("order", String(16), nullable=False),  # on, off, auto; the level of a brownout
    Column("until", Double, nullable=False),
    Column("actor", LONG, nullable=False),
    Column("reason", LONG, nullable=False),
    Column("version", BigInteger, nullable=False),
    Index("resilience_orders_once", "namespace", "feature", "version", unique=True),
    **OPTIONS,
)
