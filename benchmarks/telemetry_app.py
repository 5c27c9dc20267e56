"""An adopted app with the listeners that `BENCHMARK_LISTENERS` names."""

from celery import Celery
from opentelemetry.instrumentation.celery import CeleryInstrumentor

from benchmarks.client import DEPENDENCY, ENV, note_done, serve
from benchmarks.telemetry_listeners import LISTENERS, traced
from resilience import Dependency, Resilience, ResilientTask, Settings, fallback

if ENV["BENCHMARK_TRACED"]:
    CeleryInstrumentor().instrument(tracer_provider=traced())  # type: ignore[no-untyped-call]

app = Celery("telemetry", broker=ENV["BENCHMARK_BROKER"])
Resilience(
    app,
    dependencies=[Dependency(DEPENDENCY)],
    settings=Settings(store_url=ENV["BENCHMARK_STORE"], namespace=ENV["BENCHMARK_NAMESPACE"]),
    listeners=[LISTENERS[name](app) for name in ENV["BENCHMARK_LISTENERS"].split()],
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
