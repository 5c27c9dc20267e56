"""`pydantic=True`: fallbacks and recorded answers take and return what the body does."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import redis
from celery import chain
from celery.result import AsyncResult

from resilience import Level, Outcome
from resilience.testing.plugin import running_valkey
from resilience.testing.stack import run_worker
from tests.brokers import running_broker
from tests.compatibility.apps.models import DOWN_KEY, Order, app

APP = "tests.compatibility.apps.models"
SECONDS = 120


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A client of the server that says whether the dependency is up, beside a running worker."""
    with ExitStack() as running:
        server = running.enter_context(running_valkey(tmp_path_factory))
        broker = running.enter_context(running_broker(tmp_path_factory))
        app.conf.update(broker_url=broker.url, result_backend=server.url)
        running.callback(app.close)
        ledger = tmp_path_factory.mktemp("ledger") / "ledger.sqlite3"
        env = {
            "CELERY_BROKER_URL": broker.url,
            "CELERY_RESULT_BACKEND": server.url,
            "RESILIENCE_LEDGER_URL": f"sqlite:///{ledger}",
            "RESILIENCE_STORE_TIMEOUT_SECONDS": "5",
        }
        worker = running.enter_context(
            run_worker(APP, queues=["celery", "alpha"], concurrency=1, env=env)
        )
        yield running.enter_context(redis.Redis.from_url(server.url))
        worker.kill()


@pytest.fixture
def down(store: Any) -> Iterator[None]:  # noqa: ANN401 - a redis client
    """A dependency that is away."""
    store.set(DOWN_KEY, 1)
    yield
    store.delete(DOWN_KEY)


def publish(task: str, order: object) -> AsyncResult[Any]:
    """Publish a task of the app."""
    return app.tasks[f"{APP}.{task}"].apply_async((order,))


def run(task: str, order: object) -> Any:  # noqa: ANN401 - an outcome, or any JSON
    """Return what a task of the app returns."""
    return publish(task, order).get(timeout=SECONDS)


@pytest.mark.usefixtures("store")
def test_body_takes_and_returns_models_as_in_plain_celery() -> None:
    """Published as a model or as what one sends, and answered with what one sends."""
    receipt = {"number": 2, "source": "body"}

    for order in (Order(number=1), {"number": 1}):
        assert run("plain", order) == receipt
        assert run("guarded", order) == Outcome(value=receipt, dependency="alpha")


@pytest.mark.usefixtures("down")
@pytest.mark.parametrize(
    ("task", "value", "level"),
    [
        pytest.param("guarded", {"number": 2, "source": "call"}, Level.REDUCED, id="model"),
        pytest.param("bound", {"number": 2, "source": "call"}, Level.REDUCED, id="bind"),
        pytest.param("wrapped", {"number": 2, "source": "call"}, Level.REDUCED, id="autoretry"),
        pytest.param("outcome", {"number": 2, "source": "call"}, Level.STATIC, id="outcome"),
        pytest.param("other", {"text": "order 1"}, Level.REDUCED, id="other model"),
        pytest.param("to_static", {"number": 0, "source": "static"}, Level.STATIC, id="static"),
        pytest.param("strict", {"number": 2, "source": "call"}, Level.REDUCED, id="strict"),
    ],
)
def test_fallback_takes_and_returns_what_a_body_does(
    task: str, value: object, level: Level
) -> None:
    """It is given the model, and what it returns can be sent."""
    answered = run(task, Order(number=1))

    assert answered.value == value
    assert answered.level == level
    assert answered.reason == "ConnectionError"


def test_stale_answer_of_a_task_with_models_is_what_it_sent(store: Any) -> None:  # noqa: ANN401
    """For the same order, however its caller spelled it."""
    full = run("stale", {"number": 5})
    store.set(DOWN_KEY, 1)
    try:
        stale = run("stale", {"number": 5})
    finally:
        store.delete(DOWN_KEY)

    assert stale.level == Level.STALE
    assert stale.value == full.value == {"number": 6, "source": "body"}


def test_recorded_answer_of_a_task_with_models_is_what_it_sent(store: Any) -> None:  # noqa: ANN401
    """The second job of the same key gets it without running the body."""
    before = int(store.get("models:calls") or 0)
    answers = [run("once", {"number": 9, "note": "mine"}) for _ in range(2)]

    assert answers == [{"number": 10, "source": "body"}] * 2
    assert int(store.get("models:calls")) == before + 1


@pytest.mark.usefixtures("down")
def test_outcome_of_a_fallback_is_an_argument_of_the_next_task() -> None:
    """In a chain the next task makes its model of it, and its own outcome is as degraded."""
    first, second = (app.tasks[f"{APP}.{name}"].s for name in ("guarded", "guarded"))
    answered = chain(first({"number": 1}), second()).apply_async().get(timeout=SECONDS)

    assert answered.value == {"number": 3, "source": "call"}
    assert answered.level == Level.REDUCED


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("task", ["plain", "guarded"])
def test_argument_that_is_no_such_model_fails_as_in_plain_celery(task: str) -> None:
    """No fallback hides that the call itself was wrong."""
    error = publish(task, {"number": "seven"}).get(timeout=SECONDS, propagate=False)

    assert "ValidationError" in str(error)


@pytest.mark.usefixtures("store")
def test_task_that_remembers_answers_is_applied_locally_with_models() -> None:
    """They are remembered by what the model sends."""
    answered = app.tasks[f"{APP}.local"].apply((Order(number=1),)).get()

    assert answered.value == {"number": 2, "source": "local"}
