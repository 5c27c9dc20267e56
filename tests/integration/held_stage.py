"""Servers and workers of `apps/held.py`, and what tests ask of them."""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from types import ModuleType
from typing import Any
from uuid import uuid4

import pytest
import redis

from resilience.breaker import State
from resilience.ledger import Ledger
from resilience.testing.plugin import running_valkey
from resilience.testing.stack import WorkerProcess, run_worker
from resilience.testing.waiting import wait_until
from tests.brokers import Broker, running_broker
from tests.fresh import imported_anew

APP_PATH = "tests.integration.apps.held"
SECONDS = 120.0


class HeldStage:
    """A broker, a server that is store, desk and dependency in one, and the app."""

    def __init__(self, held: ModuleType, broker: Broker, env: dict[str, str]) -> None:
        self.held, self.broker, self.env = held, broker, env
        self.resilience = held.app.resilience
        self.desk: redis.Redis = held.desk()
        self.ledger: Ledger = self.resilience.ledger

    def worker(
        self, *queues: str, concurrency: int = 8, pool: str = "prefork", prefetch: int = 1
    ) -> AbstractContextManager[WorkerProcess]:
        """Run a worker."""
        return run_worker(
            APP_PATH,
            queues=queues,
            concurrency=concurrency,
            pool=pool,
            env={**self.env, "PREFETCH": str(prefetch)},
        )

    def publish(self, task: str, jobs: int) -> list[str]:
        """Publish so many jobs and return their keys."""
        keys = [uuid4().hex for _ in range(jobs)]
        for key in keys:
            getattr(self.held, task).delay(key)
        return keys

    def waiting(self, *queues: str) -> int:
        """Return how many jobs the broker has in its queues."""
        return sum(self.broker.kept(name) for name in queues or ("mail",))

    def break_down(self) -> None:
        """Let the dependency be down, and the circuit be open as other callers saw it."""
        self.desk.set(self.held.DOWN, "1")
        breaker = self.resilience.breaker("mail")
        for _ in range(20):
            if breaker.state is State.OPEN:
                return
            breaker.record_failure(ConnectionError("down"))
        pytest.fail("the circuit did not open")

    def recover(self) -> None:
        """Let the dependency be well."""
        self.desk.delete(self.held.DOWN)

    def done(self, keys: list[str]) -> list[int]:
        """Return how often each job was done."""
        with self.desk.pipeline() as pipe:
            for key in keys:
                pipe.llen(f"done:{key}")
            return pipe.execute()

    def await_done(self, keys: list[str], seconds: float = SECONDS) -> None:
        """Wait until all jobs have been done."""
        wait_until(lambda: all(self.done(keys)), seconds, f"{len(keys)} jobs are done")

    def calls(self) -> list[tuple[float, int, str]]:
        """Return the calls so far: when, how many at once, for which job."""
        return [tuple(json.loads(line)) for line in self.desk.lrange("calls", 0, -1)]  # type: ignore[union-attr]

    def pings(self, worker: WorkerProcess) -> bool:
        """Tell whether *worker* answers, asked through a connection of its own."""
        app = self.held.app
        with app.connection_for_write() as connection:
            found = app.control.ping([worker.hostname], timeout=0.5, connection=connection)
        return bool(found)

    def events(self, name: str, **fields: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - any
        """Return the events called *name* with these *fields*."""
        said = [json.loads(line) for line in self.desk.lrange("events", 0, -1)]  # type: ignore[union-attr]
        return [one for one in said if {**one, **fields, "name": name} == one]

    def await_event(self, name: str, seconds: float = SECONDS, **fields: Any) -> dict[str, Any]:  # noqa: ANN401
        """Wait for an event and return the last such."""
        return wait_until(lambda: self.events(name, **fields), seconds, f"{name} {fields}")[-1]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HeldStage]:
    """Run the servers."""
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
        held = imported_anew(patch, APP_PATH)
        held.app.resilience.ledger.upgrade()
        made = HeldStage(held, broker, env)
        yield made
        made.desk.close()
        held.app.resilience.store.client.close()
        made.ledger.close()
        held.app.close()


@pytest.fixture
def stage(servers: HeldStage) -> HeldStage:
    """Return the servers, up and empty."""
    if not servers.broker.running:
        servers.broker.start()
    servers.broker.empty()
    servers.desk.flushall()
    servers.resilience.pulse.refresh()
    return servers
