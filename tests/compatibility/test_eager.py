"""With `task_always_eager` tasks behave as Celery's own do, and nothing leaves the process."""

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest
from celery import Celery, Task, chain, chord, group
from celery.exceptions import Ignore, Reject

from resilience import BreakerPolicy, CircuitOpenError, current_budget, fallback
from resilience.dependency import Dependency
from resilience.levels import Level
from resilience.outcome import Outcome
from resilience.retry import RetryPolicy
from resilience.settings import Settings
from resilience.tasks import FanOut, FireAndForgetTask, Resilience, ResilientTask, part

NOWHERE = "redis://127.0.0.1:1/0"
"""Nobody listens there: whatever leaves the process is an error, or is late."""

NEVER_OPEN = BreakerPolicy(minimum_calls=10_000)
"""What fails in one situation opens no circuit in the next."""


class Broken(Exception):  # noqa: N818 - a word of the test
    """What a body ends in."""


class Desk:
    """An app with one task of each kind, of one class, and what its bodies did."""

    def __init__(self, app: Celery[Any], **options: Any) -> None:  # noqa: ANN401 - of a task
        self.app = app
        self.ran: list[object] = []
        self.failures = 0
        declare = {"shared": False, "bind": True, **options}
        app.task(self._task(self._fail), name="fail", **declare)
        app.task(self._task(self._echo), name="echo", **declare)
        app.task(self._task(self._add), name="add", **declare)
        app.task(self._task(self._total), name="total", **declare)
        app.task(self._task(self._nest), name="nest", **declare)
        app.task(self._task(self._retry), name="retry", max_retries=2, **declare)
        app.task(self._task(self._end), name="end", **declare)
        app.task(self._task(self._replace), name="replace", **declare)
        auto = {"autoretry_for": (Broken,), "max_retries": 2, "retry_backoff": False}
        app.task(self._task(self._fail), name="auto", **auto, **declare)

    def forget(self) -> None:
        """Forget what the bodies did."""
        self.ran, self.failures = [], 0

    @staticmethod
    def _task(method: Callable[..., Any]) -> Callable[..., Any]:
        def body(task: Any, value: Any = None) -> Any:  # noqa: ANN401 - as any body
            return method(task, value)

        return body

    def _fail(self, _: Any, value: Any) -> None:  # noqa: ANN401
        self.failures += 1
        raise Broken(value)

    def _echo(self, _: Any, value: Any) -> Any:  # noqa: ANN401
        self.ran.append(value)
        return value

    def _add(self, _: object, value: int) -> int:
        return value + 1

    def _total(self, _: object, value: list[int]) -> int:
        return sum(value)

    def _nest(self, _: object, value: str) -> str:
        result = self.app.tasks[value].delay(3)
        return f"{result.state} {type(result.result).__name__}"

    def _retry(self, task: Any, value: int) -> int:  # noqa: ANN401
        self.failures += 1
        if self.failures <= value:
            raise task.retry(countdown=3600, exc=Broken(value))
        return self.failures

    def _end(self, _: object, value: str) -> None:
        raise {"ignore": Ignore, "reject": Reject}[value]

    def _replace(self, task: Any, value: int) -> Any:  # noqa: ANN401
        raise task.replace(self.app.tasks["add"].s(value))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a ledger would be."""
    return tmp_path / "ledger.sqlite3"


def _eager(**conf: Any) -> Celery[Any]:  # noqa: ANN401 - settings
    app: Celery[Any] = Celery("eager", broker=NOWHERE, backend=NOWHERE, set_as_current=False)
    app.conf.update(task_always_eager=True, **conf)
    return app


def adopt(app: Celery[Any], path: Path) -> Celery[Any]:
    """Adopt *app* with a ledger at *path*."""
    policy = RetryPolicy(max_attempts=3, base_seconds=0.01)
    Resilience(
        app,
        dependencies=[Dependency("bank", breaker=NEVER_OPEN, retry=policy, timeout=5)],
        settings=Settings(store_url=NOWHERE, ledger_url=f"sqlite:///{path}"),
    )
    return app


KINDS: dict[str, dict[str, Any]] = {
    "fire": {"base": FireAndForgetTask, "dependency": "bank"},
    "resilient": {"base": ResilientTask, "dependency": "bank"},
    "bare": {"base": ResilientTask},
}
Asks = Callable[[Desk], Any]


def _t(desk: Desk, name: str) -> Task[Any, Any]:
    return cast("Task[Any, Any]", desk.app.tasks[name])


def _after(desk: Desk, **options: str) -> object:
    follow = {name: [desk.app.tasks["echo"].si(f"{name} {task}")] for name, task in options.items()}
    return _t(desk, next(iter(options.values()))).apply_async((1,), **follow)


SITUATIONS: dict[str, Asks] = {
    "success": lambda d: _t(d, "echo").delay(5),
    "failure": lambda d: _t(d, "fail").delay(5),
    "get": lambda d: _t(d, "fail").delay(5).get(),
    "countdown": lambda d: _t(d, "echo").apply_async((5,), countdown=3600, retry=False),
    "apply": lambda d: _t(d, "fail").apply((5,)),
    "apply-throw": lambda d: _t(d, "fail").apply((5,), throw=True),
    "signature": lambda d: _t(d, "fail").s(5).apply_async(),
    "called": lambda d: _t(d, "fail")(5),
    "arguments": lambda d: _t(d, "echo").apply_async((1, 2, 3)),
    "nested": lambda d: _t(d, "nest").delay("fail"),
    "chain": lambda d: chain(_t(d, "add").s(1), _t(d, "add").s(), _t(d, "echo").s()).delay(),
    "chain-fails": lambda d: chain(_t(d, "fail").s(1), _t(d, "echo").s()).delay(),
    "group": lambda d: group(_t(d, "add").s(1), _t(d, "add").s(2)).delay(),
    "group-fails": lambda d: group(_t(d, "fail").s(1), _t(d, "add").s(2)).delay(),
    "chord": lambda d: chord([_t(d, "add").s(1), _t(d, "add").s(2)])(_t(d, "total").s()),
    "chord-fails": lambda d: chord([_t(d, "fail").s(1), _t(d, "add").s(2)])(_t(d, "total").s()),
    "map": lambda d: _t(d, "add").map([1, 2]).apply_async(),
    "chunks": lambda d: _t(d, "add").chunks([(1,), (2,)], 1).apply_async(),
    "retry": lambda d: _t(d, "retry").delay(1),
    "retry-exhausted": lambda d: _t(d, "retry").delay(9),
    "autoretry": lambda d: _t(d, "auto").delay(9),
    "ignore": lambda d: _t(d, "end").delay("ignore"),
    "reject": lambda d: _t(d, "end").delay("reject"),
    "replace": lambda d: _t(d, "replace").delay(4),
    "link": lambda d: _after(d, link="add"),
    "link_error": lambda d: _after(d, link_error="fail"),
}


def _said(result: Any) -> object:  # noqa: ANN401 - any result
    if hasattr(result, "results"):
        return [_said(one) for one in result.results]
    if hasattr(result, "state"):
        return result.state, type(result.result).__name__, str(result.result)
    return result


def _told(desk: Desk, situation: str) -> object:
    """Return all that the caller sees of a *situation*, and what ran."""
    try:
        said: object = _said(SITUATIONS[situation](desk))
    except Exception as error:  # noqa: BLE001 - both are to end in the same
        said = type(error).__name__, str(error).replace(" Desk._task.<locals>", "")
    return said, desk.ran, desk.failures


Pair = tuple[Desk, Desk, Path]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, bool], Pair]:
    """Return what hands out an adopted desk and a plain one, the same in each situation."""
    path = tmp_path_factory.mktemp("ledger") / "ledger.sqlite3"

    @cache
    def pair(kind: str, propagates: bool) -> Pair:  # noqa: FBT001 - pytest's
        conf = {"task_eager_propagates": propagates}
        return Desk(adopt(_eager(**conf), path), **KINDS[kind]), Desk(_eager(**conf)), path

    return pair


@pytest.mark.parametrize("propagates", [False, True], ids=["stored", "propagated"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("situation", SITUATIONS)
def test_eager_task_ends_as_a_plain_one(
    pairs: Callable[[str, bool], Pair],
    kind: str,
    situation: str,
    propagates: bool,  # noqa: FBT001 - pytest's
) -> None:
    """The same result, the same error, the same number of calls; no ledger is even made."""
    ours, plain, path = pairs(kind, propagates)
    ours.forget()
    plain.forget()

    assert _told(ours, situation) == _told(plain, situation)
    assert not path.exists()


def test_job_of_a_transaction_runs_at_once(path: Path) -> None:
    """`publish_with` writes nothing into the caller's transaction."""
    desk = Desk(adopt(_eager(), path), **KINDS["fire"])
    session: Any = object()

    result = cast("Any", desk.app.tasks["fail"]).publish_with(session, (5,))

    assert (result.state, type(result.result)) == ("FAILURE", Broken)
    assert not path.exists()


