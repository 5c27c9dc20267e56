"""The statements on jobs, built once: to build one takes longer than to commit it."""

from typing import Any

from sqlalchemy import (
    ColumnElement,
    Delete,
    Double,
    Insert,
    Select,
    Update,
    bindparam,
    delete,
    func,
    null,
    select,
    update,
)

from resilience.ledger.database import Database
from resilience.ledger.job import State
from resilience.ledger.tables import JOBS


def _seconds(name: str) -> ColumnElement[float]:
    return bindparam(name, type_=Double)


class Statements:
    """What is done to jobs; `_in` in a parameter's name: seconds from now, None: never.

    Attributes:
        keep: Insert a job unless its id is known.
        report: Say what became of the copy with that number, unless another copy has reported.
        due: Select what is due, and lock it.
        due_but_held: The same without held dependencies.
        lease: Hand jobs to a relay.
        set_aside: Make a dead letter of a job that cannot be read.
        give_back: Undo `lease`.
        extend: Put off the end of leases.
        finish: Forget jobs.
        revoke: Forget jobs that are no dead letters.
        counts: Count jobs.
    """

    keep: Insert
    report: Update
    due: Select[Any]
    due_but_held: Select[Any]
    lease: Update
    set_aside: Update
    give_back: Update
    extend: Update
    finish: Delete
    revoke: Delete
    counts: Select[Any]

    def __init__(self, database: Database) -> None:
        """Build them for *database*."""
        now, job = database.now, JOBS.c
        these = job.id.in_(bindparam("ids", expanding=True))
        copy = (job.id == bindparam("job"), job.dispatches == bindparam("number"))
        leased = job.state == State.DISPATCHED
        ends = {"due": now + _seconds("due_in"), "died": now + _seconds("died_in")}
        self.keep = database.insert_new(JOBS).values(
            created=now, born=now - _seconds("age"), **ends
        )
        self.report = (
            update(JOBS)
            .where(*copy, job.state != State.SCHEDULED, job.state != State.DEAD)
            .values(
                attempts=job.attempts + bindparam("spent"),
                errors=job.errors + bindparam("line"),
                queue=bindparam("to"),
                message=bindparam("said"),
                owner=null(),
                **ends,
            )
        )
        columns = [column for column in job if column.name != "errors"]
        due: Select[Any] = (
            select(*columns, (now - job.born).label("age"))
            .where(job.due <= now)
            .order_by(job.due)
            .limit(bindparam("most"))
            .with_for_update(skip_locked=True)
        )
        self.due = due
        self.due_but_held = due.where(
            job.dependency.not_in(bindparam("held", expanding=True)),
            job.queue.not_in(bindparam("full", expanding=True)),
        )
        until = now + _seconds("lease")
        self.lease = (
            update(JOBS)
            .where(these)
            .values(state=State.DISPATCHED, due=until, dispatches=job.dispatches + 1)
        )
        self.set_aside = (
            update(JOBS)
            .where(job.id == bindparam("job"))
            .values(state=State.DEAD, due=null(), owner=null(), died=now)
        )
        self.give_back = (
            update(JOBS)
            .where(*copy, leased, job.owner == bindparam("taker"))
            .values(state=bindparam("before"), due=bindparam("was_due"), owner=null())
        )
        self.extend = update(JOBS).where(these, leased).values(due=until)
        self.finish = delete(JOBS).where(these)
        self.revoke = delete(JOBS).where(these, job.state != State.DEAD)
        kind = (job.state, job.dependency)
        overdue = now - func.min(job.due)
        self.counts = select(*kind, func.count(), overdue).group_by(*kind).order_by(*kind)
