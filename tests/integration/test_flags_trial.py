"""Trials with a real worker: what a feature costs, found from its calls."""

from collections.abc import Iterator
from contextlib import ExitStack
from types import ModuleType
from typing import Any

import pytest

from resilience.flags.document import Cost
from resilience.testing.plugin import running_valkey
from resilience.testing.stack import WorkerProcess, run_worker
from resilience.testing.waiting import wait_until
from tests.fresh import imported_anew

APP = "tests.integration.apps.trials"
SECONDS = 120.0
WHO: dict[str, Any] = {"actor": "ann", "reason": "what does it cost?"}


class Stage:
    """The app in this process, and a worker of it that leads."""

    def __init__(self, module: ModuleType, worker: WorkerProcess) -> None:
        """Know both."""
        self.module, self.worker = module, worker
        self.flags = module.resilience.flags

    def measure(self, feature: str, *, jobs: int, calls: int) -> Cost | None:
        """Run a trial while *jobs* at once make *calls* each; return what it found."""
        self.flags.start_trial(feature, share=0.5, seconds=600, **WHO)
        burst = self.module.app.tasks["burst"]
        results = [burst.delay(feature, calls) for _ in range(jobs)]
        for result in results:
            result.get(timeout=SECONDS)
        self.flags.stop_trial(feature)
        self.await_end(feature)
        found: Cost | None = self.flags.document.costs.get(feature)
        return found

    def true_cost(self) -> float:
        """Return what the calls since the last question say that the feature cost."""
        found: float = self.module.mean_cost.delay().get(timeout=SECONDS)
        return found

    def await_end(self, feature: str) -> None:
        """Wait until the leader has ended the trial."""

        def over() -> bool:
            self.module.resilience.pulse.refresh()
            return feature not in self.flags.document.trials

        wait_until(over, SECONDS, f"the trial of {feature} is over")

    def said(self, feature: str) -> str:
        """Return what the worker announced of the end of the trial."""
        text = f"TrialEnded feature={feature} "
        wait_until(lambda: text in self.worker.log, SECONDS, "it is announced")
        (line,) = [line for line in self.worker.log.splitlines() if text in line]
        return line


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A server, a worker with threads, and the app in this process."""
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        server = stack.enter_context(running_valkey(tmp_path_factory))
        env = {
            "CELERY_BROKER_URL": server.url,
            "CELERY_RESULT_BACKEND": server.url,
            "RESILIENCE_STORE_URL": server.url,
            "RESILIENCE_STORE_TIMEOUT_SECONDS": "10",  # a busy machine is no outage
        }
        for name, value in env.items():
            patch.setenv(name, value)
        module = imported_anew(patch, APP)
        module.app.conf.result_backend = server.url
        worker = stack.enter_context(
            run_worker(APP, queues=["celery"], pool="threads", concurrency=8, env=env)
        )
        stack.callback(worker.kill)
        yield Stage(module, worker)
        module.resilience.store.client.close()
        module.app.close()


@pytest.mark.parametrize("feature", ["ranking", "spelling"])
def test_trial_finds_what_a_feature_costs(stage: Stage, feature: str) -> None:
    """A feature that makes calls dearer is found out, and announced.

    The truth is what the calls themselves saw, as they take longer on a busy machine. An interval
    of 95 % misses it once in twenty trials, one of twice its width once in ten thousand; how often
    it misses is for the benchmark `flag_trial` to count.
    """
    cost = stage.measure(feature, jobs=8, calls=150)

    assert cost is not None, stage.said(feature)
    width, truth = cost.high - cost.low, stage.true_cost()
    assert width < truth / 2
    assert abs(cost.seconds - truth) <= width
    assert cost.calls > 400  # but for those of the first second and of the last
    assert "a call takes" in stage.said(feature)


def test_trial_of_calls_without_fallbacks_finds_what_they_cost(stage: Stage) -> None:
    """A shed call raises `FeatureShedError`, as promised; that stops no trial."""
    cost = stage.measure("bare", jobs=8, calls=100)

    assert cost is not None
    assert cost.seconds > stage.true_cost()  # what follows in such a call is not made, either
    assert "a call takes" in stage.said("bare")


def test_trial_concludes_nothing_from_few_calls(stage: Stage) -> None:
    """Less than a hundred calls a side are no measurement, and the given cost stays in force."""
    assert stage.measure("rare", jobs=2, calls=40) is None
    assert "are too few" in stage.said("rare")


def test_trial_that_does_harm_stops_by_itself(stage: Stage) -> None:
    """A feature whose absence fails calls is on again for all of them, long before the end."""
    stage.flags.start_trial("broken", share=0.5, seconds=600, **WHO)
    burst = stage.module.app.tasks["burst"]

    def fine() -> bool:
        return bool(burst.delay("broken", 50).get(timeout=SECONDS) == 0)

    wait_until(lambda: not fine(), SECONDS, "calls fail")
    wait_until(fine, SECONDS, "it is on for all calls")

    assert "stopped: " in stage.said("broken")
    stage.await_end("broken")
    assert "broken" not in stage.flags.document.costs
