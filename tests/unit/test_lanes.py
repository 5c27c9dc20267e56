"""Lanes: names of queues and the order in which they are served."""

import pytest
from kombu.utils.scheduling import cycle_by_name

from resilience.bulkhead import LANES, lane_of, queue_of, queue_rank
from resilience.dependency import Dependency
from resilience.tasks.defaults import LANE_ORDER


def test_queues_of_a_dependency_are_in_the_order_in_which_they_are_served() -> None:
    """Critical, normal, sheddable, and what runs again last; each name says its rank."""
    queues = Dependency("mail", queue="shop.mail").queues

    assert queues == ("shop.mail.critical", "shop.mail", "shop.mail.sheddable", "shop.mail.retry")
    assert [queue_rank(name) for name in queues] == [0, 1, 2, 3]


@pytest.mark.parametrize("lane", LANES)
def test_lane_is_told_by_the_queue(lane: str) -> None:
    """The name of a lane's queue leads back to it."""
    assert lane_of("mail", queue_of("mail", lane)) == lane  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["mail.retry", "others", "mail.critical.sheddable", "mail.normal"])
def test_any_other_queue_is_no_lane(name: str) -> None:
    """The retry queue is none, nor is what only looks like one."""
    assert lane_of("mail", name) is None


@pytest.mark.parametrize("name", ["celery", "critical", "a.b", "mail.normal"])
def test_queue_without_a_lane_counts_as_normal(name: str) -> None:
    """A worker of several queues serves what is not ours as our own."""
    assert queue_rank(name) == 1


def test_cycle_serves_lanes_in_order_and_queues_of_a_lane_by_turns() -> None:
    """Kombu finds the cycle by its name; the queue served last comes last in its lane."""
    cycle = cycle_by_name(LANE_ORDER)()
    cycle.update(["a.retry", "a", "b.critical", "b", "a.sheddable", "a.critical"])

    before = cycle.consume(6)
    cycle.rotate("b.critical")
    cycle.rotate("a")

    assert before == ["b.critical", "a.critical", "a", "b", "a.sheddable", "a.retry"]
    assert cycle.consume(6) == ["a.critical", "b.critical", "b", "a", "a.sheddable", "a.retry"]
    assert cycle.consume(2) == ["a.critical", "b.critical"]
