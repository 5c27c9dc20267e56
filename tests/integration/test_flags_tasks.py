"""Tasks of a feature that is shed, with a real worker: who answers, how well, and what it says."""

from collections.abc import Iterator
from contextlib import ExitStack
from types import ModuleType
from typing import Any
from uuid import uuid4

import pytest

from resilience import FanOut, FeatureShedError, Level, Outcome
from resilience.breaker import Breaker
from resilience.clock import SystemClock
from resilience.store.fleet import Evidence, Exchange, StoreFleet
from resilience.testing.plugin import running_valkey
from resilience.testing.stack import WorkerProcess, run_worker
from resilience.testing.waiting import wait_until
from tests.fresh import imported_anew

APP = "tests.integration.apps.shed"
SECONDS = 12.0
monotonic = SystemClock.monotonic
WHO: dict[str, Any] = {"actor": "ann", "reason": "drill"}


class Stage:
    """The app in this process, and a worker of it."""

    def __init__(self, module: ModuleType, worker: WorkerProcess) -> None:
        """Know both."""
        self.module, self.worker = module, worker
        self.flags = module.resilience.flags

    def run(self, task: str, *args: object) -> Any:  # noqa: ANN401 - what it returns or raises
        """Run *task* in the worker."""
        result = self.module.app.tasks[task].apply_async(args)
        return result.get(timeout=SECONDS, propagate=False)

    def shed(self, feature: str, seconds: float = 600.0) -> None:
        """Order *feature* off, and wait for as long as that may take to reach the worker."""
        self.flags.order(feature, "off", seconds=seconds, **WHO)
        wait_for_all()

    def count(self, text: str) -> int:
        """Return how often the worker's log says *text*."""
        return self.worker.log.count(text)


