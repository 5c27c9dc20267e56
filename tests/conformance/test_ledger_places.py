"""What a relay takes when some dependencies are held and some queues are full."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from resilience.ledger import Ledger
from tests.conformance.ledger_jobs import job, names, take

DEPENDENCIES = ("mail", "push", "sms")
LANES = ("", ".bulk", ".retry")


def fill(ledger: Ledger) -> dict[str, tuple[str, str]]:
    """Add two jobs to each place, all first ones before all second ones; return their places."""
    places = {}
    for turn, dependency, lane in product("ab", DEPENDENCIES, LANES):
        place = (dependency, dependency + lane)
        name = f"{turn}:{dependency}{lane}"
        ledger.add([job(name, dependency=place[0], queue=place[1])])
        places[name] = place
    return places


@pytest.mark.parametrize(
    ("held", "full"),
    [
        ((), ()),
        (("push",), ()),
        ((), ("mail.bulk", "sms")),
        (("mail", "unknown"), ("push.retry", "sms", "no queue")),
        (DEPENDENCIES, ()),
        ((), [one + lane for one in DEPENDENCIES for lane in LANES]),
    ],
    ids=["none", "held", "full", "both", "all held", "all full"],
)
def test_what_is_neither_held_nor_full_is_taken(
    ledger: Ledger, held: tuple[str, ...], full: tuple[str, ...]
) -> None:
    """The rest stays, and is taken once nothing keeps it."""
    places = fill(ledger)
    free = {name for name, (of, on) in places.items() if of not in held and on not in full}

    taken = ledger.take(99, owner="relay", lease_seconds=600.0, held=held, full=full)

    assert {*names(taken)} == free
    assert [one.due for one in taken] == sorted(one.due or 0.0 for one in taken)
    assert {*names(take(ledger))} == places.keys() - free


def test_place_whose_job_is_longest_due_comes_first(ledger: Ledger) -> None:
    """However few are taken at once, none waits behind what came after it in another place."""
    ledger.add([job("later", dependency="a", queue="a")])
    ledger.park(job("first", dependency="z", queue="z"), delay_seconds=-60.0, error=None)
    ledger.add([job("last", dependency="b", queue="b")])

    assert [names(take(ledger, 1)) for _ in range(4)] == [["first"], ["later"], ["last"], []]


def test_jobs_that_are_not_due_and_dead_letters_hide_no_other(ledger: Ledger) -> None:
    """A place may hold nothing that can be taken."""
    ledger.add([job("tomorrow", queue="a")], delay_seconds=86400.0)
    ledger.bury(job("dead", queue="b"), reason="exhausted", error=OSError())
    ledger.add([job("now", queue="c")])

    assert names(take(ledger)) == ["now"]


def steps_of_a_look(path: Path, jobs: int) -> int:
    """Return what SQLite does for one look past so many held jobs, in steps of its machine."""
    ledger = Ledger(f"sqlite:///{path}")
    ledger.add([job(f"held {number}") for number in range(jobs)])
    ledger.add([job("free", dependency="sms", queue="sms")])
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1

    def count(connection: Any, *_: object) -> None:  # noqa: ANN401 - sqlite3's
        connection.set_progress_handler(step, 1)

    event.listen(ledger._database._engine(), "checkout", count)  # noqa: SLF001
    taken = ledger.take(9, owner="relay", lease_seconds=600.0, held={"mail"})
    ledger.close()
    assert names(taken) == ["free"]
    return steps


def test_look_costs_the_same_however_much_is_held(tmp_path: Path) -> None:
    """A circuit is open for hours, and each worker looks twice a second."""
    few, many = (steps_of_a_look(tmp_path / f"{jobs}", jobs) for jobs in (20, 20_000))
    assert 0 < many <= few * 1.1
