"""What a ledger promises about jobs, in each kind of database."""

import re
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session

from resilience.errors import LedgerUnavailableError, UnkeepableError
from resilience.events import Event, JobSetAside
from resilience.ledger import Ledger, State
from resilience.ledger.engines import read_url
from tests.conformance.ledger_jobs import (
    by_hand,
    failure,
    job,
    names,
    shown,
    states,
    take,
)
from tests.unit.hand_clock import HandClock

HOUR = 3600.0


@pytest.fixture
def engine(ledger: Ledger, ledger_url: str) -> Iterator[Engine]:
    """The user's own engine, on the ledger's database."""
    del ledger  # has created the tables
    made = create_engine(read_url(ledger_url))
    yield made
    made.dispose()


def test_job_is_kept_as_it_was_given(ledger: Ledger) -> None:
    """A relay gets, byte for byte, the message that was handed in."""
    given = job("a", origin="root", attempts=2, age_seconds=HOUR)
    ledger.add([given])

    [taken] = take(ledger)

    assert (taken.message, taken.origin, taken.attempts) == (given.message, "root", 2)
    assert (taken.task, taken.dependency, taken.queue) == (given.task, "mail", "mail.retry")
    assert HOUR <= taken.age_seconds < HOUR + 60
    assert (taken.dispatches, taken.state) == (1, State.OUTBOX)


def test_job_of_a_long_name_is_kept_as_it_is_or_refused(ledger: Ledger, ledger_url: str) -> None:
    """No database truncates it. MariaDB, which would, refuses it, and the error says what to do."""
    long = 300 * "a"
    given = job(long, task=long, queue=long)
    if ledger_url.startswith("mariadb"):
        refusal = re.escape(f"at most 255 characters, got {long!r}; shorten it")
        with pytest.raises(UnkeepableError, match=refusal):
            ledger.add([given])
    else:
        ledger.add([given])
        assert names(take(ledger)) == [long]
        assert ledger.finish([long]) == 1
    assert states(ledger) == {}


def test_jobs_are_taken_once_in_the_order_in_which_they_came(ledger: Ledger) -> None:
    """The oldest come first, and a job that one relay has taken is given to no other."""
    ledger.add([job("a"), job("b")])
    ledger.add([job("c")])

    assert names(take(ledger, 2)) == ["a", "b"]
    assert names(take(ledger, 2)) == ["c"]
    assert take(ledger, 2) == []


def test_jobs_that_are_added_together_keep_their_order(ledger_url: str) -> None:
    """Whatever their ids and dependencies, even if all come at one moment."""
    ledger = Ledger(ledger_url, clock=HandClock())
    ledger.upgrade()
    together = [job(f"{n:02}", dependency=f"d{n % 3}") for n in range(20, 0, -1)]
    ledger.add(together)

    assert names(take(ledger)) == names(together)
    ledger.close()


def test_job_is_not_taken_before_it_is_due(ledger: Ledger) -> None:
    """Parked and scheduled jobs wait, however many may be taken."""
    ledger.add([job("a")], delay_seconds=HOUR)
    ledger.park(job("b"), delay_seconds=HOUR, error=failure())
    ledger.park(job("c"), delay_seconds=0.0, error=failure())

    assert names(take(ledger)) == ["c"]
    assert states(ledger) == {"scheduled": 2, "dispatched": 1}


def test_job_of_a_held_dependency_stays_where_it_is(ledger: Ledger) -> None:
    """Jobs behind it are taken, and it is taken once its dependency is no longer held."""
    ledger.add([job("a"), job("b", dependency="sms")])

    held = ledger.take(9, owner="relay", lease_seconds=HOUR, held={"mail", "push"})

    assert names(held) == ["b"]
    assert names(take(ledger)) == ["a"]


def test_known_job_is_not_added_again(ledger: Ledger) -> None:
    """A publisher that is not sure may add a job twice; the second time changes nothing."""
    ledger.park(job("a"), delay_seconds=HOUR, error=failure())
    ledger.add([job("a"), job("b")])

    assert names(take(ledger)) == ["b"]
    assert shown(ledger, "a").attempts == 1


def test_job_whose_lease_ran_out_is_due_again(ledger: Ledger) -> None:
    """A broker that forgot a message, or a worker that died with it, loses nothing."""
    ledger.add([job("a")])
    take(ledger, lease_seconds=0.0)

    [again] = take(ledger)

    assert (again.id, again.dispatches, again.state) == ("a", 2, State.DISPATCHED)


