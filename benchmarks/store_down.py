"""What it costs the calls of several processes that the store dies, or hangs, while they call.

A call is timed by itself. Beside every guarded call its bare function is timed: what the slowest
bare call took is what the machine's scheduler did to it, and the slowest guarded calls suffer the
same.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from statistics import median, quantiles
from time import perf_counter
from typing import Any

from benchmarks.breaker_fleet import join, running_server
from benchmarks.breaker_processes import FORK, WAIT_SECONDS, collect, forked
from benchmarks.figure import Figure
from resilience.breaker import Breaker
from resilience.pulse import Pulse
from resilience.testing.valkey import ValkeyProcess

PROCESSES = 4
PAUSE_SECONDS = 0.001
PHASE_SECONDS = 2.0
FAILING_EVERY = 10

STORE_TIMEOUT_SECONDS = 0.1
SCHEDULER_SECONDS = 0.01
"""What the bound leaves to the scheduler: four processes and the server share two cores."""
SLOW_SECONDS = 0.02
"""A call that takes longer waited for the store, unless a bare one took as long."""
EXTRA_US = 20.0

BEFORE, DOWN, AFTER = range(3)


@dataclass
class Times:
    """Seconds that the calls of one phase took."""

    bare: list[float] = field(default_factory=list)
    good: list[float] = field(default_factory=list)
    failed: list[float] = field(default_factory=list)


def run(*, quick: bool) -> Iterator[Figure]:
    """Measure; *quick* takes fewer rounds."""
    rounds = 2 if quick else 6
    with running_server() as server:
        yield from _figures("killed", _measure(server, _killed, rounds))
        yield from _figures("hangs", _measure(server, _stopped, rounds))


@contextmanager
def _killed(server: ValkeyProcess) -> Iterator[None]:
    server.kill()
    yield
    server.start()


@contextmanager
def _stopped(server: ValkeyProcess) -> Iterator[None]:
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def _measure(
    server: ValkeyProcess, lose: Callable[[ValkeyProcess], Any], rounds: int
) -> list[list[Times]]:
    """Return, by round and process, the times of each phase."""
    phase, start, results = FORK.RawValue("b", 0), FORK.Barrier(PROCESSES + 1), FORK.Queue()
    pause = threading.Event()
    measured: list[list[Times]] = []
    with forked(PROCESSES, _call_in_rounds, server.url, rounds, phase, start, results):
        for _ in range(rounds):
            phase.value = BEFORE
            start.wait(WAIT_SECONDS)
            pause.wait(PHASE_SECONDS)
            # First: a call that the loss meets ends in the phase after it.
            phase.value = DOWN
            with lose(server):
                pause.wait(PHASE_SECONDS)
                phase.value = AFTER
            measured += collect(results, PROCESSES)
    return measured


def _call_in_rounds(
    _number: int,
    url: str,
    rounds: int,
    phase: Any,  # noqa: ANN401 - shared memory
    start: Any,  # noqa: ANN401 - a barrier of processes
    results: Any,  # noqa: ANN401 - a queue of processes
) -> None:
    breaker, pulse = join(url, "store-down")
    for _ in range(rounds):
        start.wait(WAIT_SECONDS)
        times = _call_until_after(breaker, phase)
        _await_fleet(breaker, pulse)
        results.put(times)


def _call_until_after(breaker: Breaker, phase: Any) -> list[Times]:  # noqa: ANN401 - shared memory
    times, pause, calls = [Times(), Times(), Times()], threading.Event(), 0
    good, bad = breaker(_answer), breaker(_fail)
    while phase.value != AFTER:
        calls += 1
        fails = calls % FAILING_EVERY == 0
        seconds = _timed(bad if fails else good)
        met = times[phase.value]
        (met.failed if fails else met.good).append(seconds)
        met.bare.append(_timed(_answer))
        pause.wait(PAUSE_SECONDS)
    return times


def _await_fleet(breaker: Breaker, pulse: Pulse) -> None:
    deadline, pause = perf_counter() + WAIT_SECONDS, threading.Event()
    while pulse.scope != "fleet" and perf_counter() < deadline:
        pause.wait(PAUSE_SECONDS)
        breaker.call(_answer)


def _timed(function: Callable[[], object]) -> float:
    began = perf_counter()
    with suppress(ConnectionError):
        function()
    return perf_counter() - began


def _answer() -> int:
    return 1


def _fail() -> int:
    raise ConnectionError


def _figures(how: str, measured: Sequence[list[Times]]) -> Iterator[Figure]:
    down = [phases[DOWN] for phases in measured]
    slowest = [max(times.good + times.failed) for times in down]
    bare = [max(times.bare) for times in down]
    slow = [_slow(times.good + times.failed) for times in down]
    yield Figure(
        name=f"store_{how}_slowest_call",
        value=max(slowest),
        unit="s",
        bound=STORE_TIMEOUT_SECONDS + SCHEDULER_SECONDS,
        sides={
            "processes_and_rounds": len(down),
            "median": round(median(slowest), 4),
            "slowest_bare_call": round(max(bare), 4),
            "bound_is": f"{STORE_TIMEOUT_SECONDS} s and {SCHEDULER_SECONDS} s for the scheduler",
        },
    )
    yield Figure(
        name=f"store_{how}_slow_calls_per_process",
        value=max(slow),
        unit="count",
        bound=1,
        sides={
            "slow": f"over {SLOW_SECONDS} s",
            "bare": max(_slow(times.bare) for times in down),
            "calls": min(len(times.good) for times in down),
        },
    )
    for kind in ("good", "failed"):
        before, after = (
            [second * 1e6 for phases in measured for second in getattr(phases[phase], kind)]
            for phase in (BEFORE, DOWN)
        )
        yield Figure(
            name=f"store_{how}_extra_per_{kind}_call",
            value=median(after) - median(before),
            unit="us",
            bound=EXTRA_US,
            sides={
                "before": f"{median(before):.1f} us",
                "down": f"{median(after):.1f} us",
                "before_p99": f"{_p99(before):.1f} us",
                "down_p99": f"{_p99(after):.1f} us",
            },
        )


def _slow(seconds: Sequence[float]) -> int:
    return sum(one > SLOW_SECONDS for one in seconds)


def _p99(values: Sequence[float]) -> float:
    return quantiles(values, n=100)[-1]
