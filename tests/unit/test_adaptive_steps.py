"""The adaptive limit step by step: what it measures, and by how much it grows and shrinks."""

import random

import pytest

from resilience import AdaptiveConcurrency
from resilience.bulkhead import AdaptiveLimit
from resilience.bulkhead.adaptive import next_limit


class Late(random.Random):
    """Dice that always show the most."""

    def random(self) -> float:
        """Return it."""
        return 1.0


def limit_of(maximum: int = 40, **options: float) -> AdaptiveLimit:
    """Return a limit that nothing is known of."""
    return AdaptiveLimit(AdaptiveConcurrency(**options), maximum=maximum, dice=Late())


def run(limit: AdaptiveLimit, jobs: int, *, began: float, seconds: float) -> None:
    """Let so many jobs begin at once and end well."""
    for _ in range(jobs):
        limit.observe(began, began + seconds, ok=True)


def measured(limit: AdaptiveLimit, seconds: float = 1.0) -> AdaptiveLimit:
    """Return *limit* once it has learned, at 1.0, that an idle dependency takes *seconds*."""
    limit.at(0.0)
    run(limit, 5, began=0.0, seconds=seconds)
    limit.at(1.0)
    return limit


@pytest.mark.parametrize(
    ("best", "sample", "expected"),
    [
        pytest.param(1.0, 1.0, 1.25 * 16 + 4, id="as-quick-as-ever"),
        pytest.param(1.0, 1.25, 16 + 4, id="within-the-buffer"),
        pytest.param(1.0, 5.0, 0.25 * 16 + 4, id="four-times-as-slow"),
        pytest.param(1.0, 0.1, 2 * 16 + 4, id="never-more-than-double"),
        pytest.param(0.0, 0.0, 4, id="no-time-at-all"),
    ],
)
def test_limit_follows_the_ratio_of_the_latencies(
    best: float, sample: float, expected: float
) -> None:
    """Gradient times the limit, and its root for a queue that nobody has tried yet."""
    assert next_limit(16, best=best, sample=sample, buffer=0.25) == pytest.approx(expected)


def test_nothing_but_the_minimum_runs_until_five_jobs_were_measured() -> None:
    """Four say too little; then it grows by the rule, from sample to sample."""
    limit = limit_of(minimum=2)

    assert limit.at(0.0) == 2
    run(limit, 4, began=0.0, seconds=1.0)
    assert limit.at(1.0) == 2
    run(limit, 20, began=1.0, seconds=1.0)
    assert limit.at(2.0) == 2
    for now, expected in ((3.0, 3), (4.0, 6), (5.0, 11)):
        run(limit, 20, began=now - 1.0, seconds=1.0)
        assert limit.at(now) == expected


def test_limit_waits_for_as_many_jobs_as_it_lets_run() -> None:
    """A sample is as large as the limit, five at least."""
    limit = measured(limit_of(minimum=10))

    run(limit, 9, began=1.0, seconds=1.0)
    assert limit.at(2.0) == 10
    run(limit, 1, began=1.0, seconds=1.0)
    assert limit.at(2.0) == 15


def test_jobs_that_began_under_another_limit_do_not_count() -> None:
    """They ran beside more or fewer others."""
    limit = measured(limit_of())

    run(limit, 20, began=0.99, seconds=1.0)
    assert limit.at(2.0) == 1
    run(limit, 5, began=1.0, seconds=1.0)
    assert limit.at(2.0) == 2


def test_limit_shrinks_when_jobs_take_longer() -> None:
    """By the ratio; never below the minimum, and never above what is declared."""
    limit = measured(limit_of(maximum=20, minimum=3))
    for now in range(2, 12):
        run(limit, 20, began=now - 1.0, seconds=1.0)
        limit.at(float(now))
    assert limit.at(12.0) == 20

    run(limit, 20, began=12.0, seconds=5.0)
    assert limit.at(17.0) == int(0.25 * 20 + 20**0.5)
    run(limit, 20, began=17.0, seconds=500.0)
    assert limit.at(517.0) == 3


def test_measurement_ends_after_ten_seconds_with_what_it_has() -> None:
    """One job is enough then; none is not."""
    limit = limit_of()
    limit.at(0.0)
    assert limit.at(60.0) == 1
    run(limit, 1, began=0.0, seconds=1.0)
    limit.at(9.9 + 60.0)

    run(limit, 5, began=70.0, seconds=1.0)

    assert limit.at(71.0) == 2


def test_latency_is_measured_again_after_the_seconds_declared_and_up_to_15_percent_more() -> None:
    """At random, or all workers of a fleet would slow down together."""
    limit = measured(limit_of(minimum=1, measure_seconds=100.0))
    for now in range(2, 8):
        run(limit, 40, began=now - 1.0, seconds=1.0)
        limit.at(float(now))

    assert limit.at(115.9) > 1
    assert limit.at(116.0) == 1


def test_failure_that_took_as_long_as_a_good_job_counts() -> None:
    """A dependency that is too busy may say so with an error; a quick one says nothing."""
    limit = measured(limit_of(minimum=2))

    for seconds in [0.99] * 20:
        limit.observe(1.0, 1.0 + seconds, ok=False)
    assert limit.at(2.0) == 2
    for _ in range(5):
        limit.observe(1.0, 2.0, ok=False)
    assert limit.at(2.0) == 3


@pytest.mark.parametrize(("samples", "measures"), [(4, False), (5, True)])
def test_limit_that_stays_at_the_minimum_for_five_samples_measures_again(
    samples: int,
    measures: bool,  # noqa: FBT001 - a case
) -> None:
    """The old measurement is out of date: the dependency got slower for good."""
    limit = measured(limit_of(measure_seconds=1e4))
    for number in range(samples):
        run(limit, 5, began=1.0 + 100 * number, seconds=100.0)
        assert limit.at(101.0 + 100 * number) == 1

    now = 1.0 + 100 * samples
    run(limit, 5, began=now, seconds=100.0)
    limit.at(now + 100)
    run(limit, 5, began=now + 100, seconds=100.0)

    assert limit.at(now + 200) == (2 if measures else 1)


def test_worker_that_may_run_no_more_than_the_minimum_never_measures_again() -> None:
    """It has nothing to gain by it, and its limit stays what it is."""
    limit = measured(limit_of(maximum=1))
    for now in range(2, 20):
        run(limit, 5, began=now - 1.0, seconds=9.0)
        assert limit.at(float(now)) == 1


def test_options_say_what_they_are_by_default() -> None:
    """As documented: one job, a quarter, a minute."""
    options = AdaptiveConcurrency()

    assert (options.minimum, options.buffer, options.measure_seconds) == (1, 0.25, 60.0)
