"""Who waits for a fire-and-forget job is answered as for any task that ignores its results."""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from celery import Task, chain, chord, group

from tests.compatibility.bench import SECONDS, Bench, running_bench

SOON_SECONDS = 0.3
Asks = Callable[[Bench, Task[Any, Any]], object]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Servers, a worker of apps/publishing.py, and the app in this process."""
    with running_bench(tmp_path_factory) as bench:
        yield bench


def _facts(result: Any) -> object:  # noqa: ANN401 - any result
    return result.ignored, result.ready(), result.state, result.get(timeout=SECONDS)


def _plain(bench: Bench) -> Any:  # noqa: ANN401 - a signature
    return bench.app.tasks["plain"].s("after")


def _chord(bench: Bench, task: Task[Any, Any]) -> object:
    members = [task.s(uuid4().hex, number) for number in (1, 2)]
    return chord(members)(bench.app.tasks["plain"].s(uuid4().hex)).get(timeout=SECONDS)


ASKS: dict[str, Asks] = {
    "get": lambda _, task: task.delay("k").get(),
    "get-timeout": lambda _, task: task.delay("k").get(timeout=SECONDS),
    "get-now": lambda _, task: task.delay("k").get(timeout=0),
    "facts": lambda _, task: _facts(task.delay("k")),
    "countdown": lambda _, task: task.apply_async(("k",), countdown=60).get(),
    "ignored-by-call": lambda _, task: task.apply_async(("k",), ignore_result=True).get(),
    "ignored-by-nobody": lambda _, task: task.apply_async(("k",), ignore_result=None).ignored,
    "stored-by-call": lambda _, task: task.apply_async(("k", 5), ignore_result=False).get(SECONDS),
    "by-id": lambda _, task: task.AsyncResult(task.delay("k").id).get(timeout=SOON_SECONDS),
    "by-id-of-app": lambda b, task: b.app.AsyncResult(task.delay("k").id).get(timeout=SOON_SECONDS),
    "join": lambda _, task: group(task.s("k"), task.s("k")).delay().join(timeout=SOON_SECONDS),
    "group": lambda _, task: group(task.s("k"), task.s("k")).delay().get(timeout=SOON_SECONDS),
    "chain": lambda b, task: chain(task.si("k", 3), _plain(b)).delay().get(timeout=SECONDS),
    "chain-end": lambda b, task: chain(_plain(b), task.s()).delay().get(timeout=SOON_SECONDS),
    "parent": lambda b, task: (
        chain(task.si("k"), _plain(b)).delay().parent.get(timeout=SOON_SECONDS)
    ),
    "chord": _chord,
    "eager": lambda _, task: task.apply(("k", 4)).get(),
}


def _ask(bench: Bench, task: str, ask: str) -> object:
    try:
        return ASKS[ask](bench, bench.app.tasks[task])
    except Exception as error:  # noqa: BLE001 - both are to end in the same
        return type(error)


@pytest.mark.parametrize("ask", ASKS)
def test_fire_and_forget_job_answers_as_a_plain_one(bench: Bench, ask: str) -> None:
    """At once where Celery answers at once, and with the same."""
    assert _ask(bench, "fire", ask) == _ask(bench, "plain_ignored", ask)


def test_kept_job_answers_at_once(bench: Bench) -> None:
    """A job in the outbox, and one of a transaction, as well."""
    fire = bench.app.tasks["fire"]

    assert bench.publish("fire", uuid4().hex, {}, kept=True).get() is None
    with bench.ledger._database.writing() as connection:  # noqa: SLF001 - the ledger's own database
        assert fire.publish_with(connection, (uuid4().hex,)).get() is None


def test_result_that_the_caller_wants_is_stored(bench: Bench) -> None:
    """`ignore_result=False` holds also for a job that was kept, and for one that failed once."""
    options = {"ignore_result": False}

    kept = bench.publish("fire", uuid4().hex, options, kept=True)
    failed = bench.publish("fire_failing", uuid4().hex, options)

    assert kept.get(timeout=SECONDS) == 7
    assert failed.get(timeout=SECONDS) == 7
