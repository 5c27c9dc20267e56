"""Whatever is killed at whatever moment, and whoever else is at it: nothing is lost or doubled."""

import os
import signal
from collections.abc import Callable

import pytest
from sqlalchemy import create_engine, text

from resilience.ledger import Claimed, Done, Ledger
from resilience.ledger.engines import read_url
from resilience.testing.waiting import wait_until
from tests.conformance import ledger_child as child
from tests.conformance.ledger_jobs import (
    by_hand,
    dead,
    failure,
    job,
    names,
    shown,
    states,
    take,
)

JOBS = 200
LETTERS = 210
SECONDS = 120.0
ON_A_SERVER = [pytest.param(name, marks=pytest.mark.long) for name in ("postgresql", "mariadb")]
"""Half a minute; what a killed process leaves in a file is seen in every run."""
CONNECTED = {
    "postgresql": "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
    "AND backend_type = 'client backend' AND pid <> pg_backend_pid()",
    # Not `innodb_trx`: that is read again only if nobody has read it for 0.1 s.
    "mariadb": "SELECT id FROM information_schema.processlist WHERE id <> connection_id()",
}
"""A server lists a connection until it has rolled back what was begun there."""


def killed_and_done_again(url: str, ledger: Ledger, step: child.Step, number: int) -> bool:
    """Kill a process in *step* at moment *number*, then do it; tell whether there is such."""
    others = connections(url)
    process = child.started(child.die_before, url, step, number)
    process.join(SECONDS)
    assert process.exitcode in {0, -signal.SIGKILL}
    wait_until(lambda: connections(url) <= others, SECONDS, "the server knows that it is dead")
    step(ledger)
    return process.exitcode != 0


def connections(url: str) -> set[int]:
    """Return the connections to a server: it notices late that a client is dead."""
    engine = create_engine(read_url(url))
    try:
        if engine.name not in CONNECTED:
            return set()
        with engine.connect() as connection:
            return {*connection.scalars(text(CONNECTED[engine.name]))}
    finally:
        engine.dispose()


def wipe(url: str) -> None:
    """Empty the database."""
    tables = ("jobs", "audit", "claims")
    by_hand(url, *(f"DELETE FROM resilience_{table}" for table in tables))  # noqa: S608 - constants


def check_added(ledger: Ledger) -> None:
    """All are there, once."""
    assert names(take(ledger)) == ["a", "b", "c"]


def check_taken(ledger: Ledger) -> None:
    """All can be taken again."""
    assert sorted(names(take(ledger))) == ["a", "b", "c"]


def check_parked(ledger: Ledger) -> None:
    """It is due, with one failure."""
    assert names(take(ledger)) == ["new"]
    assert (shown(ledger, "new").attempts, len(shown(ledger, "new").errors)) == (1, 1)


def check_parked_again(ledger: Ledger) -> None:
    """It is due, with one failure, and the others are as they were."""
    assert names(take(ledger)) == ["a"]
    assert (shown(ledger, "a").attempts, len(shown(ledger, "a").errors)) == (1, 1)


def check_buried(ledger: Ledger) -> None:
    """It is one dead letter."""
    assert dead(ledger) == ["a"]
    assert (shown(ledger, "a").attempts, len(shown(ledger, "a").errors)) == (1, 1)


def check_finished(ledger: Ledger) -> None:
    """Those two are gone."""
    assert states(ledger) == {"dispatched": 1}


def check_replayed(ledger: Ledger) -> None:
    """Every letter is one job, and one line of the audit says so."""
    assert dead(ledger) == []
    assert states(ledger) == {"scheduled": LETTERS}
    origins = {replayed.id: replayed.origin for replayed in take(ledger)}
    assert sorted(map(str, origins.values())) == [f"{number:04}" for number in range(LETTERS)]
    audit = ledger.letters.audit(limit=2 * LETTERS)
    assert {entry.replay: entry.job for entry in audit} == origins
    assert len(audit) == LETTERS


def check_discarded(ledger: Ledger) -> None:
    """Every letter is gone, and one line of the audit says so."""
    assert states(ledger) == {}
    assert len(ledger.letters.audit(limit=2 * LETTERS)) == LETTERS


