"""Apps that replace the hooks of a task, and hand nothing on to ours."""

import functools
from collections.abc import Iterator
from contextlib import ExitStack
from time import perf_counter
from types import ModuleType
from typing import Any

import pytest
from celery import Celery

from resilience import FanOut, part
from resilience.dependency import Dependency
from resilience.errors import ConfigurationError
from resilience.ledger import Which
from resilience.settings import Settings
from resilience.tasks import Resilience, ResilientTask
from resilience.testing.plugin import running_valkey
from resilience.testing.stack import run_worker
from resilience.testing.waiting import wait_until
from tests.brokers import running_broker
from tests.fresh import imported_anew

APP_PATH = "tests.compatibility.apps.hooks"
BUDGET_SECONDS = 10.0
PROMPT_SECONDS = 4.0
"""Well before the deadline, and before a slow hook has ended."""
SECONDS = 120.0


@pytest.fixture(scope="module")
def hooks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The app of apps/hooks.py, and a worker of it."""
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        broker = stack.enter_context(running_broker(tmp_path_factory))
        desk = stack.enter_context(running_valkey(tmp_path_factory))
        path = tmp_path_factory.mktemp("ledger") / "ledger.sqlite3"
        env = {
            "BROKER_URL": broker.url,
            "DESK_URL": desk.url,
            "LEDGER_URL": f"sqlite:///{path}",
        }
        for name, value in env.items():
            patch.setenv(name, value)
        module = imported_anew(patch, APP_PATH)
        module.app.resilience.ledger.upgrade()
        worker = run_worker(APP_PATH, queues=module.QUEUES, concurrency=6, env=env)
        running = stack.enter_context(worker)
        module.desk = desk.client()  # type: ignore[attr-defined]
        yield module
        running.kill()
        module.app.resilience.store.client.close()
        module.app.resilience.ledger.close()
        module.app.close()


def ask(hooks: ModuleType, task: str) -> tuple[Any, float]:
    """Ask for a required part; return the answer, and in how many seconds it came."""
    began = perf_counter()
    fan = FanOut(part=part(hooks.app.tasks[task].s(), required=True))
    response = fan.apply_async(budget=BUDGET_SECONDS).get()
    return response, perf_counter() - began


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        ("annotated", "ConnectionError"),
        ("of_the_app", "ConnectionError"),
        ("mixed", "ConnectionError"),
        ("slow", "ConnectionError"),
        ("broken", "ConnectionError"),
        ("unready", "ConnectionResetError"),
        ("late", "ConnectionResetError"),
    ],
)
def test_fan_out_hears_at_once_of_a_failure(hooks: ModuleType, task: str, reason: str) -> None:
    """Whatever stands in the place of our methods, and however long it takes."""
    response, seconds = ask(hooks, task)

    assert (response.data, response.reasons) == ({}, {"part": reason})
    assert seconds < PROMPT_SECONDS


@pytest.mark.parametrize(
    ("task", "value"),
    [
        ("slow_success", "done"),
        ("broken_success", "done"),
        ("changing", "donedone"),
        ("again", "recovered"),
        ("shouting", "done!"),
    ],
)
def test_fan_out_hears_at_once_what_the_job_returns(
    hooks: ModuleType, task: str, value: str
) -> None:
    """The value is that of the whole call, as in its result; a retry is no failure."""
    response, seconds = ask(hooks, task)

    assert (response.data, response.level) == ({"part": value}, 0)
    assert seconds < PROMPT_SECONDS
    assert hooks.app.tasks[task].delay().get(timeout=SECONDS) == value


def test_hooks_of_the_app_are_called_as_celery_calls_them(hooks: ModuleType) -> None:
    """Each of them, once, in Celery's order."""
    hooks.desk.delete("hooks:annotated")

    hooks.app.tasks["annotated"].delay().get(timeout=SECONDS, propagate=False)

    def called() -> list[bytes]:
        found: list[bytes] = hooks.desk.lrange("hooks:annotated", 0, -1)
        return found

    wait_until(lambda: b"after_return" in called(), SECONDS, "the hooks were called")
    assert called() == [b"before_start", b"on_failure", b"after_return"]


@pytest.mark.parametrize("task", ["unready_mail", "failing_mail"])
def test_ledger_keeps_a_job_whose_hook_fails(hooks: ModuleType, task: str) -> None:
    """It runs again as its policy says, and ends as a dead letter: it is not lost."""
    hooks.desk.delete(f"hooks:{task}")
    letters = hooks.app.resilience.ledger.letters

    job = hooks.app.tasks[task].fire().id

    found = wait_until(lambda: letters.find(Which(id=job), limit=1), SECONDS, "it is dead")
    assert [error["type"].rpartition(".")[2] for error in found[0].errors] == [
        "ConnectionResetError"
    ] * 2
    assert hooks.desk.llen(f"hooks:{task}") == 2


def asked() -> None:
    """Do nothing."""


def test_annotation_that_would_pass_by_the_pipeline_is_refused() -> None:
    """As a class is that does the same: the message says what to write."""
    app: Celery[Any] = Celery("refused", task_cls=ResilientTask, set_as_current=False)
    app.conf.task_annotations = {"plain": {"__call__": lambda self, *args: self.run(*args)}}
    settings = Settings(store_url="redis://127.0.0.1:1/0")
    Resilience(app, dependencies=[Dependency("users")], settings=settings)

    with pytest.raises(ConfigurationError, match="past its breaker"):
        app.task(name="plain", dependency="users", lazy=False, shared=False)(asked)


def test_class_whose_call_others_have_wrapped_can_be_subclassed() -> None:
    """Sentry's SDK wraps `__call__` where a worker runs; tasks made later are no mistake."""

    class Wrapped(ResilientTask):
        abstract = True

    call = Wrapped.__call__

    @functools.wraps(call)
    def wrapper(*args: Any) -> Any:  # noqa: ANN401
        return call(*args)

    Wrapped.__call__ = wrapper  # type: ignore[method-assign]

    assert issubclass(type("Later", (Wrapped,), {"abstract": True}), Wrapped)
