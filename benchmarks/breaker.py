"""What a breaker that the fleet shares costs a call, beside breakers that share nothing.

Ratios are medians over pairs of runs, absolute times medians of many short runs.
"""

import asyncio
import statistics
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import repeat

import redis

from benchmarks.breaker_fleet import join, round_trips, running_server, times
from benchmarks.breaker_peers import AsyncCall, guarded, guarded_async, noop, noop_async
from benchmarks.figure import Figure, in_turns, median_us, paired_ratio
from resilience.breaker import Breaker
from resilience.dependency import Dependency
from resilience.errors import CircuitOpenError
from resilience.fallback import Entry, drill, stale, static
from resilience.levels import Level
from resilience.pipeline import Pipeline
from resilience.store import Answers, Store
from resilience.tasks.serialization import dumps, loads

RATIOS = {"breaker_sync": 0.5, "breaker_sync_called": 0.55, "breaker_async": 0.55}
"""Of the package `circuitbreaker`, by figure."""
BLOCK_US = 1.0
VALUE_US = 1.1
EXCEPTION_US = 2.3
PIPELINE_US = 1.2
PIPELINE_WITH_TIMER_US = 4.0
PIPELINE_WITH_FALLBACK_US = 6.5
"""With a timer, too."""
NOT_DRILLED_US = 2.0
"""More for a call that is not drilled than for one whose chain has no drill."""
STALE_RATIO = 2.1
"""Of a plain GET: 90 µs where that takes 43."""

CALLS_PER_RUN = 1000


def run(*, quick: bool) -> Iterator[Figure]:
    """Measure; *quick* takes fewer rounds."""
    rounds, repeats = (100, 4000) if quick else (400, 10_000)
    with running_server() as server:
        breaker, pulse = join(server.url, "closed")
        yield from _closed(breaker, rounds, repeats)
        yield from _closed_async(breaker, rounds)
        yield from _pipeline(breaker, server.url, repeats)
        yield _not_drilled(breaker, server.url, rounds)
        yield from round_trips("breaker_closed", breaker(noop), pulse, server.client())
        yield from _refused(server.url, server.client(), repeats)


def _closed(breaker: Breaker, rounds: int, repeats: int) -> Iterator[Figure]:
    def block() -> None:
        with breaker:
            pass

    sides = {
        "bare": noop,
        "decorated": breaker(noop),
        "called": lambda: breaker.call(noop),
        "block": block,
        **guarded(),
    }
    seconds = in_turns(rounds, **{name: times(CALLS_PER_RUN, run) for name, run in sides.items()})
    yield from _ratios("breaker_sync", "decorated", seconds, CALLS_PER_RUN)
    for form in ("called", "block"):
        yield _ratio(f"breaker_sync_{form}", form, "circuitbreaker", seconds, CALLS_PER_RUN)
    yield _time("breaker_block", block, repeats, BLOCK_US)


