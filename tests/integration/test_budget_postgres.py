"""Statements under a budget, on a real PostgreSQL. The block of a budget is not cut itself."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from time import perf_counter
from typing import Any

import pytest
from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.exc import OperationalError

from resilience import BudgetExceededError, TimeoutBudget
from resilience.budget import limit_statements
from resilience.budget.clients import MARGIN_SECONDS_MAX
from resilience.ledger.engines import read_url
from resilience.testing.postgres import PostgresProcess
from tests.timing import ends_before

BUDGET = 1.0
LATEST_MILLISECONDS = 1200
FOR_LONG = text("SELECT pg_sleep(600)")
TOO_LONG = 60.0
AGAIN_SECONDS = MARGIN_SECONDS_MAX / 2
"""After so long a statement with the limit of before could end too late."""


@pytest.fixture
def url(postgres: PostgresProcess) -> URL:
    """Address of a running server."""
    return read_url(postgres.url)


@pytest.fixture
def engine(url: URL) -> Iterator[Engine]:
    """A limited engine without connections."""
    engine = create_engine(url)
    limit_statements(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def own_timeout(url: URL) -> Iterator[Callable[[], None]]:
    """A statement without a budget that the server ends at the latest moment."""
    engine = create_engine(url)
    with engine.connect() as connection:
        connection.execute(text(f"SET statement_timeout = {LATEST_MILLISECONDS}"))

        def run() -> None:
            with pytest.raises(OperationalError, match="statement timeout"):
                connection.execute(FOR_LONG)

        yield run
    engine.dispose()


def limit_of(connection: Connection) -> str:
    """Return what the server says that a statement may take; "0": for ever."""
    return str(connection.scalar(text("SHOW statement_timeout")))


def test_server_ends_a_statement_before_the_budget_does(
    engine: Engine, own_timeout: Callable[[], None]
) -> None:
    """The error is the server's, and the connection is good for the next transaction."""
    with engine.connect() as connection:
        with (
            ends_before(own_timeout),
            TimeoutBudget(BUDGET),
            pytest.raises(OperationalError, match="statement timeout"),
        ):
            connection.execute(FOR_LONG)
        connection.rollback()

        assert limit_of(connection) == "0"


def test_later_statement_of_a_transaction_has_what_is_left(
    engine: Engine, own_timeout: Callable[[], None]
) -> None:
    """Limits count from the start of a statement: the second one's must be shorter."""
    with engine.connect() as connection, ends_before(own_timeout), TimeoutBudget(BUDGET):
        connection.execute(text("SELECT pg_sleep(0.6)"))
        with pytest.raises(OperationalError, match="statement timeout"):
            connection.execute(FOR_LONG)


def test_limit_is_set_once_for_statements_that_follow_closely(engine: Engine) -> None:
    """A transaction of short statements pays for one round trip, not for one each."""
    sent: list[str] = []
    event.listen(
        engine, "before_cursor_execute", lambda _c, _cursor, statement, *_: sent.append(statement)
    )

    began = perf_counter()
    with TimeoutBudget(TOO_LONG * 60), engine.begin() as connection:
        for _ in range(5):
            connection.execute(text("SELECT 1"))
    took = perf_counter() - began

    limits = sum("statement_timeout" in statement for statement in sent)
    assert 1 <= limits <= 1 + took / AGAIN_SECONDS


def test_statement_without_a_budget_is_not_limited(engine: Engine) -> None:
    """Outside of budgets nothing is sent besides."""
    with engine.connect() as connection:
        assert limit_of(connection) == "0"
        connection.rollback()
        with TimeoutBudget(TOO_LONG):
            assert limit_of(connection) != "0"
        connection.rollback()
        assert limit_of(connection) == "0"


def test_transaction_that_outlives_its_budget_gets_its_own_limit_back(engine: Engine) -> None:
    """What follows the block in the same transaction is not cut by a budget that has ended."""
    with engine.connect() as connection:
        connection.execute(text("SET LOCAL statement_timeout = '40s'"))
        with TimeoutBudget(20.0):
            assert limit_of(connection) != "40s"

        assert limit_of(connection) == "40s"