def test_idempotency_key_needs_no_ledger(path: Path) -> None:
    """Each call of an eager task runs: no record of one test is there in the next."""
    desk = Desk(adopt(_eager(), path), **KINDS["resilient"], idempotency_key="{value}")

    assert [desk.app.tasks["echo"].delay(5).get() for _ in range(2)] == [5, 5]
    assert desk.ran == [5, 5]
    assert not path.exists()


def test_fallbacks_answer_an_eager_task(path: Path) -> None:
    """A chain that needs no store answers with its outcome."""
    steps = [fallback.static("static")]
    desk = Desk(adopt(_eager(), path), **KINDS["resilient"], fallbacks=steps)

    outcome = desk.app.tasks["fail"].delay(5).get()

    assert (outcome.value, outcome.reason) == ("static", "Broken")
    assert isinstance(desk.app.tasks["echo"].delay(5).get(), Outcome)


def test_local_run_of_a_job_leaves_no_row(path: Path) -> None:
    """`apply()` in an app that is not eager: who called it has the error, and no worker runs it."""
    app: Celery[Any] = Celery("local", broker=NOWHERE, set_as_current=False)
    desk = Desk(adopt(app, path), **KINDS["fire"])
    app.resilience.ledger.upgrade()  # type: ignore[attr-defined]

    result = desk.app.tasks["fail"].apply((5,))

    assert (result.state, type(result.result)) == ("FAILURE", Broken)
    with closing(sqlite3.connect(path)) as ledger:
        assert ledger.execute("SELECT count(*) FROM resilience_jobs").fetchone() == (0,)
    app.resilience.ledger.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("propagates", [False, True], ids=["stored", "propagated"])
