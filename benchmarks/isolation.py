"""How jobs fare while a dependency that they do not call hangs, beside one plain Celery pool.

Three dependencies, thirty jobs a second each, at moments that wait for nobody: a job's time counts
from the moment at which it was due. One dependency answers, hangs, and answers again, several
times; ours and plain Celery in turns. Its outage is held against the better one of before and
after. The chart goes to `benchmark-isolation.png`.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from statistics import median, quantiles
from threading import Event

import redis
from celery import Celery

from benchmarks.diary import Diary
from benchmarks.figure import Figure
from benchmarks.isolation_app import CONCURRENCY, HANGING, NAMES, OURS, PLAIN, make_app
from benchmarks.isolation_chart import draw
from resilience.clock import SystemClock
from resilience.testing.stack import run_worker
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until

P99_RATIO = 1.05
GOODPUT_LOST = 0.05
JOBS_PER_SECOND = 30
PHASES = {"healthy": 4.0, "hangs": 4.0, "again": 3.0}
"""Seconds of each."""
GOOD_SECONDS = 1.0
"""A job that takes longer is of no use to whoever asked for it."""
WARM_UP_SECONDS = 2.0
DRAIN_SECONDS = 60.0
RESAMPLES = 400
CHART = Path("benchmark-isolation.png")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A job on one of the others."""

    phase: str
    at: float
    seconds: float


def run(*, quick: bool) -> Iterator[Figure]:
    """Measure; *quick* takes one round."""
    rounds = 1 if quick else 3
    samples: dict[str, list[Sample]] = {OURS: [], PLAIN: []}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory, ExitStack() as stack:
        home = Path(directory)
        server = ValkeyProcess(home / "valkey")
        server.start()
        stack.callback(server.kill)
        urls = {OURS: server.url, PLAIN: f"{server.url.removesuffix('0')}1"}
        apps = {style: make_app(style, url, home) for style, url in urls.items()}
        for style, app in apps.items():
            stack.callback(app.close)
            _start_workers(stack, style, urls[style], home)
        for style, app in apps.items():
            _arrive(app, WARM_UP_SECONDS, 0)
            _drain(urls[style], style)
        for _ in range(rounds):
            for style, app in apps.items():
                diary = Diary(home / f"diary-{style}")
                samples[style] += _round(app, diary, home, partial(_drain, urls[style], style))
    draw({style: [(one.at, one.seconds) for one in all_] for style, all_ in samples.items()}, CHART)
    yield from _figures(samples)


def _start_workers(stack: ExitStack, style: str, url: str, home: Path) -> None:
    env = {"BENCHMARK_URL": url, "BENCHMARK_STYLE": style, "BENCHMARK_HOME": str(home)}
    pools = dict.fromkeys(NAMES, CONCURRENCY)
    if style == PLAIN:
        pools = {PLAIN: CONCURRENCY * len(NAMES)}
    for queue, concurrency in pools.items():
        worker = stack.enter_context(
            run_worker(
                "benchmarks.isolation_worker",
                queues=[queue],
                concurrency=concurrency,
                env=env,
                loglevel="CRITICAL",
            )
        )
        stack.callback(worker.kill)


def _round(app: Celery, diary: Diary, home: Path, drain: Callable[[], None]) -> list[Sample]:
    """Return what became of the jobs on the others, once *drain* has waited for the last one."""
    seen, due = len(diary.read()), {}
    began, first = SystemClock.monotonic(), 0
    for phase, seconds in PHASES.items():
        flag = home / HANGING
        if phase == "hangs":
            flag.touch()
        else:
            flag.unlink(missing_ok=True)
        for name, number, moment in _arrive(app, seconds, first):
            if name != HANGING:
                due[name, number] = phase, moment
            first = max(first, number + 1)
    drain()

    def ended() -> dict[tuple[str, int], float]:
        return {(one["name"], one["job"]): one["at"] for one in diary.read()[seen:]}

    # Plain Celery acknowledges a job before it begins, so the last ones may still run.
    wait_until(lambda: due.keys() <= ended().keys(), DRAIN_SECONDS, "all jobs are done")
    done = ended()
    return [
        Sample(
            phase=phase,
            at=moment - began,
            seconds=done[job] - moment,
        )
        for job, (phase, moment) in due.items()
    ]


