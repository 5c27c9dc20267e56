"""Metrics of a fleet: one scrape shows what all its processes have counted."""

import os
import signal
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import pytest

from resilience import Level
from resilience.testing.plugin import running_valkey
from resilience.testing.ports import free_port
from resilience.testing.process import ServerProcess, import_path
from resilience.testing.stack import WorkerProcess, run_worker
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.brokers import Broker
from tests.fresh import imported_anew
from tests.integration.scraped import samples, text_parsed

APP_PATH = "tests.integration.apps.metrics"
SECONDS = 60.0
WHO = {"seconds": 600.0, "actor": "ann", "reason": "test"}


class Stage:
    """A worker, the process that serves metrics, and the app in this process."""

    def __init__(
        self, module: ModuleType, worker: WorkerProcess, store: ValkeyProcess, url: str
    ) -> None:
        """Know them."""
        self.module, self.worker, self.store, self.url = module, worker, store, url

    @property
    def env(self) -> dict[str, str]:
        """Variables for another process of the app."""
        return self.worker.env

    def scrape(self) -> dict[tuple[str, ...], float]:
        """Return the value of each sample by name and sorted labels."""
        request = urllib.request.Request(  # noqa: S310 - of this host
            self.url, headers={"Accept": "application/openmetrics-text; version=1.0.0"}
        )
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310 - as above
            return samples(answer.read().decode())

    def run(self, *, broken: int, full: int) -> list[int]:
        """Let the worker run so many jobs, and return the process that ran each."""
        rank = self.module.rank
        results = [rank.delay(broken=True) for _ in range(broken)]
        results += [rank.delay(broken=False) for _ in range(full)]
        return [result.get(timeout=SECONDS).value for result in results]

    def answers(self) -> tuple[float, float]:
        """Return how many answers one scrape shows: degraded, and full."""
        found = self.scrape()
        return tuple(  # type: ignore[return-value] # two
            found.get(
                (
                    "resilience_answers_total",
                    "dependency=users",
                    f"level={level}",
                    "task=metrics.rank",
                ),
                0.0,
            )
            for level in ("REDUCED", "FULL")
        )


LABELS_OF_DEGRADED = ("dependency=users", "level=REDUCED", "task=metrics.rank")


