"""The adopted app of the throughput benchmark: one task, declared as `BENCHMARK_STYLE` says."""

from typing import Any

from celery import Celery
from kombu import Queue

import resilience as package
from benchmarks.client import DEPENDENCY, ENV, PLAIN, QUORUM, note_done, serve
from resilience import Dependency, Resilience, ResilientTask, Settings, fallback

STYLES: dict[str, dict[str, Any]] = {
    "adopted_plain": {"queue": PLAIN},
    "dependency": {"base": ResilientTask, "dependency": DEPENDENCY},
    "fallback": {
        "base": ResilientTask,
        "dependency": DEPENDENCY,
        "fallbacks": [fallback.static(1)],
    },
    "idempotent": {
        "base": ResilientTask,
        "dependency": DEPENDENCY,
        "idempotency_key": "{number}",
    },
}
if ENV["BENCHMARK_STYLE"] == "fire":  # an app that keeps no jobs does not import the ledger
    STYLES["fire"] = {"base": package.FireAndForgetTask, "dependency": DEPENDENCY}

app = Celery("adopted", broker=ENV["BENCHMARK_BROKER"])
if ENV["BENCHMARK_BROKER"].startswith("amqp"):
    app.conf.task_queues = [Queue(PLAIN, queue_arguments=QUORUM)]
resilience = Resilience(
    app,
    dependencies=[Dependency(DEPENDENCY)],
    settings=Settings(
        store_url=ENV["BENCHMARK_STORE"],
        ledger_url=ENV["BENCHMARK_LEDGER"],
        namespace=ENV["BENCHMARK_NAMESPACE"],
    ),
)


@app.task(name="noop", ignore_result=True, **STYLES[ENV["BENCHMARK_STYLE"]])
def noop(number: str) -> None:  # noqa: ARG001 - its idempotency key contains it
    """Count the job."""
    note_done()


class _Publisher:
    """Publishes jobs, each with an idempotency key of its own."""

    published = 0

    def publish(self, jobs: int) -> None:
        """Publish so many jobs."""
        for number in range(self.published, self.published + jobs):
            noop.delay(number=str(number))
        self.published += jobs


def kept() -> float:
    """Return how many jobs are in the ledger, as the broker did not take them in time."""
    return sum(count.jobs for count in resilience.ledger.counts(limit=None))


if __name__ == "__main__":
    resilience.ledger.upgrade()
    serve({"publish": _Publisher().publish, "kept": kept})
