"""How a worker that stopped taking jobs begins again."""

import pytest

from resilience.bulkhead import Course, Mode, jobs_at_once, next_course

FULL = 8


def test_worker_takes_all_it_may_while_nothing_is_held() -> None:
    """A healthy dependency is not slowed down, not even after a start."""
    course = next_course(Course(), held=False, probing=False, full=FULL, now=5.0)
    assert (course.mode, jobs_at_once(course, full=FULL, now=5.0)) == (Mode.FULL, FULL)


def test_worker_takes_nothing_while_held_and_one_at_a_time_while_probing() -> None:
    """An open circuit, or an order, wins over a half-open circuit."""
    held = next_course(Course(), held=True, probing=True, full=FULL, now=5.0)
    assert jobs_at_once(held, full=FULL, now=5.0) == 0
    probing = next_course(held, held=False, probing=True, full=FULL, now=6.0)
    assert jobs_at_once(probing, full=FULL, now=6.0) == 1


@pytest.mark.parametrize(
    ("seconds", "jobs"),
    [(0.0, 1), (1.0, 1), (2.0, 2), (3.0, 3), (4.0, 5), (5.2, FULL), (1e6, FULL)],
)
def test_worker_takes_half_as_many_more_every_second(seconds: float, jobs: int) -> None:
    """From one job at once to all that are declared."""
    course = next_course(Course(Mode.PROBING), held=False, probing=False, full=FULL, now=9.0)
    assert jobs_at_once(course, full=FULL, now=9.0 + seconds) == jobs


def test_ramp_ends_and_begins_anew() -> None:
    """At the top nothing is limited any more; held again, it begins with one."""
    course = next_course(Course(Mode.HELD), held=False, probing=False, full=FULL, now=1.0)
    course = next_course(course, held=False, probing=False, full=FULL, now=7.0)
    assert course.mode is Mode.FULL
    course = next_course(course, held=True, probing=False, full=FULL, now=8.0)
    course = next_course(course, held=False, probing=False, full=FULL, now=9.0)
    assert jobs_at_once(course, full=FULL, now=9.0) == 1


def test_ramp_never_takes_less_when_a_clock_stands_still() -> None:
    """A lone process ramps as well: one is its full."""
    course = next_course(Course(Mode.HELD), held=False, probing=False, full=1, now=1.0)
    assert course.mode is Mode.FULL
    assert jobs_at_once(Course(Mode.RAMPING, 5.0), full=FULL, now=4.0) == 1
