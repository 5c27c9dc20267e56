"""The adaptive limit, whatever jobs take and whenever they end."""

import random
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from resilience import AdaptiveConcurrency, Dependency
from resilience.bulkhead import AdaptiveLimit
from resilience.bulkhead.adaptive import next_limit

# Most begin under the present limit: others do not count.
ages = st.one_of(st.just(0.0), st.just(0.0), st.floats(0, 50))
jobs = st.lists(
    st.tuples(ages, st.floats(0, 100), st.booleans(), st.floats(0, 3)), min_size=40, max_size=120
)


@settings(max_examples=40)
@given(jobs=jobs, least=st.integers(1, 40), maximum=st.integers(1, 40), seed=st.integers(0, 9))
def test_limit_never_leaves_its_bounds(
    jobs: list[tuple[float, float, bool, float]], least: int, maximum: int, seed: int
) -> None:
    """Never less than the minimum, never more than is declared."""
    options = AdaptiveConcurrency(minimum=least, measure_seconds=5.0)
    limit = AdaptiveLimit(options, maximum=maximum, dice=random.Random(seed))  # noqa: S311
    now = 100.0
    for age, seconds, ok, later in jobs:
        limit.observe(now - age, now - age + seconds, ok=ok)
        assert min(least, maximum) <= limit.at(now) <= maximum
        now += later


def simulate(slow_from: int, *, maximum: int, seconds: float, noise: float) -> list[int]:
    """Return the limit over time for a dependency that does *slow_from* calls of 0.1 s at once.

    More of them queue up: each takes longer, all in all no more are done.
    """
    dice = random.Random(1)  # noqa: S311 - a simulation
    options = AdaptiveConcurrency(measure_seconds=1e4)
    limit = AdaptiveLimit(options, maximum=maximum, dice=dice)
    now, running, history = 0.0, list[tuple[float, float]](), list[int]()
    while now < seconds:
        for one in [one for one in running if one[1] <= now]:
            running.remove(one)
            limit.observe(*one, ok=True)
        most = limit.at(now)
        history.append(most)
        while len(running) < most:
            took = (
                0.1 * max(1.0, (len(running) + 1) / slow_from) * dice.uniform(1 - noise, 1 + noise)
            )
            running.append((now, now + took))
        now += 0.01
    return history


@pytest.mark.parametrize("slow_from", [2, 6, 12])
def test_limit_settles_near_what_the_dependency_can_do(slow_from: int) -> None:
    """Of 40 jobs declared, about as many run at once as do not only make each other slower."""
    late = simulate(slow_from, maximum=40, seconds=60, noise=0.1)[-1000:]
    assert slow_from <= sum(late) / len(late) <= 2.5 * slow_from + 2


def test_limit_is_all_that_is_declared_for_a_dependency_that_never_slows_down() -> None:
    """Without a queue at the dependency nothing is limited, however the calls scatter."""
    assert simulate(1000, maximum=20, seconds=60, noise=0.2)[-1] == 20


def test_limit_follows_a_dependency_that_got_slower_for_good() -> None:
    """A limit that stays at the minimum is a sign of an old measurement: it measures again."""
    options = AdaptiveConcurrency(measure_seconds=1e4)
    limit = AdaptiveLimit(options, maximum=8, dice=random.Random(1))  # noqa: S311
    now = 0.0
    for took in [0.1] * 100 + [10.0] * 400:
        most = limit.at(now)
        for _ in range(most):
            limit.observe(now, now + took, ok=True)
        now += took
    assert limit.at(now) == 8


