"""With `ResilientTask` as an app's task class Celery does all that it documents."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, Task, chain, chord, group
from celery.exceptions import ChordError

from resilience.testing.waiting import wait_until
from tests.integration.apps.canvas import Label, Order
from tests.integration.apps.canvas_stage import SECONDS, running_app, sig, value_of
from tests.integration.apps.stage import new_key


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((True, "prefork"), id="adopted"),
        pytest.param((False, "threads"), id="bare"),
        pytest.param((True, "threads"), id="threads", marks=pytest.mark.long),
        pytest.param((True, "solo"), id="solo", marks=pytest.mark.long),
    ],
)
def app(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Celery[Any]]:
    """The client's app of a running worker."""
    adopted, pool = request.param
    with running_app(tmp_path_factory, adopted=adopted, pool=pool) as running:
        yield running


def told(app: Celery[Any], key: str, number: int = 1) -> list[Any]:
    """Return what a worker told under *key*, once there are *number* things."""
    client = app.backend.client  # type: ignore[attr-defined]  # that of the Redis backend

    def read() -> list[Any]:
        return [json.loads(text) for text in client.lrange(key, 0, -1)]

    wait_until(lambda: len(read()) >= number, SECONDS, f"{number} things are told under {key}")
    return read()


def test_value_and_error_arrive(app: Celery[Any]) -> None:
    """Without fallbacks a task returns its plain value, and raises what it raises."""
    assert value_of(sig(app, "divide", 1, 2)) == 0.5
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        value_of(sig(app, "divide", 1, 0))


def test_chain_hands_values_on(app: Celery[Any]) -> None:
    """Each task gets the value before it; partial arguments come first."""
    assert value_of(chain(sig(app, "add", 1, 2), sig(app, "add", 3), sig(app, "divide", 4))) == 1.5


def test_group_returns_all_values(app: Celery[Any]) -> None:
    """In order."""
    assert value_of(group(sig(app, "add", n, n) for n in range(5))) == [0, 2, 4, 6, 8]


def test_chord_calls_its_body_with_all_values(app: Celery[Any]) -> None:
    """Once, with the values in order; also behind a chain and in front of one."""
    header = [sig(app, "add", n, 1) for n in range(3)]
    assert value_of(chord(header, sig(app, "total"))) == 6
    assert value_of(chain(group(header), sig(app, "total"), sig(app, "add", 4))) == 10


def test_chord_fails_with_its_header(app: Celery[Any]) -> None:
    """A failed header task is the body's failure."""
    header = [sig(app, "add", 1, 1), sig(app, "divide", 1, 0)]

    with pytest.raises((ChordError, ZeroDivisionError)):
        value_of(chord(header, sig(app, "total")))


def test_retries_run_again_and_then_give_up(app: Celery[Any]) -> None:
    """`autoretry_for` and `self.retry` count attempts; at the end the own error is raised."""
    assert value_of(sig(app, "autoretry", new_key(), 2)) == 3
    assert value_of(sig(app, "retry", new_key(), 2)) == [3, 2]
    for task in ("autoretry", "retry"):
        with pytest.raises(ConnectionError, match="attempt 3"):
            value_of(sig(app, task, new_key(), 9))


@pytest.mark.parametrize(("kind", "value"), [("task", 3), ("chain", 6), ("group", [3, 7])])
def test_replacement_answers_in_the_place_of_a_task(
    app: Celery[Any], kind: str, value: object
) -> None:
    """Under its id, and what follows in a chain gets the replacement's value."""
    assert value_of(sig(app, "replace", kind)) == value
    if kind != "group":
        assert value_of(chain(sig(app, "replace", kind), sig(app, "add", 1))) == value + 1  # type: ignore[operator]


