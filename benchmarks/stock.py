"""A Celery app that does not use this library, to compare ours with."""

from celery import Celery, chord
from kombu import Queue

from benchmarks.client import CONFIRMED, ENV, EQUAL, QUORUM, STOCK, note_done, serve

SECONDS = 60.0

app = Celery("stock", broker=ENV["BENCHMARK_BROKER"], backend=ENV.get("BENCHMARK_BACKEND"))
app.conf.update(EQUAL, task_default_queue=STOCK)
if ENV["BENCHMARK_BROKER"].startswith("amqp"):
    app.conf.update(CONFIRMED, task_queues=[Queue(STOCK, queue_arguments=QUORUM)])


@app.task(name="noop", ignore_result=True)
def noop(_number: int) -> None:
    """Count the job."""
    note_done()


@app.task(name="echo")
def echo(number: int) -> int:
    """Return the number."""
    return number


@app.task(name="count")
def count(values: list[int]) -> int:
    """Return how many values a chord brought."""
    return len(values)


def publish(jobs: int) -> None:
    """Publish so many jobs."""
    for number in range(jobs):
        noop.delay(number)


def kept() -> float:
    """Return how many jobs are not with the broker: none, as there is no ledger."""
    return 0.0


def one() -> None:
    """Wait for one job."""
    echo.delay(1).get(timeout=SECONDS)


def gather(parts: int) -> None:
    """Wait for a chord.

    Raises:
        RuntimeError: It lost parts.
    """
    result = chord([echo.s(number) for number in range(parts)], count.s()).apply_async()
    if result.get(timeout=SECONDS) != parts:
        msg = "the chord lost parts"
        raise RuntimeError(msg)


if __name__ == "__main__":
    serve({"publish": publish, "kept": kept, "one": one, "gather": gather})
