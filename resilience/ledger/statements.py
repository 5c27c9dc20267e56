"""The statements on jobs, built once: to build one takes longer than to commit it."""

from typing import Any

from sqlalchemy import (
    ColumnElement,
    Delete,
    Double,
    Insert,
    ScalarSelect,
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
        places: Select where jobs are due: dependency and queue, longest due first. What it costs
            depends on how many places there are, not on how many jobs.
        due: Select what is due in one place, and lock it.
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
    places: Select[Any]
    due: Select[Any]
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
        self.places = _places(now)
        self.due = (
            select(*columns, (now - job.born).label("age"))
            .where(job.dependency == bindparam("of"), job.queue == bindparam("on"), job.due <= now)
            .order_by(job.due)
            .limit(bindparam("most"))
            .with_for_update(skip_locked=True)
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


def _places(now: ColumnElement[float]) -> Select[Any]:
    """Select places with due jobs, but those that are held or full.

    Each distinct value is looked up in the index behind the one before: a loose index scan, which
    no database does by itself for a query without recursion.
    """
    job = JOBS.c
    names = select(func.min(job.dependency).label("dependency")).cte("names", recursive=True)
    name = names.c.dependency
    names = names.union_all(select(_least(job.dependency, job.dependency > name)).where(_is(name)))
    name = names.c.dependency
    first = _least(job.queue, job.dependency == name).label("queue")
    places = select(name, first).where(_is(name)).cte("places", recursive=True)
    here, queue = places.c.dependency, places.c.queue
    following = _least(job.queue, job.dependency == here, job.queue > queue)
    places = places.union_all(select(here, following).where(_is(queue)))
    here, queue = places.c.dependency, places.c.queue
    oldest = _least(job.due, job.dependency == here, job.queue == queue, job.due <= now)
    found = (
        select(here, queue, oldest.label("due"))
        .where(
            _is(queue),
            here.not_in(bindparam("held", expanding=True)),
            queue.not_in(bindparam("full", expanding=True)),
        )
        .subquery()
    )
    return select(found).where(_is(found.c.due)).order_by(found.c.due)


def _least(column: ColumnElement[Any], *conditions: ColumnElement[bool]) -> ScalarSelect[Any]:
    return select(func.min(column)).where(*conditions).scalar_subquery()


def _is(column: ColumnElement[Any]) -> ColumnElement[bool]:
    return column.is_not(None)