def check_claimed(ledger: Ledger) -> None:
    """It is done."""
    assert ledger.claims.claim("k", owner="p", lease_seconds=1.0) == Done("1")


def nothing(_: Ledger, __: str) -> None:
    """Prepare nothing."""


def three_due(ledger: Ledger, _: str) -> None:
    """Have three jobs that are due."""
    child.add(ledger)


def three_dispatched(ledger: Ledger, _: str) -> None:
    """Have three jobs that were dispatched."""
    child.add(ledger)
    take(ledger)


def letters(ledger: Ledger, url: str) -> None:
    """Have more dead letters than fit into one transaction."""
    ledger.add(job(f"{number:04}") for number in range(LETTERS))
    by_hand(url, "UPDATE resilience_jobs SET state = 'dead', due = NULL, died = created")


@pytest.mark.parametrize("ledger_url", ["sqlite", *ON_A_SERVER], indirect=True)
@pytest.mark.parametrize(
    ("prepare", "step", "check", "moments"),
    [
        pytest.param(nothing, child.add, check_added, 2, id="add"),
        pytest.param(three_due, child.take, check_taken, 3, id="take"),
        pytest.param(nothing, child.park, check_parked, 1, id="park-new"),
        pytest.param(three_dispatched, child.park_again, check_parked_again, 1, id="park-known"),
        pytest.param(three_dispatched, child.bury, check_buried, 1, id="bury"),
        pytest.param(three_dispatched, child.finish, check_finished, 1, id="finish"),
        pytest.param(letters, child.replay, check_replayed, 8, id="replay"),
        pytest.param(letters, child.discard, check_discarded, 8, id="discard"),
        pytest.param(nothing, child.claim, check_claimed, 2, id="claim"),
    ],
)
def test_step_that_is_killed_anywhere_can_be_done_again(
    ledger: Ledger,
    ledger_url: str,
    prepare: Callable[[Ledger, str], None],
    step: child.Step,
    check: Callable[[Ledger], None],
    moments: int,
) -> None:
    """Killed between any two statements, and done again, it is as if it had been done once."""
    number = 0
    alive = True
    while alive:
        wipe(ledger_url)
        prepare(ledger, ledger_url)
        alive = killed_and_done_again(ledger_url, ledger, step, number)
        check(ledger)
        number += 1

    assert number > moments


def test_two_relays_at_once_never_take_the_same_job(ledger: Ledger, ledger_url: str) -> None:
    """Every job is taken by exactly one of the processes that ask at once."""
    ledger.add(job(str(number)) for number in range(JOBS))

    first, second = child.together(child.take_all, ledger_url, 2)

    assert len(first) + len(second) == JOBS
    assert {*first, *second} == {str(number) for number in range(JOBS)}


def test_two_replays_at_once_never_take_the_same_letter(ledger: Ledger, ledger_url: str) -> None:
    """Every letter is replayed by exactly one of the processes that try at once."""
    letters(ledger, ledger_url)

    first, second = child.together(child.replay_all, ledger_url, 2)

    assert len(first) + len(second) == LETTERS
    check_replayed(ledger)


def test_two_owners_at_once_never_claim_the_same_key(ledger: Ledger, ledger_url: str) -> None:
    """Every key is claimed by exactly one of the processes that ask at once."""
    del ledger  # it has made the tables
    first, second = child.together(child.claim_all, ledger_url, 2)

    assert len(first) + len(second) == 100
    assert len({*first, *second}) == 100


def test_forked_child_uses_no_connection_of_its_parent(ledger: Ledger) -> None:
    """A ledger that was used before a fork can be used on both sides of it."""
    ledger.add([job("parent")])
    child_pid = os.fork()
    if child_pid == 0:
        try:
            ledger.add([job("child")])
            ledger.close()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child_pid, 0)

    assert status == 0
    assert sorted(names(take(ledger))) == ["child", "parent"]
    assert ledger.park(job("c"), delay_seconds=0.0, error=failure())
    assert ledger.claims.claim("k", owner="o", lease_seconds=1.0) == Claimed()
