"""The statements on jobs. They are built once, as building one takes longer than a commit."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Delete,
    Double,
    Insert,
    Integer,
    ScalarSelect,
    Select,
    Update,
    bindparam,
    delete,
    func,
    literal,
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
    """What is done to jobs.

    A place is a dependency, a queue and a state. Parameters whose names end in `_in` are seconds
    from now, or None for never.

    Attributes:
        keep: Insert a job unless its id exists.
        report: Record how the copy with this number ended, unless another copy has reported.
        places: Select the places with due jobs, the longest due first. The cost grows with the
            number of places, not of jobs.
        any_due: Select a place with due jobs.
        due: Select and lock what is due in one place.
        lease: Hand jobs to a relay.
        set_aside: Turn a job that cannot be read into a dead letter.
        give_back: Undo `lease`.
        extend: Extend leases.
        finish: Delete jobs.
        revoke: Delete jobs that are not dead letters.
        counts: Count the jobs of each place, up to one more than `limit`. The cost grows with the
            number of places, not of jobs.
        exact_counts: Count all jobs of each place.
    """

    keep: Insert
    report: Update
    places: Select[Any]
    any_due: Select[Any]
    due: Select[Any]
    lease: Update
    set_aside: Update
    give_back: Update
    extend: Update
    finish: Delete
    revoke: Delete
    counts: Select[Any]
    exact_counts: Select[Any]

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
                queue=bindparam("new_queue"),
                message=bindparam("new_message"),
                owner=null(),
                **ends,
            )
        )
        columns = [column for column in job if column.name != "errors"]
        self.places = _places(now, dependency="held", queue="full")
        self.any_due = _places(now).limit(1)
        self.due = (
            select(*columns, (now - job.born).label("age"))
            .where(
                job.dependency == bindparam("in_dependency"),
                job.queue == bindparam("in_queue"),
                job.state == bindparam("in_state"),
                job.due <= now,
            )
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
        self.counts = _counts(now, nests=database.nests)
        self.exact_counts = (
            select(job.state, job.dependency, func.count(), now - func.min(job.due))
            # In the order of the index, so that the database need not sort.
            .group_by(job.dependency, job.queue, job.state)
        )


def _places(now: ColumnElement[float], **left_out: str) -> Select[Any]:
    """Select the places with due jobs, except those that are *left_out*; see `_known_places`."""
    place = _known_places(**left_out)
    oldest = _least(JOBS.c.due, *_in_place(place), JOBS.c.due <= now)
    due = select(*place, oldest.label("due")).where(_is_set(place[-1])).subquery()
    return select(due).where(_is_set(due.c.due)).order_by(due.c.due)


def _counts(now: ColumnElement[float], *, nests: bool) -> Select[Any]:
    """Select state, dependency, number of jobs, and for how long the first of them has been due.

    Args:
        now: The time, as SQL.
        nests: Whether a derived table may name the columns of the query around it.
    """
    dependency, _, state = place = _known_places()
    most = bindparam("limit", type_=Integer)
    these = select(literal(1)).select_from(JOBS).where(*_in_place(place)).correlate(state.table)
    # PostgreSQL does not know how rare a place is; ordering makes it use the index.
    ordered = these.order_by(JOBS.c.due)
    jobs: ColumnElement[int]
    if nests:
        some = ordered.limit(most + 1).subquery()
        jobs = select(func.count()).select_from(some).scalar_subquery()
    else:
        # If there is a job beyond the limit, one more than the limit; else the jobs, counted.
        beyond = ordered.with_only_columns(most + 1).limit(1).offset(most)
        counted = these.with_only_columns(func.count())
        jobs = func.coalesce(beyond.scalar_subquery(), counted.scalar_subquery())
    overdue = now - _least(JOBS.c.due, *_in_place(place))
    return select(state, dependency, jobs, overdue).where(_is_set(state))


def _known_places(**left_out: str) -> list[ColumnElement[Any]]:
    """Return the columns of a query for all places: dependency, queue and state.

    This is a loose index scan: each distinct value is found in the index as the least one above the
    value before it. Databases do that only for a recursive query. A row whose state is null ends
    the search of its column, and is no place.

    Args:
        left_out: By column, the parameter with the values that are left out.
    """
    outer: list[ColumnElement[Any]] = []
    for column in (JOBS.c.dependency, JOBS.c.queue, JOBS.c.state):
        wanted: list[ColumnElement[bool]] = []
        if outer:
            above = outer[-1]
            wanted.append(_is_set(above))
            if above.name in left_out:
                wanted.append(above.not_in(bindparam(left_out[above.name], expanding=True)))
        first = _least(column, *_in_place(outer)).label(column.name)
        known = select(*outer, first).where(*wanted).cte(f"by_{column.name}", recursive=True)
        *key, last = known.c
        following = _least(column, *_in_place(key), column > last)
        known = known.union_all(select(*key, following).where(_is_set(last)))
        outer = list(known.c)
    return outer


def _in_place(place: Iterable[ColumnElement[Any]]) -> list[ColumnElement[bool]]:
    """Return the conditions that a job is in *place*, given by its first columns."""
    return [JOBS.c[column.name] == column for column in place]


def _least(column: ColumnElement[Any], *conditions: ColumnElement[bool]) -> ScalarSelect[Any]:
    return select(func.min(column)).where(*conditions).scalar_subquery()


def _is_set(column: ColumnElement[Any]) -> ColumnElement[bool]:
    return column.is_not(None)
