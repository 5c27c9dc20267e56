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
