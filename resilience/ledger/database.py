"""Transactions on the ledger's database."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from typing import cast as cast_to

from sqlalchemy import (
    ColumnElement,
    Connection,
    CursorResult,
    Delete,
    Double,
    Engine,
    Executable,
    Insert,
    Select,
    Table,
    Update,
    bindparam,
    cast,
    insert,
    literal_column,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.sqlite import insert as insert_sqlite
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from resilience.clock import Clock
from resilience.errors import LedgerUnavailableError, UnkeepableError
from resilience.ledger.direct import Direct
from resilience.ledger.engines import (
    STEPS,
    driver_of,
    make_engine,
    make_patient_engine,
    place_of,
    read_url,
)
from resilience.ledger.job import KEY_LENGTH
from resilience.ledger.upgrade import check_version, upgrade, version_of

# The start of the statement: the time must not change while the statement runs, or no index helps.
NOW = {
    "postgresql": "extract(epoch from statement_timestamp())",
    "mysql": "timestampdiff(microsecond, '1970-01-01', utc_timestamp(6)) / 1e6",
}
MENDS = {
    "locked": "another process keeps it locked; find and end it, or use PostgreSQL",
    "lock timeout": "another transaction keeps it locked; find and end it",
    "Lock wait timeout": "another transaction keeps it locked; find and end it",
    "max_statement_time": "another transaction keeps it locked, or it is too slow; find and end it",
    "full": "make room",
    "No space left": "make room",
    "readonly": "let this process write to the file and its directory",
    "unable to open": "make the directory, and let this process write to it",
    "authentication": "correct user and password in the URL",
    "Access denied": "correct user and password in the URL",
}


class Database:
    """One database, whose engine is made again in every process. Safe with threads.

    Attributes:
        place: Its URL without the password.
        is_file: Whether it is a file of one host, and no server.
        nests: Whether a table that a query derives may depend on a row of the query around it.
        now: Its time in epoch seconds, as SQL; SQLite has the host's.
    """

    def __init__(self, url: str, *, timeout_seconds: float, clock: Clock) -> None:
        """Prepare; nothing is connected before the first transaction.

        Raises:
            ConfigurationError: *url* is none of a ledger.
        """
        self._url = read_url(url)
        self._backend = self._url.get_backend_name()
        self.is_file = self._backend == "sqlite"
        self.nests = self._backend in {"sqlite", "postgresql"}
        self.now = _now(self._backend, clock)
        self.place = place_of(self._url)
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._direct = Direct(timeout_seconds=timeout_seconds, clock=clock)
        driver = driver_of(self._url)
        self._errors, self._unfit = (SQLAlchemyError, driver.Error), driver.DataError
        self._ready = False
        self._pid = 0
        self._engines: list[Engine] = []

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Yield a connection in a transaction that is committed at the end.

        Raises:
            LedgerUnavailableError: The database is away, locked or full, or refuses. It is unknown
                whether a transaction was kept whose commit was not answered.
            UnkeepableError: It is there, and cannot hold a value.
            SchemaError: It has another schema.
        """
        with self._translated():
            self._make_ready()
            with self._engine().connect() as connection:
                # It begins with its first statement: a lock is not held while that is prepared.
                yield connection
                connection.commit()

    @contextmanager
    def stepping(self) -> Iterator[Connection]:
        """Yield a connection on which each statement is a transaction; errors as `writing`.

        On a server that saves the round trips of BEGIN and COMMIT. In SQLite all are one.
        """
        with self.writing() if self._backend == "sqlite" else self.reading() as connection:
            yield connection

    def change(
        self,
        statement: Insert | Update | Delete,
        values: Mapping[str, Any],
        *,
        synced: bool = True,
    ) -> int:
        """Execute *statement* as a transaction of its own; count the rows that it changed.

        Errors as `writing`.

        Args:
            statement: What changes rows; it lives as long as this.
            values: Its parameters.
            synced: Whether a change of a file survives a crash of the host. That of a process it
                survives always; what a server has is on its disk always.
        """
        with self._translated():
            self._make_ready()
            return self._direct.change(self._engine(), statement, values, synced=synced)

    def find(self, statement: Select[Any], values: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """Return the first row that *statement*, which lives as long as this, finds.

        Errors as `writing`.
        """
        with self._translated():
            self._make_ready()
            return self._direct.find(self._engine(), statement, values)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Yield a connection to read with, a statement at a time; errors as `writing`."""
        with self._translated():
            self._make_ready()
            with self._engine().connect() as connection:
                yield connection.execution_options(**STEPS)

    def upgrade(self) -> None:
        """Bring the schema up to date; errors as `writing`."""
        engine = make_patient_engine(
            self._url, timeout_seconds=self._timeout_seconds, clock=self._clock
        )
        with self._translated():
            try:
                with engine.begin() as connection:
                    upgrade(connection, self.place)
            finally:
                engine.dispose()

    def close(self) -> None:
        """Close the connections of this process that nobody uses."""
        if self._engines and self._pid == os.getpid():
            self._engines[-1].dispose()

    def insert_new(self, table: Table) -> Insert:
        """Return an INSERT that leaves out rows whose key is taken."""
        if self._backend == "postgresql":
            return postgresql.insert(table).on_conflict_do_nothing()
        if self._backend == "sqlite":
            return insert_sqlite(table).on_conflict_do_nothing()
        return insert(table).prefix_with("IGNORE")

    def check_keys(self, *keys: str) -> None:
        """Check that the database takes *keys* as they are.

        Raises:
            UnkeepableError: MariaDB would cut one, and say nothing.
        """
        if self._backend in {"postgresql", "sqlite"}:
            return
        for key in keys:
            if len(key) > KEY_LENGTH:
                most = f"{self.place} keeps names of at most {KEY_LENGTH} characters"
                msg = f"{most}, got {key!r}; shorten it, or use PostgreSQL"
                raise UnkeepableError(msg)

    def host_now(self) -> float:
        """Return the host's time in epoch seconds, for what is only shown."""
        return self._clock.now()

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn SQLAlchemy's errors into the library's."""
        with self._translated():
            yield

    def _engine(self) -> Engine:
        if self._pid != os.getpid():
            # Those of the parent are kept: to close a connection here would end it there.
            engine = make_engine(
                self._url, timeout_seconds=self._timeout_seconds, clock=self._clock
            )
            self._engines.append(engine)
            self._pid = os.getpid()
        return self._engines[-1]

    def _make_ready(self) -> None:
        if self._ready:
            return
        with self._engine().connect() as connection:
            found = version_of(connection.execution_options(**STEPS))
        if found is None and self._backend == "sqlite":
            with self._engine().begin() as connection:
                upgrade(connection, self.place)
        else:
            check_version(found, self.place)
        self._ready = True

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            orig = error.orig if isinstance(error, DBAPIError) else error
            said = str(orig).strip()
            if isinstance(orig, self._unfit):
                msg = f"the ledger {self.place} cannot hold a value: {said}"
                raise UnkeepableError(msg) from error
            self._ready = False  # the tables may be gone, or others
            mend = next((mend for text, mend in MENDS.items() if text in said), "")
            msg = f"the ledger {self.place} did not answer or refused: {said}"
            raise LedgerUnavailableError(f"{msg}; {mend}" if mend else msg) from error


def _now(backend: str, clock: Clock) -> ColumnElement[float]:
    if backend == "sqlite":
        return bindparam("now", type_=Double, callable_=clock.now)
    return cast(literal_column(NOW["mysql" if backend == "mariadb" else backend]), Double)


def count_changes(
    connection: Connection,
    statement: Executable,
    parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] = {},
) -> int:
    """Execute *statement*; return how many rows it inserted, updated or deleted."""
    kept = {"preserve_rowcount": True}
    done = connection.execute(statement, parameters, execution_options=kept)
    return cast_to("CursorResult[Any]", done).rowcount
