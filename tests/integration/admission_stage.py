"""Servers and the app of `apps/admission.py`, and what tests ask of them."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from types import ModuleType
from typing import Any

import pytest

from resilience.ledger import Ledger
from resilience.tasks import admission
from resilience.testing.plugin import running_valkey
from resilience.testing.stack import run_worker
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.brokers import Broker, put, running_broker
from tests.fresh import imported_anew

SECONDS = 30.0
PATIENCE_SECONDS = 120.0
"""A publish waits so long for a depth: 0.1 s may pass on a busy machine before the broker tells it.
That nobody waits longer than that is shown where the broker is away."""
APP_PATH = "tests.integration.apps.admission"


class Shop:
    """The servers, the app, and what the tests ask of them."""

    def __init__(self, made: ModuleType, broker: Broker, store: ValkeyProcess) -> None:
        self.made = made
        self.app = made.app
        self.broker = broker
        self.store = store.client()
        self.ledger: Ledger = made.app.resilience.ledger

    def begin(self) -> None:
        """Empty all, and let nobody know any depth."""
        self.broker.empty()
        self.made.EVENTS.clear()
        resilience = self.app.resilience
        resilience.admission = admission.Admission(
            self.app, resilience.dependencies, resilience.announce
        )

    def fill(self, jobs: int, lane: str = "normal") -> None:
        """Let so many jobs wait; each that is delivered is dropped as unknown."""
        put(self.broker, self.app, self.made.SHOP.queue_of(lane), jobs)

    def depth(self) -> int:
        """Return how many jobs wait in the lanes."""
        return sum(self.broker.kept(name) for name in self.made.SHOP.lane_queues)

    def waiting(self, name: str) -> list[str]:
        """Return the tasks that wait in a queue, first in front."""
        return [one["task"] for one in self.broker.headers(name) if "task" in one]

    def said(self, key: str, words: int) -> list[str]:
        """Wait until jobs have said so many words, and return them."""
        wait_until(lambda: int(self.store.llen(key)) >= words, SECONDS, key)  # type: ignore[arg-type]
        return [json.loads(one)[0] for one in self.store.lrange(key, 0, -1)]  # type: ignore[union-attr]

    def working(self) -> Any:  # noqa: ANN401 - a context manager
        """Run a worker of all queues."""
        queues = (*self.made.SHOP.queues, "free")
        return run_worker(APP_PATH, queues=queues, pool="solo", concurrency=1, env=self.env)

    env: dict[str, str]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Servers and the app in this process."""
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        broker = stack.enter_context(running_broker(tmp_path_factory))
        store = stack.enter_context(running_valkey(tmp_path_factory))
        path = tmp_path_factory.mktemp("ledger") / "ledger.sqlite3"
        env = {
            "BROKER_URL": broker.url,
            "STORE_URL": store.url,
            "LEDGER_URL": f"sqlite:///{path}",
        }
        for name, value in env.items():
            patch.setenv(name, value)
        patch.setattr(admission, "WAIT_SECONDS", PATIENCE_SECONDS)
        made = imported_anew(patch, APP_PATH)
        made.app.resilience.ledger.upgrade()
        shop = Shop(made, broker, store)
        shop.env = env
        yield shop
        shop.ledger.close()
        made.app.resilience.store.client.close()
        made.app.close()


@pytest.fixture
def shop(running: Shop) -> Shop:
    """The same, empty."""
    running.begin()
    return running