def _arrive(app: Celery, seconds: float, first: int) -> list[tuple[str, int, float]]:
    """Publish jobs for so long, and return name, number and due moment of each."""
    began, pause, published = SystemClock.monotonic(), Event(), []
    for turn in range(round(seconds * JOBS_PER_SECOND)):
        for place, name in enumerate(NAMES):
            due = began + (turn + place / len(NAMES)) / JOBS_PER_SECOND
            pause.wait(max(0.0, due - SystemClock.monotonic()))
            app.tasks[name].apply_async((name, first + turn, due))
            published.append((name, first + turn, due))
    return published


def _drain(url: str, style: str) -> None:
    queues = NAMES if style == OURS else (PLAIN,)
    with redis.Redis.from_url(url) as client:

        def idle() -> bool:
            return not any(client.llen(queue) for queue in queues) and not client.hlen("unacked")

        wait_until(idle, DRAIN_SECONDS, f"the queues of {style} are empty")


def _figures(samples: dict[str, list[Sample]]) -> Iterator[Figure]:
    by_side = {
        style: {phase: _summary(_of(all_, phase)) for phase in PHASES}
        for style, all_ in samples.items()
    }
    ratios = {style: _ratio(all_) for style, all_ in samples.items()}
    low, high = _interval(samples[OURS])
    yield Figure(
        name="isolation_p99_hangs_vs_healthy",
        value=ratios[OURS],
        unit="ratio",
        bound=P99_RATIO,
        sides={
            "interval_90": [round(low, 3), round(high, 3)],
            PLAIN: round(ratios[PLAIN], 2),
            "jobs_per_second": JOBS_PER_SECOND * len(NAMES),
            "by_side": by_side,
        },
    )
    lost = {
        style: 1
        - _goodput(_of(all_, "hangs"))
        / max(_goodput(_of(all_, phase)) for phase in ("healthy", "again"))
        for style, all_ in samples.items()
    }
    yield Figure(
        name="isolation_goodput_lost",
        value=lost[OURS],
        unit="ratio",
        bound=GOODPUT_LOST,
        sides={PLAIN: round(lost[PLAIN], 4), "good": f"done within {GOOD_SECONDS:g} s"},
    )


def _of(samples: Sequence[Sample], phase: str) -> list[Sample]:
    return [one for one in samples if one.phase == phase]


def _seconds(samples: Sequence[Sample]) -> list[float]:
    return [one.seconds for one in samples]


def _summary(samples: Sequence[Sample]) -> dict[str, float]:
    seconds = _seconds(samples)
    return {
        "jobs": len(seconds),
        "p50_ms": round(1000 * median(seconds), 1),
        "p99_ms": round(1000 * _p99(seconds), 1),
        "good": round(_goodput(samples), 4),
    }


def _ratio(samples: Sequence[Sample]) -> float:
    return _by_better(*(_seconds(_of(samples, phase)) for phase in PHASES))


def _by_better(healthy: Sequence[float], hangs: Sequence[float], again: Sequence[float]) -> float:
    """Return p99 by the better one of before and after: a disturbance must not flatter us."""
    return _p99(hangs) / min(_p99(healthy), _p99(again))


def _interval(samples: Sequence[Sample]) -> tuple[float, float]:
    """Return the bounds that the ratio lies within, nine times in ten (bootstrap; Efron, 1979)."""
    dice = Random(1)  # noqa: S311 - statistics, no secrets
    phases = [_seconds(_of(samples, phase)) for phase in PHASES]
    ratios = sorted(
        _by_better(*(dice.choices(phase, k=len(phase)) for phase in phases))
        for _ in range(RESAMPLES)
    )
    return ratios[RESAMPLES // 20], ratios[-RESAMPLES // 20]


def _goodput(samples: Sequence[Sample]) -> float:
    return sum(second <= GOOD_SECONDS for second in _seconds(samples)) / len(samples)


def _p99(seconds: Sequence[float]) -> float:
    return quantiles(seconds, n=100)[-1]