def test_inner_budget_leaves_the_rest_to_the_outer_one(engine: Engine) -> None:
    """A short share in the middle of a transaction does not shorten what comes after it."""
    with engine.connect() as connection, TimeoutBudget(TOO_LONG) as budget:
        inner = budget.run(limit_of, connection, seconds=5.0)
        outer = limit_of(connection)

    assert inner.endswith("ms")
    assert int(inner.removesuffix("ms")) <= 4900
    assert int(outer.removesuffix("ms")) > 50_000


@pytest.mark.parametrize("place", ["session", "transaction"])
def test_limit_of_its_own_stays_if_it_is_shorter(engine: Engine, place: str) -> None:
    """A budget makes no statement longer than the database's own settings allow."""
    with engine.connect() as connection, TimeoutBudget(TOO_LONG):
        with TimeoutBudget(TOO_LONG):
            local = "LOCAL" if place == "transaction" else ""
            own = create_engine(engine.url)  # an engine that is not limited
            with own.connect() as plain:
                plain.execute(text(f"SET {local} statement_timeout = '250ms'"))
                limit_statements(own)

                assert limit_of(plain) == "250ms"
            own.dispose()
        assert limit_of(connection) != "250ms"


def test_limit_survives_a_savepoint_that_is_rolled_back(engine: Engine) -> None:
    """PostgreSQL takes back what was set behind the savepoint: it is set again, and not as own."""
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        with TimeoutBudget(TOO_LONG):
            savepoint = connection.begin_nested()
            assert limit_of(connection) != "0"
            savepoint.rollback()
            assert limit_of(connection) != "0"

        assert limit_of(connection) == "0"


def test_limit_that_was_set_behind_a_savepoint_is_set_again(engine: Engine) -> None:
    """PostgreSQL forgets it when the savepoint is rolled back, but the budget still runs."""
    with engine.connect() as connection:
        savepoint = connection.begin_nested()
        with TimeoutBudget(TOO_LONG):
            assert limit_of(connection) != "0"
            savepoint.rollback()
            assert limit_of(connection) != "0"

        assert limit_of(connection) == "0"


@pytest.mark.parametrize(
    "begin", [nullcontext, partial(TimeoutBudget, TOO_LONG)], ids=["no-budget", "outer-budget"]
)
def test_savepoint_of_a_statement_that_took_too_long_can_be_rolled_back(
    engine: Engine, begin: Callable[[], AbstractContextManager[Any]]
) -> None:
    """Nothing else is sent before: PostgreSQL takes no other statement until that is done."""
    with engine.connect() as connection, begin():
        savepoint = connection.begin_nested()
        with (
            TimeoutBudget(BUDGET),
            pytest.raises(OperationalError, match="statement timeout"),
        ):
            connection.execute(FOR_LONG)

        savepoint.rollback()

        assert connection.scalar(text("SELECT 7")) == 7


def test_no_statement_is_sent_when_nothing_is_left(engine: Engine) -> None:
    """The server is not asked, and the connection stays good."""
    with engine.connect() as connection:
        with TimeoutBudget.until(-1.0, total=1.0), pytest.raises(BudgetExceededError):
            connection.execute(FOR_LONG)

        assert connection.scalar(text("SELECT 7")) == 7


def test_connection_of_a_call_that_was_cut_is_not_used_again(url: URL) -> None:
    """Cut while the server works, its answer never passes for that of the next statement."""
    engine = create_engine(url, pool_size=1, max_overflow=0)

    def sleep() -> None:
        with engine.connect() as connection:
            connection.execute(FOR_LONG)

    with TimeoutBudget(0.4) as budget, pytest.raises(BudgetExceededError):
        budget.run(sleep)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 7")) == 7
    engine.dispose()


def test_other_databases_are_left_alone() -> None:
    """They have no such setting: not even a listener is there."""
    engine = create_engine("sqlite://")
    limit_statements(engine)

    with TimeoutBudget(5), engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
    assert not engine.dispatch.before_cursor_execute