def wait_for_all() -> None:
    """Wait for as long as a change of the flags may take to reach every process."""
    known = monotonic() + 1.0
    wait_until(lambda: monotonic() > known, SECONDS, "all processes know")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A server, a worker with one process, and the app in this process; two features are off."""
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        server = stack.enter_context(running_valkey(tmp_path_factory))
        env = {
            "CELERY_BROKER_URL": server.url,
            "CELERY_RESULT_BACKEND": server.url,
            "RESILIENCE_STORE_URL": server.url,
            "RESILIENCE_STORE_TIMEOUT_SECONDS": "10",  # a busy machine is no outage
            "RESILIENCE_LEDGER_URL": f"sqlite:///{tmp_path_factory.mktemp('ledger') / 'l.sqlite3'}",
        }
        for name, value in env.items():
            patch.setenv(name, value)
        module = imported_anew(patch, APP)
        module.app.conf.result_backend = server.url
        module.resilience.ledger.upgrade()
        # Before the worker starts: its first look brings what is ordered.
        for feature in ("ranking", "search"):
            module.resilience.flags.order(feature, "off", seconds=600.0, **WHO)
        worker = stack.enter_context(run_worker(APP, queues=module.QUEUES, concurrency=1, env=env))
        stack.callback(worker.kill)
        yield Stage(module, worker)
        module.resilience.store.client.close()
        module.resilience.ledger.close()
        module.app.close()


@pytest.mark.parametrize(
    ("task", "value", "level", "source"),
    [
        pytest.param("rank", "static", Level.STATIC, "static", id="better-steps-are-left-out"),
        pytest.param("rank_stale", "old", Level.REDUCED, "call older", id="none-is-as-bad"),
        pytest.param("search_failed", "nothing", Level.FAILED, "static", id="failed"),
    ],
)
def test_chain_answers_at_the_level_of_a_shed_feature(
    stage: Stage, task: str, value: str, level: Level, source: str
) -> None:
    """The outcome, its JSON and the event say how good the answer is and why."""
    found = stage.run(task, "q")

    assert isinstance(found, Outcome)
    assert (found.value, found.level, found.reason) == (value, level, "FeatureShedError")
    meta = found.to_json()["_meta"]
    assert (meta["level"], meta["reason"], meta["source"]) == (
        level,
        "FeatureShedError",
        found.source,
    )
    text = (
        f"AnswerDegraded call={task} dependency=search level={level.name} reason=FeatureShedError"
    )
    wait_until(lambda: stage.count(text), SECONDS, "it is announced")
    assert "is shed by order (drill)" in stage.worker.log
    assert source.rsplit(maxsplit=1)[-1] in str(found.source)


def test_task_without_a_chain_raises_what_shed_its_feature(stage: Stage) -> None:
    """The error crosses the result backend with feature, level, rule, source and when to return."""
    error = stage.run("rank_bare", "q")

    assert isinstance(error, FeatureShedError)
    assert (error.feature, error.level, error.reason) == ("ranking", Level.REDUCED, "drill")
    assert error.source == "order"
    assert error.retry_after is not None
    assert 0 < error.retry_after <= 30
    wait_until(lambda: stage.count("rank_bare[") >= 2, SECONDS, "the worker has logged its end")
    assert "Traceback" not in stage.worker.log  # nothing is wrong: somebody ordered it


def test_shed_calls_leave_the_breaker_alone(stage: Stage) -> None:
    """They are neither calls nor failures of the dependency."""
    breaker = stage.module.resilience.breaker("search")
    assert isinstance(breaker, Breaker)
    assert breaker.state
    nothing = Evidence(name="search", generation=breaker.circuit.generation, window_seconds=60)
    fleet = StoreFleet(stage.module.resilience.store)

    def calls() -> int:
        window = fleet.ask(Exchange(process="test", evidence=[nothing])).windows["search"]
        return int(window.calls)

    before = calls()
    for _ in range(5):
        stage.run("rank_bare", "q")
    assert calls() == before


def test_part_of_a_fan_out_says_that_it_was_shed(stage: Stage) -> None:
    """The part is there, degraded, with its reason; one without a chain is missing with it."""
    tasks = stage.module.app.tasks
    response = (
        FanOut(good=tasks["rank"].s("q"), bare=tasks["rank_bare"].s("q"))
        .apply_async(budget=SECONDS)
        .get()
    )

    assert response.degraded == ["good"]
    assert response.missing == ["bare"]
    assert response.reasons == {"good": "FeatureShedError", "bare": "FeatureShedError"}


def test_eager_task_answers_without_its_feature(stage: Stage) -> None:
    """`apply()` decides in this very process."""
    found = stage.module.app.tasks["rank"].apply(("q",)).get()
    assert (found.value, found.level) == ("static", Level.STATIC)


def test_body_that_was_given_less_returns_a_degraded_outcome(stage: Stage) -> None:
    """A shed `@degradable` shows in the answer of the task whose body asked, and is not kept."""

    def reason(task: str) -> object:
        found = stage.run(task, "q")
        return found.reason if isinstance(found, Outcome) else found

    assert reason("search") is None
    stage.shed("spelling")
    wait_until(lambda: reason("search") == "FeatureShedError", SECONDS, "the worker knows")
    found = stage.run("search", "other")
    assert (found.value, found.level, found.source) == ("other", Level.REDUCED, "otherwise")
    assert found.dependency == "spelling"
    assert reason("search_plain") == "q"  # without a chain a task returns the plain value
    stage.flags.order("spelling", "auto", **WHO)
    wait_until(lambda: reason("search") is None, SECONDS, "it is on again")
    assert stage.run("search", "other").value == "other spelled"


def test_trial_postpones_no_kept_job(stage: Stage) -> None:
    """A job that would only run later measures nothing, so none is shed for a trial."""
    key, jobs = uuid4().hex, 20
    stage.flags.start_trial("mail", share=0.5, seconds=600, **WHO)
    wait_for_all()
    for _ in range(jobs):
        stage.module.app.tasks["mail"].delay(key)

    client = stage.module.resilience.store.client
    wait_until(lambda: client.llen(key) == jobs, SECONDS, "all have run")
    assert stage.count("JobParked task=mail") == 0
    stage.flags.stop_trial("mail")


def test_job_of_a_shed_feature_is_kept_and_runs_later(stage: Stage) -> None:
    """It spends no attempt, and runs once the feature is on."""
    key = uuid4().hex
    stage.shed("mail", seconds=4)
    job = stage.module.app.tasks["mail"].delay(key).id

    text = f"JobParked task=mail id={job} "
    (line,) = wait_until(
        lambda: [line for line in stage.worker.log.splitlines() if text in line],
        SECONDS,
        "it is kept",
    )[:1]
    assert "attempts=0" in line
    client = stage.module.resilience.store.client
    wait_until(lambda: client.llen(key), SECONDS, "it has run")
    assert client.llen(key) == 1


def test_autoretry_waits_until_the_feature_may_be_on(stage: Stage) -> None:
    """A refusal spends no retry, and `countdown=0` makes no loop of it."""
    stage.shed("again", seconds=4)
    assert stage.run("again") == 0
    assert 1 <= stage.count(" retry: Retry in ") <= 3
