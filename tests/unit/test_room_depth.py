"""How full a queue is known to be."""

from resilience.bulkhead import Room
from tests.unit.hand_clock import HandClock


def test_depth_is_the_last_reading_and_what_was_published_since() -> None:
    """It is not known before the first reading, nor two seconds after the last."""
    clock = HandClock()
    room = Room(100, concurrency=1, timeout=None, clock=clock)
    assert room.depth() is None

    assert room.claim()
    room.tell(7)
    room.count()

    assert room.depth() == 8
    clock.advance(1.5)
    assert room.depth() == 8
    clock.advance(0.5)
    assert room.depth() is None


def test_queue_is_full_from_its_share_on_as_far_as_is_known() -> None:
    """Nothing is asked: without a reading, and when it is time for the next, it is not."""
    clock = HandClock()
    room = Room(10, concurrency=1, timeout=None, clock=clock)
    assert not room.is_full("sheddable")

    assert room.claim()
    assert not room.is_full("sheddable")
    room.tell(4)
    assert not room.is_full("sheddable")
    room.count()
    assert room.is_full("sheddable")
    assert not room.is_full("normal")

    clock.advance(1.0)
    assert not room.is_full("sheddable")