def _closed_async(breaker: Breaker, rounds: int) -> Iterator[Figure]:
    calls = 3 * CALLS_PER_RUN  # to make little of what it costs to enter the event loop
    sides = {"bare": noop_async, "decorated": breaker(noop_async), **guarded_async()}
    with asyncio.Runner() as runner:

        def awaited(function: AsyncCall) -> Callable[[], None]:
            async def loop() -> None:
                for _ in repeat(None, calls):
                    await function()

            return lambda: runner.run(loop())

        seconds = in_turns(rounds // 2, **{name: awaited(run) for name, run in sides.items()})
    yield from _ratios("breaker_async", "decorated", seconds, calls)


def _ratios(name: str, ours: str, seconds: dict[str, list[float]], calls: int) -> Iterator[Figure]:
    for peer in ("circuitbreaker", "purgatory", "pybreaker", "interlock_cb"):
        if peer in seconds:
            yield _ratio(name, ours, peer, seconds, calls)


def _ratio(name: str, ours: str, peer: str, seconds: dict[str, list[float]], calls: int) -> Figure:
    def ns(side: str) -> int:
        return round(statistics.median(seconds[side]) / calls * 1e9)

    return Figure(
        name=f"{name}_vs_{peer}",
        value=paired_ratio(seconds[ours], seconds[peer]),
        unit="ratio",
        bound=RATIOS.get(name) if peer == "circuitbreaker" else None,
        sides={ours: f"{ns(ours)} ns", peer: f"{ns(peer)} ns", "bare": f"{ns('bare')} ns"},
    )


def _pipeline(breaker: Breaker, url: str, repeats: int) -> Iterator[Figure]:
    """Measure in the main thread, where a timer interrupts what has a time limit."""
    answers = _answers(url)
    limited, unlimited = Dependency(breaker.name), Dependency(breaker.name, timeout=None)
    for name, dependency, fallbacks, bound in (
        ("pipeline", unlimited, [], PIPELINE_US),
        ("pipeline_timer_armed", limited, [], PIPELINE_WITH_TIMER_US),
        ("pipeline_with_fallback", limited, [static(1)], PIPELINE_WITH_FALLBACK_US),
    ):
        pipeline = Pipeline(name, dependency, answers, breaker=breaker, fallbacks=fallbacks)
        yield _time(name, partial(pipeline.call, noop), repeats, bound)


def _not_drilled(breaker: Breaker, url: str, rounds: int) -> Figure:
    chains: dict[str, list[Entry]] = {
        "without": [static(1)],
        "not_drilled": [drill(share=1e-6), static(1)],
    }
    dependency, answers = Dependency(breaker.name, timeout=None), _answers(url)
    pipelines = {
        side: Pipeline(side, dependency, answers, breaker=breaker, fallbacks=chain)
        for side, chain in chains.items()
    }
    calls = {side: partial(one.call, noop) for side, one in pipelines.items()}
    seconds = in_turns(rounds, **{side: times(CALLS_PER_RUN, run) for side, run in calls.items()})
    pairs = zip(seconds["not_drilled"], seconds["without"], strict=True)
    extra = statistics.median(ours - theirs for ours, theirs in pairs) / CALLS_PER_RUN
    sides = {
        f"{side}_us": round(statistics.median(runs) / CALLS_PER_RUN * 1e6, 3)
        for side, runs in seconds.items()
    }
    name = "pipeline_not_drilled_extra"
    return Figure(name=name, value=extra * 1e6, unit="us", bound=NOT_DRILLED_US, sides=sides)


def _refused(url: str, client: redis.Redis, repeats: int) -> Iterator[Figure]:
    breaker, pulse = join(url, "open")
    breaker.force_open(seconds=600.0, actor="benchmark", reason="to be refused")
    guarded = breaker(noop)

    def raising() -> None:
        with suppress(CircuitOpenError):
            guarded()

    if breaker.refusal() is None:
        msg = "the circuit that was forced open refuses nothing"
        raise RuntimeError(msg)
    yield _time("breaker_refused_by_value", breaker.refusal, repeats, VALUE_US)
    yield _time("breaker_refused_by_exception", raising, repeats, EXCEPTION_US)
    yield from round_trips("breaker_open", breaker.refusal, pulse, client)
    answers = _answers(url)
    chain = [stale(max_age=600.0)]
    dependency = Dependency(breaker.name)
    # The answer comes from a call of the same pipeline whose circuit lets it through.
    Pipeline("stale", dependency, answers, fallbacks=chain).call(noop)
    kept = Pipeline("stale", dependency, answers, breaker=breaker, fallbacks=chain, listeners=())
    if kept.call(noop).level is not Level.STALE:
        msg = "no answer was remembered"
        raise RuntimeError(msg)
    client.set("plain", b"1")
    turns = in_turns(repeats // 2, hit=partial(kept.call, noop), get=partial(client.get, "plain"))
    hit, get = (statistics.median(turns[side]) * 1e6 for side in ("hit", "get"))
    sides = {"hit_us": round(hit, 1), "plain_get_us": round(get, 1)}
    name, ratio = "stale_hit_vs_get", hit / get
    yield Figure(name=name, value=ratio, unit="ratio", bound=STALE_RATIO, sides=sides)


def _answers(url: str) -> Answers:
    return Answers(Store(url, namespace="benchmark", timeout_seconds=5.0), dumps=dumps, loads=loads)


def _time(name: str, call: Callable[[], object], repeats: int, bound: float | None) -> Figure:
    return Figure(name=name, value=median_us(call, repeats=repeats), unit="us", bound=bound)
