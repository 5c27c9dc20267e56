"""Jobs that must not get lost."""

import json
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Insert, Row, Update
from sqlalchemy.orm import Session

from resilience.clock import Clock, SystemClock
from resilience.events import JobSetAside, Listener, announce
from resilience.ledger.claims import Claims
from resilience.ledger.count import COUNT_LIMIT, Count, add_up
from resilience.ledger.database import Database, count_changes
from resilience.ledger.failure import Failure, fingerprint
from resilience.ledger.identity import Identity, read_identity
from resilience.ledger.job import Job, State
from resilience.ledger.letters import Letters
from resilience.ledger.lookups import AT_ONCE
from resilience.ledger.orders import Orders
from resilience.ledger.statements import Statements

UNREADABLE = "unreadable"


class Ledger:
    """The jobs that wait, are under way or were given up, in one SQL database.

    Each method is one atomic step: when the process is killed in it, it has either happened or not.
    Safe before and after fork, with threads and gevent. All times go by the database's clock, but
    in SQLite, which has the host's.

    SQLite is made on first use; other databases need `upgrade` first. MariaDB needs 10.6.

    What a database can never hold is an `UnkeepableError`. When it is down every method raises
    `LedgerUnavailableError`: a statement and a lock are waited for at most `timeout_seconds`, a new
    connection to PostgreSQL two seconds at least, as its client library allows no less. If the
    schema is not the one that this version needs, every method raises `SchemaError`.

    Attributes:
        letters: The dead letters.
        claims: The idempotency records.
        orders: The orders about features.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float = 1.0,
        redact: Collection[str] = (),
        namespace: str = "",
        clock: Clock | None = None,
        listeners: Iterable[Listener] = (),
    ) -> None:
        """Prepare; nothing is connected before the first step.

        Args:
            url: `sqlite:////path`, `postgresql://user:password@host/name`, `mariadb://…`.
            timeout_seconds: Longest wait for a statement, a lock, a connection of the pool.
            redact: Names of arguments whose values no view shows. They are stored as they are.
            namespace: Of the store, in which the orders about features are in force.
            clock: Where the time comes from that SQLite compares with.
            listeners: Who hears of `JobSetAside`.

        Raises:
            ConfigurationError: *url* is none of a ledger, or its driver is not installed.
        """
        self._database = Database(
            url, timeout_seconds=timeout_seconds, clock=clock or SystemClock()
        )
        self._statements = Statements(self._database)
        self._listeners = listeners
        self._identity: Identity | None = None
        self.letters = Letters(self._database, redact=frozenset(redact))
        self.claims = Claims(self._database)
        self.orders = Orders(self._database, namespace)

    def upgrade(self) -> None:
        """Bring the schema up to date; harmless if it is."""
        self._database.upgrade()

    def identity(self) -> Identity:
        """Return what tells this ledger from any other."""
        if self._identity is None:
            self._identity = read_identity(self._database)
        return self._identity

    def close(self) -> None:
        """Close the connections of this process; the next step opens them again."""
        self._database.close()

    def check_names(self, *names: str) -> None:
        """Check ids and names of jobs, without asking the database.

        Raises:
            UnkeepableError: One of them is longer than it can hold.
        """
        self._database.check_keys(*names)

    def add(self, jobs: Iterable[Job], *, delay_seconds: float | None = None) -> None:
        """Keep *jobs*, all or none. One whose id is known already stays as it is.

        Args:
            jobs: They are due, oldest first, in this order.
            delay_seconds: When they are due; None: at once, as outbox.
        """
        rows = list(jobs)
        if rows:
            with self._database.writing() as connection:
                self._insert(connection, rows, delay_seconds)

    def add_in(
        self, session: Session | Connection, job: Job, *, delay_seconds: float | None = None
    ) -> None:
        """Keep *job* in the outbox if, and only if, the caller's transaction is committed.

        Args:
            session: In a transaction on the ledger's own database. Nothing is looked up: in
                another database that lacks the tables this is `LedgerUnavailableError`, and in one
                that has them the job is nowhere that a relay of this ledger would look.
            job: What to keep.
            delay_seconds: When it is due, from now; None: at once, as outbox.
        """
        with self._database.translated():
            connection = session.connection() if isinstance(session, Session) else session
            self._insert(connection, [job], delay_seconds)

    def take(
        self,
        limit: int,
        *,
        owner: str,
        lease_seconds: float,
        held: Collection[str] = (),
        full: Collection[str] = (),
    ) -> list[Job]:
        """Return due jobs to publish, longest due first; no one else gets them meanwhile.

        Jobs that were dispatched and whose lease has run out are due again. A row that cannot be
        read becomes a dead letter, and `JobSetAside` is announced.

        Args:
            limit: Most jobs to take, at least 1; a few hundred make the best use of a commit.
            owner: Who takes them.
            lease_seconds: When they are due again unless they are finished, parked or extended.
            held: Dependencies whose jobs stay where they are.
            full: Queues whose jobs do.
        """
        if not held and self._database.find(self._statements.any_due, {}) is None:
            return []  # as most often; found without a transaction
        left_out = {"held": list(held), "full": list(full)}
        with self._database.writing() as connection:
            rows: list[Row[*tuple[Any, ...]]] = []
            places = connection.execute(self._statements.places, left_out).all()
            for dependency, queue, state, _ in places:
                place = {"in_dependency": dependency, "in_queue": queue, "in_state": state}
                most = {"most": limit - len(rows)}
                rows += connection.execute(self._statements.due, place | most)
                if len(rows) == limit:
                    break
            jobs, broken = _sorted_out(sorted(rows, key=lambda row: row.due))
            if jobs:
                ids = [job.id for job in jobs]
                lease = {"ids": ids, "lease": lease_seconds, "owner": owner}
                connection.execute(self._statements.lease, lease)
            if broken:
                causes = [
                    {"job": name, "reason": UNREADABLE, "fingerprint": fingerprint(why, "", "")}
                    for name, why in broken.items()
                ]
                connection.execute(self._statements.set_aside, causes)
        for name, why in broken.items():
            announce(JobSetAside(id=name, reason=why), self._listeners)
        return jobs

    def give_back(self, jobs: Sequence[Job], *, owner: str) -> int:
        """Make *jobs*, which *owner* took and could not publish, due as they were; count them.

        A job that was published, parked or finished since stays as it is.
        """
        if not jobs:
            return 0
        rows = [
            {
                "job": job.id,
                "number": job.dispatches,
                "taker": owner,
                "was_due": job.due,
                "before": State.OUTBOX if job.state == State.OUTBOX else State.SCHEDULED,
            }
            for job in jobs
        ]
        with self._database.writing() as connection:
            return count_changes(connection, self._statements.give_back, rows)

    def extend(self, ids: Collection[str], *, lease_seconds: float) -> int:
        """Let the leases of dispatched jobs run out in *lease_seconds* from now; count them."""
        lease = {"ids": list(ids), "lease": lease_seconds}
        with self._database.stepping() as connection:
            return count_changes(connection, self._statements.extend, lease)

    def finish(self, ids: Collection[str]) -> int:
        """Forget jobs that are done, whatever state they are in; count those that were kept."""
        with self._database.stepping() as connection:
            return count_changes(connection, self._statements.finish, {"ids": list(ids)})

    def revoke(self, ids: Collection[str]) -> int:
        """Forget jobs that shall not run, but no dead letters; count those that were kept."""
        known = list(ids)
        with self._database.stepping() as connection:
            return sum(
                count_changes(connection, self._statements.revoke, {"ids": known[n : n + AT_ONCE]})
                for n in range(0, len(known), AT_ONCE)
            )

    def park(self, job: Job, *, delay_seconds: float, error: BaseException | None) -> bool:
        """Keep *job* until it is due for another call.

        Args:
            job: As it came, whether the ledger knew it or not.
            delay_seconds: When it is due.
            error: What the call ended in; None: it was refused, and spent no attempt.

        Returns:
            Whether it was this call's to say. Not if another copy of the job has reported since,
            or was published since: then the job is safe there, and this one can be forgotten.
        """
        failure = None if error is None else Failure.of(error, task=job.task)
        end = {"state": State.SCHEDULED, "due_in": delay_seconds, "died_in": None}
        return self._report(job, failure, end)

    def bury(self, job: Job, *, reason: str, error: BaseException) -> bool:
        """Give *job* up: it is a dead letter from now on.

        Args:
            job: As it came, whether the ledger knew it or not.
            reason: Why, in a word: a `resilience.retry.Reason`, `poison`.
            error: What the last call ended in.

        Returns:
            As `park`.
        """
        failure = Failure.of(error, task=job.task)
        end = {"state": State.DEAD, "due_in": None, "died_in": 0.0, "reason": reason}
        return self._report(job, failure, end | {"fingerprint": failure.fingerprint})

    def counts(self, *, limit: int | None = COUNT_LIMIT) -> list[Count]:
        """Count the jobs by state and dependency; what has none is left out.

        Args:
            limit: Counting the jobs of a dependency's queue in one state ends here, at least 0;
                beyond it `Count.more` is set. None: count them all, which takes the longer the
                more there are, and from some millions on may take longer than `timeout_seconds`.
        """
        statement, bound = self._statements.exact_counts, {}
        if limit is not None:
            statement, bound = self._statements.counts, {"limit": limit}
        with self._database.reading() as connection:
            rows = connection.execute(statement, bound).all()
        return add_up(rows, limit)

    def _insert(
        self, connection: Connection, jobs: Sequence[Job], delay_seconds: float | None
    ) -> None:
        state = State.OUTBOX if delay_seconds is None else State.SCHEDULED
        # A microsecond apart, so that they leave in the order in which they came.
        rows = [
            self._row(job) | {"state": state, "due_in": (delay_seconds or 0.0) + place * 1e-6}
            for place, job in enumerate(jobs, 1 - len(jobs))
        ]
        connection.execute(self._statements.keep, rows)

    def _row(self, job: Job) -> dict[str, Any]:
        self._database.check_keys(job.id, job.task, job.queue)
        return _row(job)

    def _report(self, job: Job, failure: Failure | None, end: dict[str, Any]) -> bool:
        spent, line = 0, ""
        if failure:
            spent, line = 1, failure.to_line(self._database.host_now())
        copy = {"job": job.id, "number": job.dispatches, "spent": spent, "line": line}
        copy |= {"new_queue": job.queue, "new_message": job.message}
        new = {**self._row(job), "attempts": job.attempts + spent, "errors": line}
        steps: list[tuple[Insert | Update, dict[str, Any]]] = [
            (self._statements.keep, new | end),
            (self._statements.report, copy | end),
        ]
        if job.dispatches:  # it came from here
            steps.reverse()
        return any(self._database.change(*step) for step in steps)


def _row(job: Job) -> dict[str, Any]:
    return {
        "id": job.id,
        "task": job.task,
        "dependency": job.dependency,
        "queue": job.queue,
        "message": job.message,
        "origin": job.origin,
        "attempts": job.attempts,
        "dispatches": job.dispatches,
        "errors": "",
        "age": job.age_seconds,
        "died_in": None,
    }


def _sorted_out(rows: Iterable[Row[*tuple[Any, ...]]]) -> tuple[list[Job], dict[str, str]]:
    """Return the jobs of *rows*, and why the others are none."""
    jobs, broken = [], {}
    for row in rows:
        try:
            jobs.append(_read(row))
        except (ValueError, TypeError, RecursionError) as error:
            broken[row.id] = f"{type(error).__name__}: {error}"
    return jobs, broken


def _read(row: Row[*tuple[Any, ...]]) -> Job:
    """Return the job that *row* is from its next dispatch on.

    Raises:
        ValueError: It is none; or TypeError.
    """
    str.encode(row.message)  # what came from bytes that are no text has no UTF-8, or is none
    if not isinstance(json.loads(row.message), dict):
        msg = "the message is no JSON object"
        raise TypeError(msg)
    return Job(
        id=row.id,
        task=row.task,
        dependency=row.dependency,
        queue=row.queue,
        message=row.message,
        origin=row.origin,
        attempts=row.attempts,
        dispatches=row.dispatches + 1,
        age_seconds=row.age,
        due=row.due,
        state=State(row.state),
    )
