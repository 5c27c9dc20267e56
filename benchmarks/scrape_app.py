"""An adopted app whose task does nothing, with or without the listener for Prometheus."""

from celery import Celery

from benchmarks.client import DEPENDENCY, ENV, note_done, serve
from resilience import Dependency, Resilience, ResilientTask, Settings, fallback
from resilience.events import Listener, log_event
from resilience.monitor.prometheus import PrometheusListener

app = Celery("adopted", broker=ENV["BENCHMARK_BROKER"])
listeners: list[Listener] = [log_event, PrometheusListener()]
resilience = Resilience(
    app,
    dependencies=[Dependency(DEPENDENCY)],
    settings=Settings(
        store_url=ENV["BENCHMARK_STORE"],
        ledger_url=ENV["BENCHMARK_LEDGER"],
        namespace=ENV["BENCHMARK_NAMESPACE"],
    ),
    listeners=listeners[: int(ENV["BENCHMARK_LISTENERS"])],
)


@app.task(
    name="noop",
    ignore_result=True,
    base=ResilientTask,
    dependency=DEPENDENCY,
    fallbacks=[fallback.static(1)],
)
def noop() -> None:
    """Count the job."""
    note_done()


def publish(jobs: int) -> None:
    """Publish so many jobs."""
    for _ in range(jobs):
        noop.delay()


if __name__ == "__main__":
    serve({"publish": publish})
