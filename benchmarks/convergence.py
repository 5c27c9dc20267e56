"""How long a fleet of eight processes takes to agree that a dependency is down.

All of it happens on one machine, so that the clocks agree; what its scheduler adds is included.
"""

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from statistics import median
from time import perf_counter
from typing import Any

from benchmarks.breaker_fleet import join, running_server
from benchmarks.breaker_processes import FORK, WAIT_SECONDS, collect, forked
from benchmarks.figure import Figure
from resilience.breaker import Breaker, BreakerPolicy
from resilience.errors import CircuitOpenError

PROCESSES = 8
CALLS_PER_SECOND = 50.0
HEALTHY_SECONDS = 1.0
BOUND_MS = 120.0
THRESHOLD = BreakerPolicy().consecutive_failures or 0

CALLS_AT_ONCE = 4
RATIO_ALONE = BreakerPolicy(minimum_calls=20, consecutive_failures=None)
PULSES_SECONDS = 1.0


def run(*, quick: bool) -> Iterator[Figure]:
    """Measure; *quick* takes fewer rounds."""
    with running_server() as server:
        yield _convergence(server.url, 8 if quick else 24)
        yield _spread(server.url)


def _convergence(url: str, rounds: int) -> Figure:
    failing, start, results = FORK.RawValue("b", 0), FORK.Barrier(PROCESSES + 1), FORK.Queue()
    dice, seconds, failures = random.Random(1), [], []  # noqa: S311 - to be repeated
    with forked(PROCESSES, _call_in_rounds, url, rounds, failing, start, results):
        for _ in range(rounds):
            failing.value = 0
            start.wait(WAIT_SECONDS)
            threading.Event().wait(HEALTHY_SECONDS + dice.random() / CALLS_PER_SECOND)
            failing.value = 1
            reports = collect(results, PROCESSES)
            failed_at = sorted(chain.from_iterable(failed for failed, _ in reports))
            seconds.append(max(refused_at for _, refused_at in reports) - failed_at[THRESHOLD - 1])
            failures.append(len(failed_at))
    return Figure(
        name="convergence_8_processes",
        value=max(seconds) * 1000,
        unit="ms",
        bound=BOUND_MS,
        sides={
            "measured": f"failure {THRESHOLD} in a row to the last process's first refusal, "
            f"worst of {rounds} rounds",
            "median_ms": round(median(seconds) * 1000, 1),
            "failures_until_all_refused": median(failures),
            "calls_per_second": CALLS_PER_SECOND * PROCESSES,
        },
    )


def _call_in_rounds(
    number: int,
    url: str,
    rounds: int,
    failing: Any,  # noqa: ANN401 - shared memory
    start: Any,  # noqa: ANN401 - a barrier of processes
    results: Any,  # noqa: ANN401 - a queue of processes
) -> None:
    """Call until refused, round after round; report when calls failed and when one was refused."""
    _, pulse = join(url, "convergence")
    pause, dice = threading.Event(), random.Random(number)  # noqa: S311 - to be repeated
    for turn in range(rounds):
        breaker = Breaker(f"round-{turn}", pulse, listeners=())
        failed_at: list[float] = []

        def dependency(failed_at: list[float] = failed_at) -> None:
            if failing.value:
                failed_at.append(perf_counter())
                raise ConnectionError

        start.wait(WAIT_SECONDS)
        refused_at = 0.0
        while not refused_at:
            pause.wait(dice.uniform(0.5, 1.5) / CALLS_PER_SECOND)
            try:
                breaker.call(dependency)
            except ConnectionError:
                continue
            except CircuitOpenError:
                refused_at = perf_counter()
        results.put((failed_at, refused_at))


def _spread(url: str) -> Figure:
    together, results = FORK.Barrier(PROCESSES * CALLS_AT_ONCE), FORK.Queue()
    with forked(PROCESSES, _fail_together, url, together, results):
        reports = collect(results, PROCESSES)
    return Figure(
        name="convergence_32_failures_over_8_processes",
        value=sum(not refuses for _, refuses in reports),
        unit="processes that still call",
        bound=0,
        sides={
            "failures": sum(failed for failed, _ in reports),
            "failures_per_process": CALLS_AT_ONCE,
            "minimum_calls": RATIO_ALONE.minimum_calls,
        },
    )


def _fail_together(
    _number: int,
    url: str,
    together: Any,  # noqa: ANN401 - a barrier of processes
    results: Any,  # noqa: ANN401 - a queue of processes
) -> None:
    """Have four calls fail that began before any of the fleet's had failed."""
    breaker, _ = join(url, "spread", RATIO_ALONE)

    def dependency() -> None:
        together.wait(WAIT_SECONDS)
        raise ConnectionError

    def attempt() -> int:
        with suppress(CircuitOpenError):
            try:
                breaker.call(dependency)
            except ConnectionError:
                return 1
        return 0

    with ThreadPoolExecutor(CALLS_AT_ONCE) as pool:
        failed = sum(pool.map(lambda _: attempt(), range(CALLS_AT_ONCE)))
    deadline, pause = perf_counter() + PULSES_SECONDS, threading.Event()
    while breaker.refusal() is None and perf_counter() < deadline:
        pause.wait(0.01)
    refuses = breaker.refusal() is not None or breaker.circuit.attempt > 0
    results.put((failed, refuses))
