"""The ledger does what it is asked, and the answer is lost: what is done again counts once."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from resilience.errors import LedgerUnavailableError
from resilience.flags.document import Order
from resilience.ledger import Ledger, Which
from resilience.ledger.claims import Claims
from resilience.ledger.database import Database
from resilience.ledger.letters import Letters
from resilience.ledger.orders import Orders
from tests.conformance.ledger_jobs import LEASE_SECONDS, buried, dead, failure, job, shown, states

READS = {
    "Ledger.counts", "Ledger.identity", "Ledger.check_names", "Ledger.close",
    "Letters.find", "Letters.causes", "Letters.show", "Letters.extent", "Letters.states",
    "Letters.audit", "Letters.ids", "Orders.latest", "Orders.history", "Orders.recent",
}  # fmt: skip
CALLERS = {"Ledger.add_in"}
"""The caller commits, and knows whether that was answered."""
ONCE = {"Ledger.upgrade"}
"""Alembic asks which steps were made; tests/conformance/test_ledger_kills.py breaks it off."""


class Stage:
    """A ledger, and one step whose answer is lost, or none."""

    def __init__(self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, *, loses: bool) -> None:
        """Lose the answer of the step if the test says so."""
        self.ledger = ledger
        self._patch = monkeypatch
        self._loses = loses

    def step(self, call: Callable[[], object]) -> None:
        """Make *call*; if the answer to its first commit was lost, make it again."""
        if self._loses:
            with self._patch.context() as patch:
                lost = _lose(patch)
                with suppress(LedgerUnavailableError):
                    call()
            assert lost
        call()

    def seen(self, *ids: str) -> list[Any]:
        """Return the states, what is kept of the jobs *ids*, and the audit."""
        kept = [shown(self.ledger, name) for name in ids]
        audit = [(entry.action, entry.job) for entry in self.ledger.letters.audit()]
        return [
            states(self.ledger),
            [(one.id, one.attempts, len(one.errors)) for one in kept],
            audit,
        ]


def _lose(patch: pytest.MonkeyPatch) -> list[str]:
    """Let the next change of a database be made, and fail; return what was lost by then."""
    lost: list[str] = []
    change, writing = Database.change, Database.writing

    def fail() -> None:
        if not lost:
            lost.append("answer")
            msg = "the answer was lost"
            raise LedgerUnavailableError(msg)

    def changed(self: Database, *args: Any, **options: Any) -> int:  # noqa: ANN401 - handed on
        rows = change(self, *args, **options)
        fail()
        return rows

    @contextmanager
    def written(self: Database) -> Iterator[Connection]:
        with writing(self) as connection:
            yield connection
        fail()

    patch.setattr(Database, "change", changed)
    patch.setattr(Database, "writing", written)
    return lost


def add(stage: Stage) -> object:
    """A job is in the outbox once."""
    stage.step(lambda: stage.ledger.add([job()]))
    return states(stage.ledger)


def take(stage: Stage) -> object:
    """A job that was taken by nobody who knows of it is not given to another before its lease."""
    stage.ledger.add([job()])
    stage.step(lambda: stage.ledger.take(9, owner="r", lease_seconds=LEASE_SECONDS))
    return states(stage.ledger)


def _taken(stage: Stage) -> Any:  # noqa: ANN401 - a job
    stage.ledger.add([job()])
    return stage.ledger.take(9, owner="r", lease_seconds=LEASE_SECONDS)[0]


def give_back(stage: Stage) -> object:
    """A job that was given back is due once."""
    taken = _taken(stage)
    stage.step(lambda: stage.ledger.give_back([taken], owner="r"))
    return states(stage.ledger)


def extend(stage: Stage) -> object:
    """A lease is extended."""
    _taken(stage)
    stage.step(lambda: stage.ledger.extend(["a"], lease_seconds=9.0))
    return states(stage.ledger)


def finish(stage: Stage) -> object:
    """A job that is done is gone."""
    _taken(stage)
    stage.step(lambda: stage.ledger.finish(["a"]))
    return states(stage.ledger)


def revoke(stage: Stage) -> object:
    """A job that shall not run is gone."""
    _taken(stage)
    stage.step(lambda: stage.ledger.revoke(["a"]))
    return states(stage.ledger)


def park(stage: Stage) -> object:
    """A failure is one attempt and one line."""
    taken, error = _taken(stage), failure()
    stage.step(lambda: stage.ledger.park(taken, delay_seconds=60.0, error=error))
    stage.step(lambda: stage.ledger.park(job("new"), delay_seconds=60.0, error=error))
    return states(stage.ledger), _attempts(stage)


def _attempts(stage: Stage) -> list[Any]:
    with stage.ledger._database.reading() as connection:  # noqa: SLF001 - no view shows these
        text = "SELECT id, attempts, errors FROM resilience_jobs ORDER BY id"
        rows = connection.exec_driver_sql(text).all()
    return [(row.id, row.attempts, len(row.errors.splitlines())) for row in rows]


def bury(stage: Stage) -> object:
    """A job is one dead letter with one line."""
    taken, error = _taken(stage), failure()
    stage.step(lambda: stage.ledger.bury(taken, reason="exhausted", error=error))
    return stage.seen("a")


def replay(stage: Stage) -> object:
    """A letter is replayed once, with one line of audit."""
    buried(stage.ledger, "a")
    made, number = Which(), count()
    order: dict[str, Any] = {"actor": "ann", "reason": "x", "limit": 9}
    stage.step(
        lambda: stage.ledger.letters.replay(made, new_id=lambda: f"n{next(number)}", **order)
    )
    return stage.seen(), dead(stage.ledger)


def discard(stage: Stage) -> object:
    """A letter is discarded once, with one line of audit."""
    buried(stage.ledger, "a")
    stage.step(lambda: stage.ledger.letters.discard(Which(), actor="ann", reason="x", limit=9))
    return stage.seen()


def purge(stage: Stage) -> object:
    """What is too old is gone."""
    buried(stage.ledger, "a")
    stage.step(lambda: stage.ledger.letters.purge(older_than_seconds=0.0))
    return stage.seen()


def note(stage: Stage) -> object:
    """The audit is at-least-once: whoever orders again, as nothing was answered, is noted again."""
    order = {"actor": "ann", "reason": "x"}
    stage.step(lambda: stage.ledger.letters.note("hold", "mail", **order))
    return set(stage.seen()[2])


def claim(stage: Stage) -> object:
    """The owner has the key, whether it knows or not."""
    claims = stage.ledger.claims
    stage.step(lambda: claims.claim("k", owner="o", lease_seconds=60.0))
    mine = claims.claim("k", owner="o", lease_seconds=60.0)
    return type(mine), type(claims.claim("k", owner="other", lease_seconds=60.0))


def _claimed(stage: Stage) -> Claims:
    stage.ledger.claims.claim("k", owner="o", lease_seconds=60.0)
    return stage.ledger.claims


def renew(stage: Stage) -> object:
    """A lease is renewed."""
    claims = _claimed(stage)
    stage.step(lambda: claims.renew("k", owner="o", lease_seconds=60.0))
    return type(claims.claim("k", owner="other", lease_seconds=60.0))


def complete(stage: Stage) -> object:
    """A result is recorded once, and everybody gets it."""
    claims = _claimed(stage)
    stage.step(lambda: claims.complete("k", owner="o", result="1", keep_seconds=60.0))
    return claims.claim("k", owner="other", lease_seconds=60.0)


def release(stage: Stage) -> object:
    """A key that was given back is free."""
    claims = _claimed(stage)
    stage.step(lambda: claims.release("k", owner="o"))
    return type(claims.claim("k", owner="other", lease_seconds=60.0))


def keep(stage: Stage) -> object:
    """An order is kept once."""
    order = Order(state="on", until=9.0, actor="ann", reason="x", version=1, at=1.0)
    stage.step(lambda: stage.ledger.orders.keep("search", order))
    return stage.ledger.orders.history("search")


CASES = {
    "Ledger": (add, take, give_back, extend, finish, revoke, park, bury),
    "Letters": (replay, discard, purge, note),
    "Claims": (claim, renew, complete, release),
    "Orders": (keep,),
}


@pytest.mark.parametrize("case", sum(CASES.values(), ()), ids=lambda case: case.__name__)
def test_step_whose_answer_was_lost_counts_once(
    case: Callable[[Stage], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger holds the same, whether the answer came or the step was made again."""
    found = []
    for loses in (False, True):
        ledger = Ledger(f"sqlite:///{tmp_path}/{loses}.db", timeout_seconds=5.0)
        found.append(case(Stage(ledger, monkeypatch, loses=loses)))
        ledger.close()
    assert found[0] == found[1]


def test_every_write_of_the_ledger_is_among_the_cases() -> None:
    """A new method needs a case here, or a word that it only reads."""
    public = {
        f"{kind.__name__}.{name}"
        for kind in (Ledger, Letters, Claims, Orders)
        for name, _ in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_")
    }
    cases = {f"{kind}.{case.__name__}" for kind, some in CASES.items() for case in some}
    assert public == cases | READS | CALLERS | ONCE
