"""An adopted app whose task is logged, traced and announced as `BENCHMARK_LISTENERS` says."""

from celery import Celery

from benchmarks.client import DEPENDENCY, ENV, note_done, serve
from benchmarks.telemetry_listeners import all_listeners, traced
from resilience import Dependency, Resilience, ResilientTask, Settings, fallback

app = Celery("telemetry", broker=ENV["BENCHMARK_BROKER"])
Resilience(
    app,
    dependencies=[Dependency(DEPENDENCY)],
    settings=Settings(store_url=ENV["BENCHMARK_STORE"], namespace=ENV["BENCHMARK_NAMESPACE"]),
    listeners=all_listeners(app, traced()) if ENV["BENCHMARK_LISTENERS"] == "all" else [],
)


@app.task(
    name="noop",
    base=ResilientTask,
    dependency=DEPENDENCY,
    fallbacks=[fallback.static(1)],
    ignore_result=True,
)
def noop(_number: int) -> None:
    """Count the job."""
    note_done()


def publish(jobs: int) -> None:
    """Publish so many jobs."""
    for number in range(jobs):
        noop.delay(number)


if __name__ == "__main__":
    serve({"publish": publish})
