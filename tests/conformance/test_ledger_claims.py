"""What a ledger promises of idempotency keys, whatever database it is in."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, event

from resilience.ledger import Claimed, Done, Ledger, Running

LONG = 600.0


@contextmanager
def statements() -> Iterator[list[None]]:
    """Yield a list that grows with each use of a connection, and each statement of SQLAlchemy's."""
    seen: list[None] = []

    def note(*_: object) -> None:
        seen.append(None)

    places = ("checkout", "before_cursor_execute")
    for place in places:
        event.listen(Engine, place, note)
    try:
        yield seen
    finally:
        for place in places:
            event.remove(Engine, place, note)


def test_key_is_one_owners(ledger: Ledger) -> None:
    """Of all who ask, one may run; the others hear who does, and until when."""
    assert ledger.claims.claim("k", owner="a", lease_seconds=LONG) == Claimed()
    assert ledger.claims.claim("other", owner="b", lease_seconds=LONG) == Claimed()

    running = ledger.claims.claim("k", owner="b", lease_seconds=LONG)

    assert isinstance(running, Running)
    assert running.owner == "a"
    assert LONG - 60 < running.seconds <= LONG


def test_owner_that_lost_the_answer_may_ask_again(ledger: Ledger) -> None:
    """A claim whose commit was not answered is no deadlock with oneself."""
    ledger.claims.claim("k", owner="a", lease_seconds=LONG)

    assert ledger.claims.claim("k", owner="a", lease_seconds=LONG) == Claimed()


def test_later_duplicate_gets_the_recorded_result(ledger: Ledger) -> None:
    """What was done is not done again while its result is kept, not even by who did it."""
    ledger.claims.claim("k", owner="a", lease_seconds=LONG)

    assert ledger.claims.complete("k", owner="a", result='{"sent": 1}', keep_seconds=LONG)
    assert ledger.claims.claim("k", owner="b", lease_seconds=LONG) == Done('{"sent": 1}')
    assert ledger.claims.claim("k", owner="a", lease_seconds=LONG) == Done('{"sent": 1}')


def test_result_is_forgotten_when_its_time_is_over(ledger: Ledger) -> None:
    """After that the key is as new."""
    ledger.claims.claim("k", owner="a", lease_seconds=LONG)
    ledger.claims.complete("k", owner="a", result="1", keep_seconds=0.0)

    assert ledger.claims.claim("k", owner="b", lease_seconds=LONG) == Claimed()
    assert isinstance(ledger.claims.claim("k", owner="a", lease_seconds=LONG), Running)


def test_released_key_is_free_at_once(ledger: Ledger) -> None:
    """A job that failed does not keep its key until the lease is over."""
    ledger.claims.claim("k", owner="a", lease_seconds=LONG)

    assert ledger.claims.release("k", owner="a")
    assert ledger.claims.claim("k", owner="b", lease_seconds=LONG) == Claimed()


def test_killed_owners_lease_runs_out(ledger: Ledger) -> None:
    """Nobody has to release what its owner cannot."""
    ledger.claims.claim("k", owner="killed", lease_seconds=0.0)

    assert ledger.claims.claim("k", owner="b", lease_seconds=LONG) == Claimed()


def test_renewed_lease_does_not_run_out(ledger: Ledger) -> None:
    """A long job keeps its key."""
    ledger.claims.claim("k", owner="a", lease_seconds=0.0)

    assert ledger.claims.renew("k", owner="a", lease_seconds=LONG)
    assert isinstance(ledger.claims.claim("k", owner="b", lease_seconds=LONG), Running)


def test_who_lost_the_key_changes_nothing(ledger: Ledger) -> None:
    """A late owner neither renews, nor releases, nor overwrites what is another's."""
    ledger.claims.claim("k", owner="late", lease_seconds=0.0)
    ledger.claims.claim("k", owner="b", lease_seconds=LONG)

    assert not ledger.claims.renew("k", owner="late", lease_seconds=0.0)
    assert not ledger.claims.release("k", owner="late")
    assert not ledger.claims.complete("k", owner="late", result="0", keep_seconds=LONG)
    assert ledger.claims.complete("k", owner="b", result="1", keep_seconds=LONG)
    assert not ledger.claims.complete("k", owner="b", result="2", keep_seconds=LONG)
    assert not ledger.claims.release("k", owner="b")
    assert ledger.claims.claim("k", owner="late", lease_seconds=LONG) == Done("1")


def test_long_keys_are_not_taken_for_each_other(ledger: Ledger) -> None:
    """No key is too long, and none is cut."""
    long = 300 * "k"
    assert ledger.claims.claim(f"{long}1", owner="a", lease_seconds=LONG) == Claimed()
    assert ledger.claims.claim(f"{long}2", owner="b", lease_seconds=LONG) == Claimed()

    assert ledger.claims.complete(f"{long}1", owner="a", result="1", keep_seconds=LONG)
    assert ledger.claims.claim(f"{long}1", owner="b", lease_seconds=LONG) == Done("1")
    assert ledger.claims.release(f"{long}2", owner="b")


def test_job_costs_two_statements_and_one_in_vain_as_many(ledger: Ledger) -> None:
    """One statement claims a key and one records the result, with no transaction around them."""
    ledger.claims.release("k", owner="nobody")  # the schema has been looked at
    with statements() as seen:
        ledger.claims.claim("k", owner="a", lease_seconds=LONG)
        ledger.claims.complete("k", owner="a", result="1", keep_seconds=LONG)
    assert len(seen) == 2

    with statements() as seen:
        ledger.claims.claim("k", owner="b", lease_seconds=LONG)
    assert len(seen) == 2
