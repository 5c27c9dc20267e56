"""Jobs that must not get lost."""

import json
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Double, Row, bindparam, delete, func, null, select, update
from sqlalchemy.orm import Session

from resilience.clock import Clock, SystemClock
from resilience.events import JobSetAside, Listener, announce
from resilience.ledger.claims import Claims
from resilience.ledger.database import Database, insert_new
from resilience.ledger.failure import Failure, fingerprint
from resilience.ledger.job import Count, Job, State
from resilience.ledger.letters import Letters
from resilience.ledger.tables import JOBS

UNREADABLE = "unreadable"
OPEN = (State.OUTBOX, State.DISPATCHED)
"""What a copy of a job may still report on; once it is scheduled or dead, another copy has."""


class Ledger:
    """The jobs that wait, are under way or were given up, in one SQL database.

    Each method is one atomic step: when the process is killed in it, it has either happened or not.
    Safe before and after fork, with threads and gevent. All times go by the database's clock, but
    in SQLite, which has the host's.

    SQLite is made on first use; other databases need `upgrade` first. MariaDB needs 10.6.

    When the database is down every method raises `LedgerUnavailableError`: a statement and a lock
    are waited for at most `timeout_seconds`, a new connection to PostgreSQL two seconds at least,
    as its client library allows no less. If the schema is not the one that this version needs,
    every method raises `SchemaError`.

    Attributes:
        letters: The dead letters.
        claims: The idempotency records.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float = 1.0,
        redact: Collection[str] = (),
        clock: Clock | None = None,
        listeners: Iterable[Listener] = (),
    ) -> None:
        """Prepare; nothing is connected before the first step.

        Args:
            url: `sqlite:////path`, `postgresql://user:password@host/name`, `mariadb://…`.
            timeout_seconds: Longest wait for a statement, a lock, a connection of the pool.
            redact: Names of arguments whose values no view shows. They are stored as they are.
            clock: Where the time comes from that SQLite compares with.
            listeners: Who hears of `JobSetAside`.

        Raises:
            ConfigurationError: *url* is none of a ledger, or its driver is not installed.
        """
        self._database = Database(
            url, timeout_seconds=timeout_seconds, clock=clock or SystemClock()
        )
        self._listeners = listeners
        self.letters = Letters(self._database, redact=frozenset(redact))
        self.claims = Claims(self._database)

    def upgrade(self) -> None:
        """Bring the schema up to date; harmless if it is."""
        self._database.upgrade()

    def close(self) -> None:
        """Close the connections of this process; the next step opens them again."""
        self._database.close()

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

    def add_in(self, session: Session | Connection, job: Job) -> None:
        """Keep *job* in the outbox if, and only if, the caller's transaction is committed.

        Args:
            session: In a transaction on the ledger's own database. Nothing is looked up: in
                another database that lacks the tables this is `LedgerUnavailableError`, and in one
                that has them the job is nowhere that a relay of this ledger would look.
            job: What to keep.
        """
        with self._database.translated():
            connection = session.connection() if isinstance(session, Session) else session
            self._insert(connection, [job], None)

    def take(
        self, limit: int, *, owner: str, lease_seconds: float, held: Collection[str] = ()
    ) -> list[Job]:
        """Return due jobs to publish, longest due first; no one else gets them meanwhile.

        Jobs that were dispatched and whose lease has run out are due again. A row that cannot be
        read becomes a dead letter, and `JobSetAside` is announced.

        Args:
            limit: Most jobs to take, at least 1; a few hundred make the best use of a commit.
            owner: Who takes them.
            lease_seconds: When they are due again unless they are finished, parked or extended.
            held: Dependencies whose jobs stay where they are.
        """
        now = self._database.now()
        columns = [column for column in JOBS.c if column.name != "errors"]
        age = (now - JOBS.c.born).label("age")
        due = select(*columns, age).where(JOBS.c.due <= now).order_by(JOBS.c.due)
        if held:
            due = due.where(JOBS.c.dependency.not_in(held))
        with self._database.writing() as connection:
            rows = connection.execute(due.limit(limit).with_for_update(skip_locked=True)).all()
            jobs, broken = _sorted_out(rows)
            taken = {"state": State.DISPATCHED, "due": now + lease_seconds, "owner": owner}
            if jobs:
                connection.execute(
                    update(JOBS)
                    .where(JOBS.c.id.in_([job.id for job in jobs]))
                    .values(dispatches=JOBS.c.dispatches + 1, **taken)
                )
            for name, why in broken.items():
                self._set_aside(connection, name, why)
        for name, why in broken.items():
            announce(JobSetAside(id=name, reason=why), self._listeners)
        return jobs

    def give_back(self, jobs: Sequence[Job], *, owner: str) -> int:
        """Make *jobs*, which *owner* took and could not publish, due as they were; count them.

        A job that was published, parked or finished since stays as it is.
        """
        if not jobs:
            return 0
        fence = (JOBS.c.id == bindparam("job"), JOBS.c.dispatches == bindparam("number"))
        own = (JOBS.c.owner == owner, JOBS.c.state == State.DISPATCHED)
        back = (
            update(JOBS)
            .where(*fence, *own)
            .values(state=bindparam("before"), due=bindparam("was_due"), owner=null())
        )
        rows = [
            {
                "job": job.id,
                "number": job.dispatches,
                "was_due": job.due,
                "before": State.OUTBOX if job.state == State.OUTBOX else State.SCHEDULED,
            }
            for job in jobs
        ]
        with self._database.writing() as connection:
            return connection.execute(back, rows).rowcount

    def extend(self, ids: Collection[str], *, lease_seconds: float) -> int:
        """Let the leases of dispatched jobs run out in *lease_seconds* from now; count them."""
        due = self._database.now() + lease_seconds
        leased = JOBS.c.id.in_(ids), JOBS.c.state == State.DISPATCHED
        with self._database.writing() as connection:
            return connection.execute(update(JOBS).where(*leased).values(due=due)).rowcount

    def finish(self, ids: Collection[str]) -> int:
        """Forget jobs that are done, whatever state they are in; count those that were kept."""
        with self._database.writing() as connection:
            return connection.execute(delete(JOBS).where(JOBS.c.id.in_(ids))).rowcount

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
        return self._report(job, failure, state=State.SCHEDULED, delay_seconds=delay_seconds)

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
        return self._report(job, failure, state=State.DEAD, reason=reason)

    def counts(self) -> list[Count]:
        """Return how many jobs there are, by state and dependency; empty ones are left out."""
        kinds = JOBS.c.state, JOBS.c.dependency
        overdue = self._database.now() - func.min(JOBS.c.due)
        counted = select(*kinds, func.count(), overdue).group_by(*kinds).order_by(*kinds)
        with self._database.reading() as connection:
            rows = connection.execute(counted).all()
        return [
            Count(state=State(state), dependency=dependency, jobs=jobs, overdue_seconds=seconds)
            for state, dependency, jobs, seconds in rows
        ]

    def _insert(
        self, connection: Connection, jobs: Sequence[Job], delay_seconds: float | None
    ) -> None:
        dialect = connection.dialect.name
        now = self._database.now(dialect)
        statement = insert_new(JOBS, dialect).values(
            created=now,
            born=now - bindparam("age", type_=Double),
            due=now + bindparam("delay", type_=Double),
            state=State.OUTBOX if delay_seconds is None else State.SCHEDULED,
            errors="",
            **{name: bindparam(name) for name in _given(jobs[0])},
        )
        # A microsecond apart, so that they leave in the order in which they came.
        rows = [
            {**_given(job), "age": job.age_seconds, "delay": (delay_seconds or 0.0) + place * 1e-6}
            for place, job in enumerate(jobs, -len(jobs) + 1)
        ]
        connection.execute(statement, rows)

    def _report(
        self,
        job: Job,
        failure: Failure | None,
        *,
        state: State,
        delay_seconds: float | None = None,
        reason: str | None = None,
    ) -> bool:
        now = self._database.now()
        line = failure.to_line(self._database.host_now()) if failure else ""
        spent = 1 if failure else 0
        dead = state is State.DEAD
        ended: dict[str, Any] = {
            "state": state,
            "due": null() if delay_seconds is None else now + delay_seconds,
            "owner": null(),
            "died": now if dead else null(),
            "reason": reason,
            "fingerprint": failure.fingerprint if dead and failure else None,
        }
        first = {"created": now, "born": now - job.age_seconds, "errors": line, **_given(job)}
        first["attempts"] = job.attempts + spent
        known = update(JOBS).where(
            JOBS.c.id == job.id, JOBS.c.dispatches == job.dispatches, JOBS.c.state.in_(OPEN)
        )
        more = {"attempts": JOBS.c.attempts + spent, "errors": JOBS.c.errors + line}
        with self._database.writing() as connection:
            dialect = connection.dialect.name
            steps = [
                insert_new(JOBS, dialect).values(**first, **ended),
                known.values(**more, **ended),
            ]
            if job.dispatches:  # it came from here
                steps.reverse()
            return any(connection.execute(step).rowcount for step in steps)

    def _set_aside(self, connection: Connection, name: str, why: str) -> None:
        now = self._database.now()
        dead = {"state": State.DEAD, "due": null(), "owner": null(), "died": now}
        cause = fingerprint(UNREADABLE, why, "")
        connection.execute(
            update(JOBS)
            .where(JOBS.c.id == name)
            .values(reason=UNREADABLE, fingerprint=cause, **dead)
        )


def _given(job: Job) -> dict[str, Any]:
    return {
        "id": job.id,
        "task": job.task,
        "dependency": job.dependency,
        "queue": job.queue,
        "message": job.message,
        "origin": job.origin,
        "attempts": job.attempts,
        "dispatches": job.dispatches,
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
    row.message.encode()  # what came from bytes that are no text has no UTF-8
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
