"""Features that real workers shed and restore by themselves."""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import redis
from celery import Celery

from resilience import Dependency, Resilience, Settings
from resilience.breaker import Breaker
from resilience.clock import SystemClock
from resilience.testing.plugin import running_valkey
from resilience.testing.stack import WorkerProcess, run_worker
from resilience.testing.waiting import wait_until
from resilience.worker.shedding import Shedding
from tests.brokers import Broker, put, running_broker
from tests.fresh import imported_anew
from tests.preloaded import FORKSERVER

APP_PATH = "tests.integration.apps.shedding"
SECONDS = 120.0
WHO = {"actor": "ann", "reason": "so"}


class Stage:
    """A broker, a server that is store, desk and dependency in one, and the app."""

    def __init__(self, module: ModuleType, broker: Broker, env: dict[str, str]) -> None:
        self.module, self.broker, self.env = module, broker, env
        self.resilience: Resilience = module.app.resilience
        self.flags = self.resilience.flags
        self.desk: redis.Redis = module.desk()

    def worker(
        self, *queues: str, pool: str = "solo", **env: str
    ) -> AbstractContextManager[WorkerProcess]:
        """Run a worker."""
        env = {**self.env, **env}
        return run_worker(APP_PATH, queues=queues or ("other",), pool=pool, concurrency=4, env=env)

    @property
    def breaker(self) -> Breaker:
        """The circuit of the search."""
        found = self.resilience.breaker("search")
        assert isinstance(found, Breaker)
        return found

    def events(self, *names: str) -> list[dict[str, Any]]:
        """Return the events of these *names*, in order."""
        said = [json.loads(line) for line in self.desk.lrange("events", 0, -1)]
        return [one for one in said if one["name"] in names]

    def await_switches(self, expected: list[tuple[str, str]], seconds: float = SECONDS) -> None:
        """Wait until the controller has done no more and no less than is *expected*."""
        with suppress(AssertionError):  # the one below shows more
            wait_until(lambda: len(self.switches()) >= len(expected), seconds, "the switches")
        assert self.switches() == expected, self.agreed()

    def await_report(self) -> None:
        """Wait until a worker has reported."""
        key = self.resilience.store.key("reports")
        wait_until(lambda: self.desk.exists(key), SECONDS, "a worker reports")

    def agreed(self) -> tuple[object, object]:
        """Return what the store holds: the document, and the last reports of workers."""
        key = self.resilience.store.key
        return self.desk.get(key("flags")), self.desk.hgetall(key("reports"))

    def switches(self) -> list[tuple[str, str]]:
        """Return what the controller has switched, and how."""
        names = {"FeatureShed": "shed", "FeatureRestored": "restored"}
        return [(names[one["name"]], one["feature"]) for one in self.events(*names)]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Run the servers."""
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        broker = stack.enter_context(running_broker(tmp_path_factory))
        desk = stack.enter_context(running_valkey(tmp_path_factory))
        env = {"BROKER_URL": broker.url, "DESK_URL": desk.url}
        for name, value in env.items():
            patch.setenv(name, value)
        module = imported_anew(patch, APP_PATH)
        made = Stage(module, broker, env)
        yield made
        made.desk.close()
        made.resilience.store.client.close()
        module.app.close()


@pytest.fixture
def stage(servers: Stage, tmp_path: Path) -> Stage:
    """Return the servers, empty, for workers with a ledger in which nobody has ordered anything."""
    servers.env["RESILIENCE_LEDGER_URL"] = f"sqlite:///{tmp_path}/ledger.sqlite3"
    servers.broker.empty()
    servers.desk.flushall()
    # What this process knew of the test before, it forgets.
    servers.flags.receive(b"0|{}")
    servers.flags.change(lambda *_: None)
    return servers


SHED = [("shed", "ranking"), ("shed", "spelling")]
BACK = [("restored", "spelling"), ("restored", "ranking")]


def test_open_circuit_sheds_and_closing_restores_whoever_leads(stage: Stage) -> None:
    """The costliest first, and back in reverse; another worker leads after a SIGKILL.

    It leads within ten seconds, and goes on from where the one that was killed had come.
    """
    breaker = stage.breaker
    with stage.worker() as first, stage.worker() as second:
        breaker.force_open(seconds=600, **WHO)
        stage.await_switches(SHED)
        wait_until(lambda: not stage.flags.enabled("spelling"), 1, "this process knows")
        [leader] = {one["pid"] for one in stage.events("FeatureShed")}
        killed, other = (first, second) if first.pid == leader else (second, first)
        assert killed.pid == leader
        killed.kill()
        breaker.reset(**WHO)
        killed_at = SystemClock.monotonic()
        stage.await_switches([*SHED, *BACK])
        assert {one["pid"] for one in stage.events("FeatureRestored")} == {other.pid}
        assert SystemClock.monotonic() - killed_at < 10
        wait_until(lambda: stage.flags.enabled("ranking"), 1, "this process knows")
        other.kill()


def test_circuit_that_only_the_shed_feature_calls_closes_again(stage: Stage) -> None:
    """While it is half-open its probes come from the feature; else all would stay as it is."""
    stage.desk.set("down", "1")
    with stage.worker("search", pool="threads") as worker:

        def ask(expected: list[tuple[str, str]]) -> bool:
            stage.module.rank.delay().get(timeout=SECONDS)
            return stage.switches() == expected

        wait_until(lambda: ask(SHED), SECONDS, "both are shed")
        stage.desk.delete("down")
        assert wait_until(lambda: ask([*SHED, *BACK]), SECONDS, "both are back")
        worker.kill()


def test_full_queue_sheds_until_it_is_half_as_full(stage: Stage) -> None:
    """Jobs that nobody takes: by the share of `max_queue` that the dependency's lanes hold."""
    put(stage.broker, stage.module.app, "search", stage.module.MAX_QUEUE // 2)
    stage.desk.flushall()  # no worker knows a state, either
    with stage.worker() as worker:
        stage.await_switches(SHED)
        assert [one["rule"] for one in stage.events("FeatureShed")] == ["depth:search"] * 2
        stage.broker.empty()
        stage.await_switches([*SHED, *BACK])
        worker.kill()


@pytest.mark.parametrize("rule", ["age:slow", "p95:slow"])
def test_jobs_that_wait_or_run_long_shed(stage: Stage, rule: str) -> None:
    """By the times of the jobs that workers have begun and ended in the last ten seconds."""
    options = {"budget": 60} if rule == "age:slow" else {}
    for _ in range(40):
        stage.module.crawl.apply_async(**options)
    with stage.worker("slow", pool="threads") as worker:
        stage.await_switches([("shed", "history")])
        assert [one["rule"] for one in stage.events("FeatureShed")] == [rule]
        worker.kill()


def burn() -> None:
    """Keep a CPU busy."""
    while True:
        pass


def await_load_sheds(stage: Stage, worker: WorkerProcess) -> None:
    """Wait until the load has shed the costliest feature first, whatever it depends on."""
    wait_until(lambda: stage.switches()[:2] == SHED, SECONDS, "load sheds")
    assert {one["rule"] for one in stage.events("FeatureShed")} == {"load"}
    worker.kill()


def test_load_of_the_host_sheds(stage: Stage, tmp_path: Path) -> None:
    """What the kernel says of processes that wait for a CPU, here from a file as it writes it."""
    said = tmp_path / "pressure"
    said.write_text("some avg10=18.00 avg60=0.00 avg300=0.00 total=12285295444\n")
    with stage.worker(LOAD="0.2", PRESSURE=str(said)) as worker:
        stage.await_report()
        assert not stage.switches()
        said.write_text("some avg10=25.51 avg60=0.00 avg300=0.00 total=12285295444\n")
        await_load_sheds(stage, worker)


@pytest.mark.long
def test_processes_that_wait_for_a_cpu_shed(stage: Stage) -> None:
    """The same with so many processes, on a host that is kept busy for seconds."""
    crowd = [FORKSERVER.Process(target=burn, daemon=True) for _ in range(2 * (os.cpu_count() or 1))]
    with stage.worker(LOAD="0.2") as worker:
        for one in crowd:
            one.start()
        try:
            await_load_sheds(stage, worker)
        finally:
            for one in crowd:
                one.kill()
                one.join()


def test_flushed_store_gets_back_what_workers_know(stage: Stage) -> None:
    """Orders and what is shed survive a store that forgets everything."""
    with stage.worker() as worker:
        stage.flags.order("history", "off", seconds=600, **WHO)
        stage.breaker.force_open(seconds=600, **WHO)
        stage.await_switches(SHED)
        before = stage.flags.document
        stage.desk.flushall()
        key = stage.resilience.store.key("flags")
        wait_until(lambda: stage.desk.exists(key), 5, "it is written again")
        stage.resilience.pulse.refresh()
        after = stage.flags.document
        assert (after.orders, list(after.shed)) == (before.orders, ["ranking", "spelling"])
        assert after.version > before.version + 1
        worker.kill()


def test_app_without_features_has_no_thread_and_no_exchange(stage: Stage) -> None:
    """Who does not use them pays nothing: a worker has reported before it is ready, if ever."""
    with stage.worker(FEATURES="none") as worker:
        assert not stage.desk.exists(stage.resilience.store.key("reports"))
        worker.kill()
    app: Celery[Any] = Celery("plain", broker=stage.broker.url, set_as_current=False)
    settings = Settings(store_url=stage.env["DESK_URL"])
    resilience = Resilience(app, dependencies=[Dependency("search")], settings=settings)
    worker_step: Any = Shedding(SimpleNamespace(steps=[]))
    worker_step.start(SimpleNamespace(app=app))
    assert "shedding" not in [one.name for one in threading.enumerate()]
    assert resilience.job_times is None
    app.close()