def test_extended_lease_does_not_run_out(ledger: Ledger) -> None:
    """A lease keeps others from a job; a job that was parked or is unknown has none to extend."""
    ledger.add([job("a"), job("b")])
    [a, b] = take(ledger, lease_seconds=0.0)
    ledger.park(b, delay_seconds=0.0, error=failure())

    assert ledger.extend([a.id, b.id, "unknown"], lease_seconds=HOUR) == 1
    assert names(take(ledger)) == ["b"]


def test_jobs_given_back_are_due_as_they_were(ledger: Ledger) -> None:
    """If publishing fails, neither the job nor its place in the order is lost."""
    ledger.add([job("a")])
    ledger.park(job("b"), delay_seconds=0.0, error=failure())
    before = take(ledger, 2)
    ledger.add([job("c")])

    assert ledger.give_back(before, owner="relay") == 2
    assert states(ledger) == {"outbox": 2, "scheduled": 1}
    assert names(take(ledger)) == ["a", "b", "c"]


def test_job_that_is_another_relays_is_not_given_back(ledger: Ledger) -> None:
    """A relay whose lease ran out in the meantime has nothing to give back."""
    ledger.add([job("a")])
    late = take(ledger, lease_seconds=0.0)
    current = take(ledger)

    assert ledger.give_back(late, owner="relay") == 0
    assert ledger.give_back(current, owner="other") == 0
    assert ledger.give_back([], owner="relay") == 0
    assert states(ledger) == {"dispatched": 1}


@pytest.mark.parametrize("state", ["outbox", "scheduled", "dispatched", "dead"])
def test_finished_job_is_gone(ledger: Ledger, state: str) -> None:
    """It is so in whichever state a copy of the job has left it."""
    ledger.add([job("a")], delay_seconds=HOUR if state == "scheduled" else None)
    if state == "dispatched":
        take(ledger)
    if state == "dead":
        ledger.bury(job("a"), reason="bug", error=failure())
    assert states(ledger) == {state: 1}

    assert ledger.finish(["a", "unknown"]) == 1
    assert states(ledger) == {}


def test_failures_add_up(ledger: Ledger) -> None:
    """Every attempt's error is kept, in order, whether the ledger knew the job before or not."""
    ledger.park(job("a"), delay_seconds=0.0, error=failure("first"))
    [taken] = take(ledger)
    ledger.park(taken, delay_seconds=0.0, error=failure("second"))
    [taken] = take(ledger)
    ledger.bury(taken, reason="exhausted", error=failure("third"))

    letter = shown(ledger, "a")
    assert [error["text"] for error in letter.errors] == ["first", "second", "third"]
    assert (letter.attempts, letter.state, letter.reason) == (3, "dead", "exhausted")
    assert all(error["type"] == "ConnectionError" for error in letter.errors)
    assert all("in failure\n" in error["traceback"] for error in letter.errors)


def test_refusal_spends_no_attempt(ledger: Ledger) -> None:
    """A job that was not tried waits without an error, however often it is refused."""
    ledger.park(job("a"), delay_seconds=0.0, error=None)
    [taken] = take(ledger)
    ledger.park(taken, delay_seconds=0.0, error=None)

    assert (shown(ledger, "a").attempts, shown(ledger, "a").errors) == (0, [])


def test_copy_that_is_too_late_changes_nothing(ledger: Ledger) -> None:
    """Once a job was published again, the result of the older copy is ignored."""
    ledger.add([job("a")])
    [late] = take(ledger, lease_seconds=0.0)
    take(ledger)

    assert not ledger.park(late, delay_seconds=0.0, error=failure())
    assert not ledger.bury(late, reason="bug", error=failure())
    assert not ledger.park(job("a"), delay_seconds=0.0, error=failure())
    assert (shown(ledger, "a").state, shown(ledger, "a").attempts) == ("dispatched", 0)


def test_copy_that_was_delivered_twice_reports_once(ledger: Ledger) -> None:
    """Of two deliveries of one message, the first that fails counts."""
    assert ledger.park(job("a"), delay_seconds=HOUR, error=failure())
    assert not ledger.park(job("a"), delay_seconds=0.0, error=failure())
    assert not ledger.bury(job("a"), reason="bug", error=failure())
    assert (shown(ledger, "a").state, shown(ledger, "a").attempts) == ("scheduled", 1)


