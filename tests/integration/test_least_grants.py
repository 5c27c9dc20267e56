"""The grants that SECURITY.md recommends for the ledger: enough for all work, and no more."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

import psycopg
import pymysql
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from resilience.errors import LedgerUnavailableError, SchemaError
from resilience.flags.document import Order
from resilience.ledger import Ledger, Which
from resilience.ledger.engines import read_url
from resilience.testing.mariadb import DATABASE, MariaDbProcess
from resilience.testing.postgres import PostgresProcess
from tests.conformance.ledger_jobs import LEASE_SECONDS, failure, job, take
from tests.rights import statements

ROLES = ("ledger_owner", "ledger_app")
BY = {"actor": "ann", "reason": "#471"}
REFUSED = (
    "CREATE TABLE other (id INT)",
    "DROP TABLE resilience_jobs",
    "ALTER TABLE resilience_jobs ADD COLUMN more INT",
    "TRUNCATE TABLE resilience_audit",
    "CREATE INDEX more ON resilience_jobs (id)",
)


@dataclass(frozen=True)
class Roles:
    """The addresses of an empty database for the two roles."""

    owner: str
    app: str


def _urls(url: str, user: str) -> Roles:
    owner, app = (url.replace(f"//{user}@", f"//{role}:{role[7:]}-secret@") for role in ROLES)
    return Roles(owner, app)


@pytest.fixture
def on_postgres(request: pytest.FixtureRequest) -> Iterator[Roles]:
    """A schema of its own, with the roles that the page recommends."""
    server: PostgresProcess = request.getfixturevalue("postgres")
    url = server.emptied()
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements("postgresql"):
            connection.execute(statement.encode())
        yield _urls(url, "postgres")
        for role in ROLES:
            connection.execute(f"DROP OWNED BY {role} CASCADE".encode())
            connection.execute(f"DROP ROLE {role}".encode())


@pytest.fixture
def on_mariadb(request: pytest.FixtureRequest) -> Iterator[Roles]:
    """A database of its own, with the users that the page recommends."""
    server: MariaDbProcess = request.getfixturevalue("mariadb")
    with (
        pymysql.connect(host="127.0.0.1", port=server.port, user="root") as connection,
        connection.cursor() as cursor,
    ):
        for statement in statements("mariadb"):
            cursor.execute(statement)
        yield _urls(server.url.replace(f"/{DATABASE}", "/ledger"), "root")
        for role in ROLES:
            cursor.execute(f"DROP USER {role}")
        cursor.execute("DROP DATABASE ledger")


@pytest.fixture(params=["on_postgres", "on_mariadb"])
def roles(request: pytest.FixtureRequest) -> Roles:
    """Both servers."""
    found: Roles = request.getfixturevalue(request.param)
    return found


def new_ids() -> Callable[[], str]:
    """Return a maker of ids."""
    numbers = count()
    return lambda: f"new-{next(numbers)}"


def use(ledger: Ledger) -> None:
    """Do all that workers, publishers, relays and operators do with a ledger."""
    assert ledger.identity().id
    ledger.add([job(name) for name in ("a", "b", "c", "d")])
    taken = take(ledger)
    assert len(taken) == 4
    assert ledger.give_back(taken[:1], owner="relay") == 1
    assert ledger.extend([taken[1].id], lease_seconds=LEASE_SECONDS) == 1
    assert ledger.finish([taken[1].id]) == 1
    assert ledger.park(taken[2], delay_seconds=60, error=failure())
    assert ledger.bury(taken[3], reason="exhausted", error=failure())
    ledger.revoke(["gone"])
    assert ledger.counts()
    letters = ledger.letters
    assert letters.find(Which(), limit=10)
    assert letters.causes(Which(), limit=10)
    assert letters.extent(Which())[0] == 1
    assert letters.states(["a", "b"])
    letters.replay(Which(), **BY, new_id=new_ids(), limit=10)
    assert ledger.bury(job("e"), reason="exhausted", error=failure())
    letters.discard(Which(id="e"), **BY, limit=10)
    letters.purge(older_than_seconds=0.0)
    letters.note("hold", "mail", **BY)
    assert letters.audit()
    claims = ledger.claims
    claims.claim("k", owner="a", lease_seconds=60)
    assert claims.renew("k", owner="a", lease_seconds=60)
    assert claims.complete("k", owner="a", result="1", keep_seconds=60)
    claims.claim("other", owner="a", lease_seconds=60)
    assert claims.release("other", owner="a")
    order = Order(state="off", until=2e9, actor="ann", reason="#471", version=1, at=1e9)
    ledger.orders.keep("advice", order)
    assert ledger.orders.latest() == {"advice": order}
    assert ledger.orders.history("advice")


def test_one_role_makes_the_tables_and_another_works(roles: Roles) -> None:
    """The worker's role reads and writes rows, and never the tables themselves."""
    owner, app = Ledger(roles.owner, timeout_seconds=10), Ledger(roles.app, timeout_seconds=10)
    with pytest.raises(SchemaError, match="ledger upgrade"):
        app.counts()
    with pytest.raises(LedgerUnavailableError):
        app.upgrade()

    owner.upgrade()
    use(app)
    app.upgrade()  # there is nothing to do

    engine = create_engine(read_url(roles.app), isolation_level="AUTOCOMMIT")
    for statement in REFUSED:
        with engine.connect() as connection, pytest.raises(DBAPIError, match=r"denied|owner"):
            connection.execute(text(statement))
    engine.dispose()
    owner.close()
    app.close()
