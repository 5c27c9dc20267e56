"""Real workers whose store is filled with garbage: jobs go on, and a repair mends the fleet."""

import json
import random
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any, Self

import pytest
import redis
from celery.bin.base import CLIContext
from celery.exceptions import TimeoutError as NoResultError
from click.testing import CliRunner

from resilience import CircuitOpenError, Resilience
from resilience.breaker import Breaker
from resilience.cli import resilience as command
from resilience.clock import SystemClock
from resilience.monitor.stored import kind_of
from resilience.testing.plugin import running_valkey
from resilience.testing.stack import WorkerProcess, run_worker
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.integration.apps.garbled import app, sell, send
from tests.property.test_store_garbage import ODD, TYPES, put

CONTEXT = CLIContext(app=app, no_color=True, workdir=None)
APP = "tests.integration.apps.garbled"
WHO: Any = {"actor": "ann", "reason": "test"}
SECONDS = 60
AGREE_SECONDS = 2.0
ERROR = re.compile(r"^([\w.]+(?:Error|Exception))\b", re.MULTILINE)
"""The last line of a traceback."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyProcess]:
    """Broker, result backend and store of the app."""
    with running_valkey(tmp_path_factory) as running:
        app.conf.update(broker_url=running.url, result_backend=running.url)
        yield running
        app.close()


@pytest.fixture(scope="module")
def workers(server: ValkeyProcess) -> Iterator[list[WorkerProcess]]:
    """Two workers, each of which serves both dependencies."""
    env = {"CELERY_BROKER_URL": server.url, "CELERY_RESULT_BACKEND": server.url}
    with ExitStack() as running:
        yield [
            running.enter_context(
                run_worker(APP, queues=["mail", "shop"], pool=pool, concurrency=2, env=env)
            )
            for pool in ("threads", "solo")
        ]


class Load:
    """Jobs, one after the other in each of two threads, until the end of the block."""

    def __init__(self) -> None:
        self.done, self.wrong = 0, list[object]()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(task,)) for task in (send, sell)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, task: Any) -> None:  # noqa: ANN401 - Celery's
        while not self._over.is_set():
            try:
                found = task.delay(self.done).get(timeout=SECONDS, propagate=False)
            except NoResultError as error:
                found = error
            if isinstance(found, int):
                self.done += 1
            else:
                self.wrong.append(found)


def fill(store: Any, dice: random.Random) -> set[str]:  # noqa: ANN401 - a `Store`
    """Replace every value in the store by garbage, most of the right type; return the kinds."""
    begin, seen = store.key(""), set()
    for raw in [*store.client.scan_iter(f"{begin}*", count=1000)]:
        key = raw.decode()
        kind = kind_of(key.removeprefix(begin))
        assert kind is not None, f"{key} is of no kind in monitor/stored.py"
        seen.add(kind.pattern)
        with suppress(redis.ResponseError):  # a worker has replaced the key meanwhile
            own = store.client.type(raw).decode()
            stored = own if dice.random() < 0.7 else dice.choice(TYPES)
            fields = [b"x", b"mail", b"shop"]
            if own == "hash":
                fields += store.client.hkeys(raw)
            for field in fields:
                score = dice.choice([float("inf"), 1e300, -1.0])
                put(
                    store.client,
                    key,
                    stored,
                    field.decode(errors="replace"),
                    dice.choice(ODD),
                    score,
                )
    return seen


def breaker(name: str) -> Breaker:
    """Return this process's breaker, one more of the fleet."""
    found = Resilience.of(app).breaker(name)
    assert isinstance(found, Breaker)
    return found


def has_refused(task: Any) -> bool:  # noqa: ANN401 - Celery's
    """Tell whether four jobs in a row are refused, as both workers take some."""
    results = [task.delay(0).get(timeout=SECONDS, propagate=False) for _ in range(4)]
    return all(isinstance(one, CircuitOpenError) for one in results)


