"""Servers, a worker and an app in this process that knows both: where fan-outs are tested."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery, Signature

from resilience.settings import Settings
from resilience.store import FanIn
from resilience.testing.plugin import running_valkey
from resilience.testing.stack import WorkerProcess, run_worker
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.brokers import Broker, running_broker
from tests.integration.apps.parts import EVENTS, QUEUES, make_app

APP_PATH = "tests.integration.apps.parts"
SECONDS = 120.0
STORE_TIMEOUT_SECONDS = 10.0
"""Long enough that a busy machine is no outage; tests of outages set a short one."""
TOO_LATE = {"AttemptTimeoutError", "BudgetExceededError", "DeadlineExceeded"}
"""Why a part has no answer in time: it was cut, or nobody heard of it."""


class Stage:
    """Servers and the app of a caller.

    Attributes:
        app: Adopted, with the tasks of `apps/parts.py`.
        broker: Takes messages.
        store: Holds fan-outs.
        desk: Takes results; tests and tasks meet there. No test stops it.
        worker: Consumes from all queues, if there is one.
    """

    def __init__(self, broker: Broker, store: ValkeyProcess, desk: ValkeyProcess) -> None:
        self.broker, self.store, self.desk = broker, store, desk
        self.app = self.another_app()
        self.worker: WorkerProcess | None = None

    @property
    def env(self) -> dict[str, str]:
        """What points another process of the app at the same servers."""
        return {
            "CELERY_BROKER_URL": self.broker.url,
            "CELERY_RESULT_BACKEND": self.desk.url,
            "RESILIENCE_STORE_URL": self.store.url,
            "RESILIENCE_STORE_TIMEOUT_SECONDS": str(STORE_TIMEOUT_SECONDS),
        }

    def another_app(self, **settings: Any) -> Celery:  # noqa: ANN401 - as of Settings
        """Return an app of one more caller."""
        defaults = {"store_url": self.store.url, "store_timeout_seconds": STORE_TIMEOUT_SECONDS}
        return make_app(
            Settings(**{**defaults, **settings}),
            broker=self.broker.url,
            backend=self.desk.url,
            set_as_current=False,
        )

    @property
    def fan_in(self) -> FanIn:
        """Where the app's fan-outs collect their parts."""
        fan_in: FanIn = self.app.resilience.fan_in  # type: ignore[attr-defined]
        return fan_in

    def s(self, task: str, *args: object) -> Signature[Any]:
        """Return the signature of the task named *task*."""
        return self.app.tasks[task].s(*args)

    def let_go(self, key: str) -> None:
        """Let the task `hold` with this *key* return."""
        self.desk.client().rpush(f"{key}:go", "go")

    def await_start(self, key: str) -> int:
        """Wait until the task `hold` with this *key* runs; return the id of its process."""
        found = self.desk.client().blpop([f"{key}:started"], timeout=int(SECONDS))
        assert found is not None, f"{key} never began"
        return int(found[1])

    def consume(self, queue: str) -> None:
        """Let the worker consume from *queue* as well, from now on."""
        assert self.app.control.add_consumer(queue, reply=True, limit=1, timeout=SECONDS)

    def noted(self, key: str) -> list[Any]:
        """Return what was pushed to the list *key* at the desk, from JSON."""
        return [json.loads(text) for text in self.desk.client().lrange(key, 0, -1)]

    def await_note(self, key: str, seconds: float = SECONDS) -> Any:  # noqa: ANN401 - any JSON
        """Wait until something was pushed to the list *key*, and return the first of it."""
        return wait_until(lambda: self.noted(key), seconds, f"something is noted in {key}")[0]

    def announced(self, name: str, fan: str) -> list[dict[str, Any]]:
        """Return the events called *name* of the fan-out *fan*, from all processes."""
        return [
            event
            for event in self.noted(EVENTS)
            if event["name"] == name and fan in (event.get("id"), *event.get("what", "").split())
        ]

    def await_event(self, name: str, fan: str) -> dict[str, Any]:
        """Wait until an event called *name* of the fan-out *fan* is announced, and return it."""
        what = f"{name} is announced"
        return wait_until(lambda: self.announced(name, fan), SECONDS, what)[0]

    def switch(self, key: str) -> None:
        """Let the task `switch` with this *key* fail from now on."""
        self.desk.client().set(key, "fail")

    def close(self) -> None:
        """Close the connections of the caller's app."""
        close_app(self.app)


def close_app(app: Celery) -> None:
    """Close all connections of an adopted *app*."""
    app.resilience.store.client.close()  # type: ignore[attr-defined]
    app.close()


def new_key() -> str:
    """Return a name that nobody used yet."""
    return uuid4().hex


@contextmanager
def running_servers(paths: pytest.TempPathFactory) -> Iterator[Stage]:
    """Run servers for the tests of a module, and no worker."""
    with ExitStack() as stack:
        broker = stack.enter_context(running_broker(paths))
        stage = Stage(broker, *(stack.enter_context(running_valkey(paths)) for _ in range(2)))
        stack.callback(stage.close)
        yield stage


@contextmanager
def running_stage(
    paths: pytest.TempPathFactory,
    *,
    concurrency: int = 4,
    pool: str = "prefork",
    app_path: str = APP_PATH,
) -> Iterator[Stage]:
    """Run servers and a worker for the tests of a module; the worker is killed at the end."""
    with (
        running_servers(paths) as stage,
        run_worker(
            app_path, queues=QUEUES, concurrency=concurrency, pool=pool, env=stage.env
        ) as stage.worker,
    ):
        try:
            yield stage
        finally:
            stage.worker.kill()