def test_latency_is_measured_again_after_the_time_declared() -> None:
    """Every minute, up to 15 % later, as few jobs as at first run until five have ended."""
    options = AdaptiveConcurrency(measure_seconds=60.0)
    limit = AdaptiveLimit(options, maximum=8, dice=random.Random(1))  # noqa: S311
    now, took, low_since, measured = 0.0, 0.1, None, list[float]()
    while now < 300.0:
        most = limit.at(now)
        if most == 1 and low_since is None:
            measured.append(now)
            low_since = now
        elif most > 1:
            low_since = None
        for _ in range(most):
            limit.observe(now, now + took, ok=True)
        now += took

    apart = [later - earlier for earlier, later in pairwise(measured)]
    assert len(apart) == 4
    assert all(60.0 <= seconds <= 71.0 for seconds in apart)


def test_limit_follows_a_dependency_that_got_slower_once_it_is_measured_again() -> None:
    """What is slower for good, but not so slow that one job is left, is no sign of a queue."""
    options = AdaptiveConcurrency(measure_seconds=60.0)
    limit = AdaptiveLimit(options, maximum=40, dice=random.Random(1))  # noqa: S311
    now, limits = 0.0, list[int]()
    while now < 200.0:
        took = 0.1 if now < 30.0 else 0.15
        limits.append(limit.at(now))
        for _ in range(limits[-1]):
            limit.observe(now, now + took, ok=True)
        now += took

    assert limits[250] == 40
    assert max(limits[320:480]) < 40
    assert limits[-1] == 40


@pytest.mark.parametrize(("buffer", "settled"), [(0.0, 9), (0.25, 36), (1.0, 40)])
def test_jobs_may_take_longer_by_the_buffer_before_there_are_fewer(
    buffer: float, settled: int
) -> None:
    """Jobs that take half as long again are a sign of a queue, unless the buffer allows that.

    The limit settles where gradient x limit + root of limit is the limit.
    """
    options = AdaptiveConcurrency(buffer=buffer, measure_seconds=1e4)
    limit = AdaptiveLimit(options, maximum=40, dice=random.Random(1))  # noqa: S311
    now = 0.0
    while now < 60.0:
        took = 0.1 if now < 20.0 else 0.15
        for _ in range(limit.at(now)):
            limit.observe(now, now + took, ok=True)
        now += took

    assert limit.at(now) == pytest.approx(settled, abs=1)


def test_quick_failures_do_not_pass_for_a_quick_dependency() -> None:
    """A refused connection takes no time: it neither lowers nor raises the limit."""
    options = AdaptiveConcurrency()
    limit = AdaptiveLimit(options, maximum=8, dice=random.Random(1))  # noqa: S311
    limit.at(0.0)
    for _ in range(20):
        limit.observe(0.0, 0.001, ok=False)
    assert limit.at(0.1) == 1
    for _ in range(20):
        limit.observe(0.1, 0.2, ok=True)
    limit.at(0.3)
    for _ in range(20):
        limit.observe(0.3, 0.301, ok=False)
    assert limit.at(0.4) == 1


@given(limit=st.floats(1, 1e3), best=st.floats(1e-3, 10), sample=st.floats(1e-3, 1e3))
def test_slower_jobs_never_raise_the_limit_more(limit: float, best: float, sample: float) -> None:
    """The limit falls with the latency, and never by more than it can regain."""
    quicker = next_limit(limit, best=best, sample=sample, buffer=0.25)
    assert quicker >= next_limit(limit, best=best, sample=2 * sample, buffer=0.25)


@pytest.mark.parametrize(
    ("option", "value"), [("minimum", 0), ("buffer", -0.1), ("measure_seconds", 0), ("maximum", 3)]
)
def test_options_that_cannot_be_are_refused_with_their_value(option: str, value: Any) -> None:  # noqa: ANN401
    """Nonsense is refused where it is written."""
    with pytest.raises(ValidationError) as caught:
        AdaptiveConcurrency(**{option: value})
    assert option in str(caught.value)


def test_minimum_cannot_be_more_than_is_declared() -> None:
    """A limit lies between the two."""
    with pytest.raises(ValidationError, match=r"minimum \(5\) is more than concurrency \(4\)"):
        Dependency("mail", adaptive=AdaptiveConcurrency(minimum=5))
