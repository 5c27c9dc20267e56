"""What listeners cost: a job that ends well, with all of them and with none; a degraded answer.

The jobs run in prefork workers, whose Celery events are off; sides take turns, and processor time
is compared. On both sides opentelemetry-instrumentation-celery makes the spans of jobs. Where it
does not, the listener makes them; that figure, for information, is what spans cost.

What a listener does with one degraded answer is timed in this process: the log writes to /dev/null,
the channel of the Celery events is read between the runs, and spans are recorded and exported.
"""

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from timeit import Timer

from celery import Celery
from opentelemetry.sdk.metrics import MeterProvider

from benchmarks.client import DEPENDENCY
from benchmarks.figure import Figure, median_us, paired_ratio
from benchmarks.sides import Side
from benchmarks.telemetry_listeners import LISTENERS, traced
from resilience import Dependency
from resilience.events import AnswerDegraded, LogLines
from resilience.levels import Level
from resilience.monitor.celery_events import CeleryEvents, Channel
from resilience.monitor.opentelemetry import OpenTelemetry
from resilience.testing.valkey import ValkeyProcess

TASK_RATIO = 1.05
ANSWER_US = 50.0
UNHEARD_US = 1.0
"""Celery events that nobody listens to."""
CALLS = 50
TURNS, QUICK_TURNS = 20, 6
EVENT = AnswerDegraded(
    call="shop.recommend",
    dependency="recommendations",
    level=Level.STALE,
    reason="CircuitOpenError",
    error="recommendations was not called, as its circuit is open; retry after 4.2 s",
    source="stale",
    age=41.5,
)


def run(*, quick: bool) -> Iterator[Figure]:
    """Measure; *quick* takes few turns."""
    yield from _answers(20 if quick else 200)
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
        server = ValkeyProcess(home / "valkey")
        server.start()
        stack.callback(server.kill)
        turns, jobs = (QUICK_TURNS, 200) if quick else (TURNS, 400)
        for traced_anyway in (True, False):
            yield _tasks(server.url, home, turns, jobs, traced_anyway=traced_anyway)


def _answers(repeats: int) -> Iterator[Figure]:
    """Time what each listener does with one degraded answer."""
    for name, listener, begin, bound in (
        ("log", *_log(), ANSWER_US),
        ("celery_events", *_celery_events(wanted=True), ANSWER_US),
        ("celery_events_off", *_celery_events(wanted=False), UNHEARD_US),
        ("opentelemetry", *_opentelemetry(), ANSWER_US),
    ):
        begin()
        listener()
        took = median(Timer(listener, begin).repeat(repeats, CALLS)) / CALLS * 1e6
        yield Figure(name=f"degraded_answer_{name}", value=took, unit="us", bound=bound)
    nothing = median_us(lambda: None, repeats=repeats)
    yield Figure(name="degraded_answer_nobody", value=nothing, unit="us", bound=None)


Timed = tuple[Callable[[], object], Callable[[], object]]
"""A call to be timed, and what prepares a run of many."""


def _log() -> Timed:
    logger, lines = logging.getLogger("resilience"), LogLines("logfmt")
    logger.handlers = [logging.FileHandler("/dev/null")]
    logger.propagate = False
    return lambda: lines(EVENT), lambda: None


def _celery_events(*, wanted: bool) -> Timed:
    listener, channel = CeleryEvents(Celery("timed", broker="memory://")), Channel()
    listener.channel, channel.wanted = channel, wanted

    def drain() -> None:
        while channel.take() is not None:
            pass

    return lambda: listener(EVENT), drain


def _opentelemetry() -> Timed:
    provider = traced()
    app = Celery("timed", broker="memory://")
    listener = OpenTelemetry(app, tracer_provider=provider, meter_provider=MeterProvider())
    tracer, spans = provider.get_tracer("timed"), ExitStack()

    def begin() -> None:
        spans.close()
        spans.enter_context(tracer.start_as_current_span("job"))

    return lambda: listener(EVENT), begin


def _tasks(url: str, home: Path, rounds: int, jobs: int, *, traced_anyway: bool) -> Figure:
    """Compare the processor time of a job with all listeners with that of one with none."""
    with ExitStack() as stack:
        sides = {
            which: _side(which, url, home / f"{which}-{traced_anyway}", traced_anyway)
            for which in ("none", "all")
        }
        for side in sides.values():
            stack.enter_context(side.running())
            side.stop()
        seconds: dict[str, list[float]] = {which: [] for which in sides}
        before: dict[str, float] = {}
        for turn in range(rounds + 1):
            for which, side in sides.items():
                side.ask("publish", jobs)
                took = side.consume(jobs)
                if turn:
                    seconds[which].append(took)
                else:  # the first one warms up
                    before[which] = sum(side.cpu_seconds())
        cpu = {
            which: (sum(side.cpu_seconds()) - before[which]) / rounds / jobs * 1e6
            for which, side in sides.items()
        }
    return Figure(
        name="task_with_listeners" if traced_anyway else "task_with_spans_of_the_listener",
        value=cpu["all"] / cpu["none"],
        unit="ratio",
        bound=TASK_RATIO if traced_anyway else None,
        sides={
            **{f"{which}_cpu_us": round(took) for which, took in cpu.items()},
            "elapsed_ratio": round(paired_ratio(seconds["all"], seconds["none"]), 3),
        },
    )


def _side(which: str, url: str, home: Path, traced_anyway: bool) -> Side:  # noqa: FBT001 - named above
    env = {
        "BENCHMARK_BROKER": f"{url.removesuffix('0')}{1 if which == 'all' else 2}",
        "BENCHMARK_STORE": url,
        "BENCHMARK_NAMESPACE": which,
        "BENCHMARK_LISTENERS": " ".join(LISTENERS) if which == "all" else "",
        "BENCHMARK_TRACED": "yes" if traced_anyway else "",
    }
    queues = Dependency(DEPENDENCY).queues
    return Side("benchmarks.telemetry_app", queues=queues, env=env, home=home)
