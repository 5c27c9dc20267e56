"""Executes statements through the driver alone, as SQLAlchemy takes longer than a commit does."""

from collections.abc import Callable, Mapping
from operator import attrgetter, methodcaller
from typing import Any

from sqlalchemy import Delete, Engine, Insert, Select, Update
from sqlalchemy.sql.compiler import SQLCompiler

from resilience.clock import Clock
from resilience.ledger.engines import when_unlocked

Statement = Insert | Update | Delete | Select[Any]

_row_count = attrgetter("rowcount")
_first_row = methodcaller("fetchone")


class Direct:
    """Executes statements, each as a transaction of its own. Safe with threads and across fork.

    The compiled form of a statement is kept by the statement's `id`. So each statement must live as
    long as this object.
    """

    def __init__(self, *, timeout_seconds: float, clock: Clock) -> None:
        """Wait at most *timeout_seconds* for SQLite's lock; servers have limits of their own."""
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._compiled: dict[tuple[int, frozenset[str]], SQLCompiler] = {}

    def change(
        self,
        engine: Engine,
        statement: Insert | Update | Delete,
        values: Mapping[str, Any],
        *,
        synced: bool = True,
    ) -> int:
        """Execute *statement*; return how many rows it changed.

        Args:
            engine: The engine of this process.
            statement: An insert, update or delete.
            values: Its parameters.
            synced: Whether SQLite waits for the disk. If not, a crash of the host may undo the
                change; the end of a process cannot. A server always waits.

        Raises:
            Exception: An error of SQLAlchemy or of the driver.
        """
        changed: int = self._execute(engine, statement, values, _row_count, synced=synced)
        return changed

    def find(
        self, engine: Engine, statement: Select[Any], values: Mapping[str, Any]
    ) -> tuple[Any, ...] | None:
        """Return the first row that *statement* finds; errors as `change`."""
        row: tuple[Any, ...] | None = self._execute(engine, statement, values, _first_row)
        return row

    def _execute(
        self,
        engine: Engine,
        statement: Statement,
        values: Mapping[str, Any],
        result_of: Callable[[Any], Any],
        *,
        synced: bool = True,
    ) -> Any:  # noqa: ANN401 - what *result_of* returns
        compiled = self._compile(engine, statement, values)
        parameters: Any = compiled.construct_params(values)
        if compiled.positiontup is not None:
            parameters = [parameters[name] for name in compiled.positiontup]
        is_file = engine.dialect.name == "sqlite"
        connection = engine.raw_connection()
        try:
            cursor = connection.cursor()
            if is_file:
                cursor.execute("PRAGMA busy_timeout=0")
                if not synced:
                    cursor.execute("PRAGMA synchronous=NORMAL")
            deadline = self._clock.monotonic() + self._timeout_seconds
            when_unlocked(
                lambda: cursor.execute(compiled.string, parameters), self._clock, deadline=deadline
            )
            result = result_of(cursor)
            if is_file and not synced:
                cursor.execute("PRAGMA synchronous=FULL")
            cursor.close()
        except BaseException:
            # It may be lost, an answer may still be on its way, or it may not wait for the disk.
            connection.invalidate()
            raise
        connection.close()
        return result

    def _compile(
        self, engine: Engine, statement: Statement, values: Mapping[str, Any]
    ) -> SQLCompiler:
        key = (id(statement), frozenset(values))
        compiled = self._compiled.get(key)
        if compiled is None:
            names = sorted(values)
            compiled = statement.compile(dialect=engine.dialect, column_keys=names)
            self._compiled[key] = compiled
        return compiled
