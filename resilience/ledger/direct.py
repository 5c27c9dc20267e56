"""Statements that the driver executes itself: SQLAlchemy would take longer than a commit does."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Delete, Engine, Insert, Update
from sqlalchemy.sql.compiler import SQLCompiler

from resilience.clock import Clock
from resilience.ledger.engines import when_unlocked


class Direct:
    """Changes rows, each statement a transaction of its own. Safe with threads and over forks."""

    def __init__(self, *, timeout_seconds: float, clock: Clock) -> None:
        """Wait at most *timeout_seconds* for SQLite's lock; servers have limits of their own."""
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._compiled: dict[tuple[int, frozenset[str]], SQLCompiler] = {}

    def change(
        self, engine: Engine, statement: Insert | Update | Delete, values: Mapping[str, Any]
    ) -> int:
        """Execute *statement*, which lives as long as this; count the rows that it changed.

        Raises:
            Exception: SQLAlchemy's or the driver's.
        """
        compiled = self._compile(engine, statement, values)
        sent: Any = compiled.construct_params(values)
        if compiled.positiontup is not None:
            sent = [sent[name] for name in compiled.positiontup]
        connection = engine.raw_connection()
        try:
            cursor = connection.cursor()
            if engine.dialect.name == "sqlite":
                cursor.execute("PRAGMA busy_timeout=0")
            deadline = self._clock.monotonic() + self._timeout_seconds
            when_unlocked(
                lambda: cursor.execute(compiled.string, sent), self._clock, deadline=deadline
            )
            changed: int = cursor.rowcount
            cursor.close()
        except BaseException:
            connection.invalidate()  # it may be lost, or between a question and its answer
            raise
        connection.close()
        return changed

    def _compile(
        self, engine: Engine, statement: Insert | Update | Delete, values: Mapping[str, Any]
    ) -> SQLCompiler:
        key = (id(statement), frozenset(values))
        found = self._compiled.get(key)
        if found is None:
            names = sorted(values)
            found = statement.compile(dialect=engine.dialect, column_keys=names)
            self._compiled[key] = found
        return found
