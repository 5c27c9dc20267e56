"""Connections to PostgreSQL whose waits have an end, also when the server hangs."""

from collections.abc import Callable
from typing import Any, TypeVar

import psycopg
from sqlalchemy import Dialect
from sqlalchemy.pool import ConnectionPoolEntry

MARGIN_SECONDS = 0.5
"""How much longer the client waits than the server lets a statement run, so that a server which
lives says itself what it is that takes so long."""
CONNECT_SECONDS = 2
"""The least that libpq allows."""

T = TypeVar("T")


def connect_patiently(seconds: float) -> Callable[..., psycopg.Connection[Any]]:
    """Return a `do_connect` listener of SQLAlchemy; no answer may take longer than *seconds*."""

    class Bounded(psycopg.Connection[Any]):
        def wait(
            self,
            gen: Any,  # noqa: ANN401 - psycopg's own types are private
            interval: float = 0.1,
            timeout: float | None = None,
        ) -> Any:  # noqa: ANN401 - as above
            try:
                return super().wait(gen, interval, timeout or seconds + MARGIN_SECONDS)
            except BaseException:
                if self.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE:
                    # Cut between question and answer, it would give the answer to the next one.
                    self.close()
                raise

    def connect(
        _: Dialect, __: ConnectionPoolEntry, args: list[Any], options: dict[str, Any]
    ) -> psycopg.Connection[Any]:
        limits = {"connect_timeout": max(CONNECT_SECONDS, round(seconds))}
        named = {"application_name": "celery-resilience"}
        return Bounded.connect(*args, **{**limits, **named, **options})

    return connect


def limit_waits(seconds: float) -> Callable[[psycopg.Connection[Any], ConnectionPoolEntry], None]:
    """Return a `connect` listener of SQLAlchemy that lets the server end statements and locks."""
    milliseconds = round(seconds * 1000)
    # Shorter, so that it is the lock that is said to be the cause.
    lock_milliseconds = round(seconds * 800)

    def limit(connection: psycopg.Connection[Any], _: ConnectionPoolEntry) -> None:
        # Not as startup options: PgBouncer refuses those.
        connection.execute(f"SET lock_timeout={lock_milliseconds}")
        connection.execute(f"SET statement_timeout={milliseconds}")
        connection.execute("SET default_transaction_isolation='read committed'")

    return limit