def test_callbacks_and_errbacks_are_called(app: Celery[Any]) -> None:
    """`link` gets the value, `link_error` the request and the error."""
    good, bad = new_key(), new_key()
    value_of(
        sig(app, "add", 1, 2).on_error(sig(app, "on_error", bad)) | sig(app, "on_success", good)
    )
    failing = sig(app, "divide", 1, 0)
    failing.link_error(sig(app, "on_error", bad))
    failing.link(sig(app, "on_success", good))

    result = failing.apply_async()

    assert told(app, bad) == [[result.id, "ZeroDivisionError", "division by zero"]]
    assert told(app, good) == [3]


def test_bound_task_knows_its_request(app: Celery[Any]) -> None:
    """Id, parents, stamps and headers are there; in a chain the parent is the task before."""
    one = sig(app, "describe")
    one.stamp(Label())
    first = one.apply_async(headers={"own": "header"})
    seen = first.get(timeout=SECONDS)
    assert (seen["id"], seen["root"], seen["parent"]) == (first.id, first.id, None)
    assert (seen["name"], seen["header"]) == ("describe", "header")
    assert seen["stamps"] == {"label": ["stamped"]} or seen["stamps"] == {"label": "stamped"}

    last: Any = chain(sig(app, "add", 1, 2), sig(app, "describe")).apply_async()
    seen = last.get(timeout=SECONDS)
    assert (seen["id"], seen["parent"], seen["root"]) == (last.id, last.parent.id, last.parent.id)


def test_task_may_call_itself_as_a_function(app: Celery[Any]) -> None:
    """Recursion runs in place, and leaves the request as it was."""
    assert value_of(sig(app, "call_itself", 4)) == 10


def test_pydantic_models_are_validated_and_dumped(app: Celery[Any]) -> None:
    """`pydantic=True` turns arguments into models and models into results."""
    assert value_of(sig(app, "double", {"number": 4})) == {"number": 8, "note": "Order"}
    assert app.tasks["double"].delay(Order(number=1)).get(timeout=SECONDS)["number"] == 2
    with pytest.raises(Exception, match="ValidationError"):
        value_of(sig(app, "double", {"number": "many"}))


def test_ignored_result_is_not_stored(app: Celery[Any]) -> None:
    """`ignore_result` as an option of the task and of the call."""
    key = new_key()
    silent = sig(app, "silent", key).apply_async()
    told(app, key)
    value_of(sig(app, "add", 1, 1))
    ignored = sig(app, "add", 1, 2).apply_async(ignore_result=True)
    value_of(sig(app, "add", 1, 1))

    client = app.backend.client  # type: ignore[attr-defined]  # that of the Redis backend
    assert not client.exists(*(f"celery-task-meta-{one.id}" for one in (silent, ignored)))


@pytest.mark.parametrize(
    ("fail", "hooks"),
    [
        (False, ["before_start", "run", "on_success", "after_return SUCCESS"]),
        (True, ["before_start", "run", "on_failure", "after_return FAILURE"]),
    ],
)
def test_class_based_task_has_all_its_hooks(
    app: Celery[Any],
    fail: bool,  # noqa: FBT001 - a parameter of the test
    hooks: list[str],
) -> None:
    """Registered with `register_task`, it runs, and every hook is called in its turn."""
    key = new_key()

    result = sig(app, "counted", key, fail=fail).apply_async()

    assert told(app, key, len(hooks)) == hooks
    assert result.state in {"SUCCESS", "FAILURE"}


def test_task_is_routed_by_name(app: Celery[Any]) -> None:
    """`send_task` reaches the bulkhead of a task that this process knows, like `delay` does."""
    expected = "alpha" if getattr(app, "resilience", None) else "celery"

    assert app.send_task("describe").get(timeout=SECONDS)["queue"] == expected
    assert value_of(sig(app, "describe"))["queue"] == expected


def test_task_can_be_called_as_a_function_here(app: Celery[Any]) -> None:
    """Without a worker: the body runs in this process."""
    assert app.tasks["add"](1, 2) == 3
    with pytest.raises(ZeroDivisionError):
        app.tasks["divide"](1, 0)


def test_every_task_is_a_celery_task(app: Celery[Any]) -> None:
    """Whoever asks for `celery.Task` finds it."""
    assert all(isinstance(task, Task) for task in app.tasks.values())