def check_rounds(workers: list[WorkerProcess], rounds: int) -> None:
    """Fill the store *rounds* times under load, and repair it each time."""
    adopted, dice = Resilience.of(app), random.Random(19)  # noqa: S311 - no secret
    clock = SystemClock()
    pids, kinds = [worker.pid for worker in workers], set[str]()
    with Load() as load:
        wait_until(lambda: load.done > 10, SECONDS, "jobs are done")
        for _ in range(rounds):
            breaker("mail").force_closed(seconds=3600, **WHO)
            adopted.holds.hold("celery", seconds=3600, **WHO)
            adopted.flags.order("extras", "off", seconds=3600, **WHO)
            kinds |= fill(adopted.store, dice)
            before = load.done
            wait_until(lambda at=before: load.done > at + 20, SECONDS, "jobs go on")  # type: ignore[misc]  # at is bound
            wait_until(
                lambda: any("StoreValueUnreadable" in worker.log for worker in workers),
                SECONDS,
                "a worker says that it cannot read what the store holds",
            )

            done = CliRunner().invoke(
                command, ["store", "check", "--repair", "--json"], obj=CONTEXT
            )
            assert done.exit_code == 0, done.output
            assert all(row["repaired"] for row in json.loads(done.output))
            began = clock.monotonic()
            breaker("shop").force_open(seconds=600, **WHO)
            wait_until(lambda: has_refused(sell), SECONDS, "the fleet agrees")
            assert clock.monotonic() - began <= AGREE_SECONDS
            breaker("shop").reset(**WHO)
            wait_until(
                lambda: sell.delay(1).get(timeout=SECONDS, propagate=False) == 1, SECONDS, "closed"
            )
    assert {"circuits", "windows", "holds", "flags", "reports"} <= kinds
    assert [worker.pid for worker in workers] == pids
    assert all(isinstance(one, CircuitOpenError) for one in load.wrong), load.wrong[:3]
    errors = {name for worker in workers for name in ERROR.findall(worker.log)}
    assert errors <= {"resilience.errors.CircuitOpenError"}  # of jobs, while it was forced open


def test_jobs_go_on_and_a_repair_brings_the_fleet_back(workers: list[WorkerProcess]) -> None:
    """No worker ends, no job fails; two seconds after the repair an order holds everywhere."""
    check_rounds(workers, 1)


TOOLS = (
    ["breaker", "--json"],
    ["breaker", "history", "mail", "--json"],
    ["breaker", "reset", "mail", "--reason", "test"],
    ["holds", "--json"],
    ["release", "mail"],
    ["flag", "list", "--json"],
    ["fault", "list", "--json"],
    ["status", "--json"],
    ["store", "check"],
)


def test_fresh_workers_and_every_command_survive_garbage(server: ValkeyProcess) -> None:
    """Nobody who meets it for the first time fails: neither a worker at its start nor a command."""
    adopted, dice = Resilience.of(app), random.Random(20)  # noqa: S311 - no secret
    breaker("mail").force_closed(seconds=3600, **WHO)
    adopted.holds.hold("celery", seconds=3600, **WHO)
    assert adopted.flags.order("extras", "off", seconds=3600, **WHO)
    for words in TOOLS:
        fill(adopted.store, dice)
        done = CliRunner().invoke(command, words, obj=CONTEXT)
        assert isinstance(done.exception, SystemExit | None), (words, done.exception)
        assert done.exit_code in {0, 1}, (words, done.output)
    fill(adopted.store, dice)
    env = {"CELERY_BROKER_URL": server.url, "CELERY_RESULT_BACKEND": server.url}
    with run_worker(APP, queues=["mail", "shop"], pool="solo", env=env):
        assert send.delay(7).get(timeout=SECONDS) == 7


@pytest.mark.long
def test_jobs_go_on_for_longer(workers: list[WorkerProcess]) -> None:
    """The same, again and again."""
    check_rounds(workers, 60)