def test_dispatched_job_that_the_ledger_has_lost_is_kept(ledger: Ledger) -> None:
    """If the database was restored from an older backup, a failure still loses nothing."""
    assert ledger.park(job("a", dispatches=3, attempts=3), delay_seconds=0.0, error=failure())
    assert names(take(ledger)) == ["a"]
    assert shown(ledger, "a").attempts == 4


def test_text_that_no_column_takes_is_kept(ledger: Ledger) -> None:
    """The text of an error may contain zero bytes and lone surrogates."""
    ledger.park(job("a"), delay_seconds=0.0, error=failure("\x00\udcff\n\u2028"))

    assert shown(ledger, "a").errors[0]["text"] == "\x00\udcff\n\u2028"


def test_job_exists_if_and_only_if_the_callers_transaction_commits(
    ledger: Ledger, engine: Engine
) -> None:
    """That holds for a session and for a connection: no job is early, lost, or too many."""
    with Session(engine) as session:
        ledger.add_in(session, job("rolled-back"))
        session.rollback()
        ledger.add_in(session, job("committed"))
        session.commit()
    with engine.begin() as connection:
        ledger.add_in(connection, job("connection"))
        assert states(ledger) == {"outbox": 1}

    assert names(take(ledger)) == ["committed", "connection"]


def test_publish_in_a_database_that_is_no_ledger_is_refused() -> None:
    """No relay would find the job there: it must not be lost in silence."""
    engine = create_engine("sqlite://")
    with engine.connect() as connection, pytest.raises(LedgerUnavailableError, match="no such"):
        Ledger("sqlite:////nowhere/ledger.db").add_in(connection, job())
    engine.dispose()


def test_row_that_cannot_be_read_is_set_aside_and_the_others_go_on(
    ledger_url: str,
) -> None:
    """It becomes a dead letter with a reason, an event announces it, and other jobs are taken."""
    events: list[Event] = []
    ledger = Ledger(ledger_url, listeners=[events.append])
    ledger.upgrade()
    broken = {"cut": '{"args": [', "list": "[]", "state": "{}", "deep": "[" * 100_000}
    ledger.add([job(name) for name in ("first", *broken, "last")])
    change = "UPDATE resilience_jobs SET message = :message WHERE id = :id"
    for name, message in broken.items():
        by_hand(ledger_url, change, message=message, id=name)
    by_hand(ledger_url, "UPDATE resilience_jobs SET state = 'lost' WHERE id = 'state'")
    if ledger_url.startswith("sqlite"):
        broken |= dict.fromkeys(("bytes", "text"), "")
        ledger.add([job("bytes"), job("text")])
        by_hand(ledger_url, change, message=b"\xff\x00", id="bytes")
        no_text = "UPDATE resilience_jobs SET message = CAST(x'227BFF22' AS TEXT) WHERE id = :id"
        by_hand(ledger_url, no_text, id="text")

    assert names(take(ledger)) == ["first", "last"]
    assert take(ledger) == []
    assert {event.id for event in events if isinstance(event, JobSetAside)} == set(broken)
    assert len(events) == len(broken)
    for name in broken:
        assert (shown(ledger, name).state, shown(ledger, name).reason) == ("dead", "unreadable")
    ledger.close()


def test_counts_say_what_waits_and_for_how_long(ledger: Ledger) -> None:
    """An operator sees how many jobs there are, and how overdue, by state and dependency."""
    ledger.add([job("a"), job("b"), job("c", dependency="sms")])
    ledger.park(job("d"), delay_seconds=HOUR, error=failure())
    ledger.bury(job("e"), reason="bug", error=failure())

    counts = {(count.state, count.dependency): count for count in ledger.counts()}

    assert {key: count.jobs for key, count in counts.items()} == {
        (State.OUTBOX, "mail"): 2,
        (State.OUTBOX, "sms"): 1,
        (State.SCHEDULED, "mail"): 1,
        (State.DEAD, "mail"): 1,
    }
    overdue = counts[State.SCHEDULED, "mail"].overdue_seconds
    assert overdue is not None
    assert -HOUR <= overdue < 60 - HOUR
    assert counts[State.DEAD, "mail"].overdue_seconds is None