@pytest.fixture(scope="module")
def stage(
    any_broker: Broker, valkey: ValkeyProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """A prefork worker whose two children are replaced after every 15 jobs."""
    any_broker.empty()
    path = tmp_path_factory.mktemp("metrics")
    with running_valkey(tmp_path_factory) as store:
        env = {
            "CELERY_BROKER_URL": any_broker.url,
            "CELERY_RESULT_BACKEND": valkey.url,
            "RESILIENCE_STORE_URL": store.url,
            "RESILIENCE_LEDGER_URL": f"sqlite:///{path}/ledger.sqlite3",
        }
        shown = ServerProcess(
            [
                sys.executable,
                "-m",
                "celery",
                "-A",
                APP_PATH,
                "resilience",
                "metrics",
                "--port",
                "0",
            ],
            ready="/metrics",
            log_path=path / "metrics.log",
            env={**env, "PYTHONPATH": import_path()},
        )
        with pytest.MonkeyPatch.context() as patch:
            for name, value in env.items():
                patch.setenv(name, value)
            module = imported_anew(patch, APP_PATH)
        options = ["--max-tasks-per-child", "15"]
        with run_worker(APP_PATH, queues=["users"], env=env, extra=options) as worker:
            shown.start()
            try:
                url = shown.log.split("metrics on ")[1].split()[0]
                yield Stage(module, worker, store, url)
            finally:
                shown.kill()
                worker.kill()  # its shutdown takes seconds


def test_one_scrape_is_complete_though_children_end_and_are_killed(stage: Stage) -> None:
    """Jobs of both children are counted once each, also of those that were replaced or killed."""
    assert len({*stage.run(broken=40, full=20)}) > 2
    wait_until(lambda: stage.answers() == (40, 20), SECONDS, "the scrape shows all answers")

    # For a moment there may be none, as each ends after some jobs.
    idle = wait_until(lambda: set(stage.worker.children()), SECONDS, "a child is there")
    os.kill(min(idle), signal.SIGKILL)
    wait_until(lambda: set(stage.worker.children()) - idle, SECONDS, "another child is there")
    stage.run(broken=10, full=10)
    wait_until(lambda: stage.answers() == (50, 30), SECONDS, "the scrape shows all answers")

    found = stage.scrape()
    assert found["resilience_events_total", "dependency=users", "event=AnswerDegraded"] == 50
    assert found["resilience_queue_wait_seconds_count", "dependency=users"] == 80
    name = "resilience_degraded_answers_total"
    assert found[name, "dependency=users", "kind=error", "level=REDUCED"] == 50
    rates = {
        about: found["resilience_burn_rate", f"objective={about}", "window=5m"]
        for about in ("app", "task:metrics.rank")
    }
    assert rates == {"app": pytest.approx(50 / 80 / 0.25), "task:metrics.rank": pytest.approx(6.25)}
    assert found["resilience_minutes_below_full", "dependency=users"] >= 1


def test_job_that_fails_is_an_answer_at_level_failed(stage: Stage) -> None:
    """The share of answers below FULL includes those that are errors."""
    with suppress(ConnectionError):
        stage.module.fail.delay().get(timeout=SECONDS)

    labels = ("dependency=users", "level=FAILED", "task=metrics.fail")
    wait_until(
        lambda: stage.scrape().get(("resilience_answers_total", *labels)) == 1,
        SECONDS,
        "the failure is counted",
    )


@pytest.fixture(scope="module")
def old_job(stage: Stage) -> None:
    """A job in a queue that is held; it was published 50 s ago."""
    resilience = stage.module.resilience
    resilience.holds.hold("mail", **WHO)
    queue = resilience.app.amqp.queues["mail"]
    with resilience.app.producer_or_acquire(None) as producer:
        headers = {"resilience-sent": resilience.fleet_time() - 50}
        producer.publish({}, routing_key="mail", exchange="", declare=[queue], headers=headers)


@pytest.mark.usefixtures("old_job")
def test_gauges_show_queues_holds_and_features(stage: Stage) -> None:
    """What waits, who takes it, what is held and what is off can be scraped."""
    stage.module.resilience.flags.order("ranking", "off", **WHO)

    def shown() -> bool:
        found = stage.scrape()
        return (
            found["resilience_up", "source=broker"] == 1
            and found["resilience_held", "name=mail"] == 1
            and found["resilience_held", "name=users"] == 0
            and found["resilience_feature_shed", "feature=ranking"] == 1
            and found["resilience_level",] == Level.REDUCED
            and found["resilience_queue_jobs", "queue=mail"] == 1
            and ("resilience_queue_consumers", "queue=mail") not in found
            and found["resilience_queue_consumers", "queue=users.critical"] == 0
            and found["resilience_queue_consumers", "queue=users"] == 1
            and found["resilience_slots", "dependency=users"] == 20
            and found["resilience_breaker_state", "dependency=mail", "state=closed"] == 1
        )

    wait_until(shown, SECONDS, "the scrape shows it")


@pytest.mark.redis_broker("RabbitMQ shows no message without handing it out")
@pytest.mark.usefixtures("old_job")
def test_age_of_the_oldest_job_is_shown(stage: Stage) -> None:
    """A job that was published 50 s ago is 50 s old."""
    name = ("resilience_queue_oldest_age_seconds", "queue=mail")

    assert 50 <= wait_until(lambda: stage.scrape().get(name), SECONDS, "an age is shown") < 90


def test_flower_shows_the_same_totals(stage: Stage, tmp_path: Path) -> None:
    """Two lines in `flowerconfig.py` add them to Flower's own metrics."""
    degraded, full = stage.answers()
    stage.run(broken=1, full=0)
    expected = degraded + 1, full
    wait_until(lambda: stage.answers() == expected, SECONDS, "the answer is counted")
    config, port = tmp_path / "flowerconfig.py", free_port()
    config.write_text(
        f"from resilience.monitor.scrape import expose\n"
        f"from {APP_PATH} import resilience\n"
        f"expose(resilience)\n"
    )
    flower = ["flower", f"--conf={config}", f"--port={port}", "--address=127.0.0.1"]
    server = ServerProcess(
        [sys.executable, "-m", "celery", "-A", APP_PATH, *flower],
        ready="Visit me at",
        log_path=tmp_path / "flower.log",
        env=stage.env,
    )

    def shown() -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=SECONDS) as answer:
            found = samples(answer.read().decode(), text_parsed)
        own = ("resilience_answers_total", *LABELS_OF_DEGRADED)
        return found.get(own) == stage.scrape()[own]

    server.start()
    try:
        wait_until(shown, SECONDS, "Flower shows as many answers as the other process")
    finally:
        server.kill()


def test_outage_of_the_store_loses_no_count(stage: Stage) -> None:
    """`up` says so, counters stay; what was counted meanwhile is there when the store is back."""
    before = stage.answers()
    up = ("resilience_up", "source=store")
    stage.store.stop()
    try:
        wait_until(lambda: stage.scrape()[up] == 0, SECONDS, "the store is shown as down")
        assert ("resilience_level",) not in stage.scrape()
        assert stage.answers() == before
        ran = stage.run(broken=5, full=0)
    finally:
        stage.store.start()

    def complete() -> bool:
        # A child that has reached its last job meanwhile ends with what it cannot send.
        kept = [pid for pid in ran if pid in stage.worker.children()]
        return stage.answers() == (before[0] + len(kept), before[1])

    wait_until(lambda: stage.scrape()[up] == 1, SECONDS, "the store is shown as back")
    wait_until(complete, SECONDS, "the scrape shows what the living children counted")