@pytest.mark.parametrize("kind", KINDS)
def test_fan_out_of_eager_tasks_answers_at_once(
    path: Path,
    kind: str,
    propagates: bool,  # noqa: FBT001 - pytest's
) -> None:
    """Its parts and its callback run here, without a store; a part that fails is missing."""
    desk = Desk(adopt(_eager(task_eager_propagates=propagates), path), **KINDS[kind])
    tasks = desk.app.tasks
    fan_out = FanOut(
        one=tasks["add"].s(1),
        two=tasks["fail"].s(2),
        inner=FanOut(three=part(tasks["echo"].s("x"), required=True)),
    )

    pending = fan_out.apply_async(budget=5.0, on_complete=tasks["echo"].s())
    response = pending.get()

    assert response.data == {"one": 2, "inner": {"three": "x"}}
    assert (response.missing, response.reasons["two"]) == (["two"], "Broken")
    assert [one.name for one in pending.stream()] == ["one", "two", "inner.three"]
    assert asyncio.run(pending.aget()) == response
    assert desk.ran == ["x", response]
    assert not path.exists()


def test_required_part_of_an_eager_fan_out_decides(path: Path) -> None:
    """The response fails without it, as one of a worker does."""
    desk = Desk(adopt(_eager(), path), **KINDS["resilient"])
    fan_out = FanOut(one=part(desk.app.tasks["fail"].s(1), required=True))

    response = fan_out.apply_async(budget=5.0).get()

    assert (response.level, response.missing) == (Level.FAILED, ["one"])


def test_eager_fan_out_tells_as_much_as_one_of_workers(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Parts know the budget, the callback its id; the response when to come back."""
    app = adopt(_eager(), path)
    seen: dict[str, object] = {}

    def timed() -> None:
        budget = current_budget()
        seen["seconds"] = None if budget is None else budget.total

    def away() -> None:
        raise CircuitOpenError(dependency="bank", retry_after=7.0)

    def complete(task: Any, _: object) -> None:  # noqa: ANN401 - bound
        seen["callback"] = task.request.id

    declare: dict[str, Any] = {**KINDS["resilient"], "shared": False}
    fan_out = FanOut(
        one=app.task(timed, name="timed", **declare).s(),
        two=app.task(away, name="away", **declare).s(),
    )
    on_complete = app.task(complete, name="complete", bind=True, **declare).s()
    with caplog.at_level(logging.INFO, logger="resilience"):
        pending = fan_out.apply_async(budget=3.0, on_complete=on_complete)

    assert pending.get().retry_after == 7.0
    assert seen == {"seconds": pytest.approx(3.0, abs=0.9), "callback": f"{pending.id}-complete"}
    assert [one for one in caplog.messages if f"FanOutFinished id={pending.id} " in one]
