"""Finds the broken promises of a plan; a sentence for each names the jobs or the requests."""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final

from resilience.chaos.gameday.checker import Jobs
from resilience.chaos.gameday.load import Request
from resilience.chaos.gameday.plan import Promises, level_of
from resilience.levels import Level

NAMED: Final = 5
"""Most jobs or requests that a sentence names; the JSON report has all of them."""


def broken(
    promises: Promises, jobs: Jobs, requests: Collection[Request], recovery: float | None
) -> list[str]:
    """Return a sentence for each promise that was broken.

    Args:
        promises: The promises of the plan.
        jobs: All jobs, sorted by what became of them.
        requests: All requests of the workload.
        recovery: Seconds from the end of the workload to the steady state; None: it did not hold
            again in time.
    """
    found = [
        *_counts(promises, jobs, requests),
        *_latency(promises, requests),
        *_answers(promises, jobs, requests),
    ]
    if recovery is None or recovery > promises.recovered:
        late = "the steady state did not hold by then"
        took = late if recovery is None else f"it took {recovery:.1f} s"
        found.append(f"recovered within {promises.recovered:g} s: {took}")
    return found


def percentile(seconds: Iterable[float], share: float) -> float:
    """Return the smallest value that *share* of *seconds* do not exceed; 0 if it is empty."""
    ordered = sorted(seconds)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def _counts(promises: Promises, jobs: Jobs, requests: Iterable[Request]) -> Iterator[str]:
    failed = [
        f"{one}: {one.answer.source if one.answer else 'no answer'}"
        for one in requests
        if one.failed
    ]
    found = (
        ("lost", promises.lost, _named(jobs.lost)),
        ("duplicates", promises.duplicates, _named(jobs.duplicated)),
        ("unexpected", promises.unexpected, _named(jobs.unexpected)),
        ("failed", promises.failed, failed),
    )
    for name, most, named in found:
        if most is not None and len(named) > most:
            yield f"{name} ≤ {most}: there were {len(named)}: {_some(named)}"


def _latency(promises: Promises, requests: Collection[Request]) -> Iterator[str]:
    p99 = percentile((one.took for one in requests), 0.99)
    if promises.p99 is not None and p99 > promises.p99:
        slow = sorted(requests, key=lambda one: -one.took)
        named = [f"{one}: {one.took:.2f} s" for one in slow[:NAMED]]
        yield f"p99 ≤ {promises.p99:g} s: it was {p99:.2f} s; the slowest: {_some(named)}"


def _answers(promises: Promises, jobs: Jobs, requests: Iterable[Request]) -> Iterator[str]:
    bad, silent = [], []
    for one in requests:
        if one.answer is None or one.failed:
            continue
        level = one.answer.level
        if promises.level is not None and level > level_of(promises.level):
            bad.append(f"{one}: {level.name} ({one.answer.source})")
        lacking = list(one.answer.unmarked)
        if level is Level.FULL and one.job in jobs.degraded:
            lacking.append("that a fallback answered")
        if lacking:
            silent.append(f"{one} does not say {', '.join(lacking)}")
    if bad:
        yield f"level no worse than {promises.level}: {len(bad)} answers were worse: {_some(bad)}"
    if promises.marked and silent:
        yield f"every degraded answer is marked: {len(silent)} were not marked: {_some(silent)}"


def _named(jobs: Mapping[str, str]) -> list[str]:
    return [f"{task} {job}" for job, task in jobs.items()]


def _some(named: list[str]) -> str:
    more = len(named) - NAMED
    return "; ".join(named[:NAMED]) + f"; and {more} more" * (more > 0)
