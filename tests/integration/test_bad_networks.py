"""Bad networks between an app and each of its servers: nothing hangs, nothing is lost, all heal.

The whole matrix takes minutes: each kind of bad network, before each server, on the side of the
publisher and on that of the worker. It prints a table, which docs/bad-networks.md shows.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from uuid import uuid4

import pytest
import redis

from resilience import Level, TimeoutBudget
from resilience.budget import current_budget
from resilience.chaos.proxy import FaultProxy
from resilience.clock import SystemClock
from resilience.testing.plugin import running_valkey
from resilience.testing.postgres import PostgresProcess
from resilience.testing.stack import run_worker
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.brokers import running_broker
from tests.fresh import imported_anew

APP = "tests.integration.apps.networked"
SERVERS = ("broker", "results", "store", "ledger")
SIDES = ("publisher", "worker")
NETWORKS: Mapping[str, tuple[tuple[str, dict[str, int]], ...]] = {
    "latency": (("latency", {"latency": 300}),),
    "jitter": (("latency", {"latency": 150, "jitter": 150}),),
    "stall": (("stall", {}),),
    "black hole": (("timeout", {}),),
    "reset": (("reset_peer", {}),),
    "slicer": (("slicer", {"average_size": 16, "size_variation": 8, "delay": 200}),),
    "bandwidth": (("bandwidth", {"rate": 20}),),
}
"""What each network does to either direction, as toxics and their attributes."""
BUDGET_SECONDS = 3.0
GET_SECONDS = 4.6
"""Of `get()`: Celery asks a silent result backend four times, a second each and a pause between
them, whatever timeout the caller gives. Without the app's adoption each of them takes 120 s."""
TOLERANCE = 1.1
RECOVERY_SECONDS = 10.0
JOBS = 5
CONTROL_JOBS = 20
monotonic = SystemClock.monotonic


@dataclass
class Stage:
    """The app here and in a worker, and a proxy before each server on either side."""

    networked: ModuleType
    proxies: Mapping[tuple[str, str], FaultProxy]
    diary: "redis.Redis[bytes]"

    def timed(self, call: Any) -> tuple[float, Any]:  # noqa: ANN401 - any call
        """Return how long *call* took, and what it returned; None if it raised."""
        began, found = monotonic(), None
        with suppress(Exception), TimeoutBudget(BUDGET_SECONDS):
            found = call()
        return monotonic() - began, found

    def publish(self) -> tuple[float, str]:
        """Publish a job that must not get lost; return how long that took, and its key."""
        key = uuid4().hex
        with suppress(Exception):
            seconds, _ = self.timed(lambda: self.networked.note.delay(key))
        return seconds, key

    def ask(self) -> tuple[float, bool]:
        """Ask for an answer; return how long that took, and whether it was there and full."""

        def ask() -> bool:
            asked = self.networked.answer.apply_async((7,))  # within the budget of `timed`
            return bool(asked.get(timeout=current_budget().remaining()).level is Level.FULL)

        seconds, full = self.timed(ask)
        return seconds, bool(full)

    def done(self, keys: list[str]) -> list[int]:
        """Return how often each job was done."""
        return [int(one or 0) for one in self.diary.hmget(self.networked.DONE, keys)]


@pytest.fixture(scope="module")
def stage(postgres: PostgresProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Run servers, proxies and a worker."""
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        broker = stack.enter_context(running_broker(tmp_path_factory))
        others: dict[str, ValkeyProcess] = {
            name: stack.enter_context(running_valkey(tmp_path_factory))
            for name in ("results", "store", "diary")
        }
        urls = {
            "broker": broker.url,
            "results": others["results"].url,
            "store": others["store"].url,
            "ledger": postgres.new_database().replace("postgresql:", "postgresql+psycopg:"),
        }
        proxies: dict[tuple[str, str], FaultProxy] = {}
        sides: dict[str, dict[str, str]] = {}
        for side in SIDES:
            through = {}
            for name, url in urls.items():
                port = port_of(url)
                proxy = stack.enter_context(FaultProxy(f"127.0.0.1:{port}"))
                proxies[name, side] = proxy
                through[name] = url.replace(f":{port}", f":{proxy.port}")
            sides[side] = {
                "CELERY_BROKER_URL": through["broker"],
                "CELERY_RESULT_BACKEND": through["results"],
                "RESILIENCE_STORE_URL": through["store"],
                "RESILIENCE_LEDGER_URL": through["ledger"],
                "DIARY_URL": others["diary"].url,
            }
        for variable, value in sides["publisher"].items():
            patch.setenv(variable, value)
        networked = imported_anew(patch, APP)
        adopted = networked.app.resilience
        adopted.ledger.upgrade()
        queues = [queue for one in adopted.dependencies.values() for queue in one.queues]
        worker = stack.enter_context(run_worker(APP, queues=queues, env=sides["worker"]))
        stack.callback(worker.kill)
        diary = stack.enter_context(redis.Redis.from_url(others["diary"].url))
        yield Stage(networked, proxies, diary)
        adopted.ledger.close()
        networked.app.close()


def port_of(url: str) -> str:
    """Return the port in *url*."""
    return url.rpartition("@")[2].rpartition("//")[2].partition("/")[0].rpartition(":")[2]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.long
def test_bad_network_keeps_budgets_loses_nothing_and_heals(
    stage: Stage, network: str, server: str, side: str
) -> None:
    """Each operation ends within its budget + 10 %, each job is done, answers are full again."""
    wait_until(lambda: stage.ask()[1], 60, "an answer is full before")
    # What the machine adds: as many operations on a good network, a moment before.
    control = max(stage.publish()[0] for _ in range(CONTROL_JOBS))
    proxy = stage.proxies[server, side]
    toxics = [
        proxy.add(kind, stream=stream, name=f"{kind}-{stream}", **attributes)
        for kind, attributes in NETWORKS[network]
        for stream in ("upstream", "downstream")
    ]

    published = [stage.publish() for _ in range(JOBS)]
    asked = [stage.ask() for _ in range(JOBS)]

    for name in toxics:
        proxy.remove(name)
    healed = monotonic()
    keys = [key for _, key in published]
    wait_until(lambda: stage.ask()[1], 60, "an answer is full again")
    wait_until(lambda: all(stage.done(keys)), 60, "each job is done")
    recovery = monotonic() - healed
    slowest = max(seconds for seconds, _ in [*published, *asked])
    full = sum(is_full for _, is_full in asked)
    more = sum(stage.done(keys)) - len(keys)
    print(  # noqa: T201 - for the table
        f"| {network} | {server} | {side} | {slowest:.2f} | {full} of {JOBS} | {recovery:.1f} | "
        f"{more} |"
    )
    silent_results = server == "results" and side == "publisher"
    bound = GET_SECONDS if silent_results else BUDGET_SECONDS
    assert slowest <= bound * TOLERANCE + control
    assert recovery <= RECOVERY_SECONDS
