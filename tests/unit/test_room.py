"""What a process knows of how full a dependency's lanes are."""

import os
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from resilience.bulkhead import LANES, Lane, Room
from tests.unit.hand_clock import HandClock

LONG_SECONDS = 20.0


@pytest.fixture
def clock() -> HandClock:
    """A clock that stands still."""
    return HandClock()


def new_room(clock: HandClock, max_queue: int = 100, **options: float) -> Room:
    """Return a room of which nothing is known."""
    known = {"concurrency": 4, "timeout": 2.0, **options}
    return Room(max_queue, clock=clock, **known)  # type: ignore[arg-type]


def read(room: Room, depth: int | None) -> None:
    """Take a reading."""
    assert room.claim()
    room.tell(depth)


def entered(room: Room, lane: Lane, most: int = 1000) -> int:
    """Return how many jobs get in, one after the other."""
    return next((n for n in range(most) if room.enter(lane) is not None), most)


def test_everybody_gets_in_while_nothing_is_known(clock: HandClock) -> None:
    """Neither before the first reading nor after one without an answer is anybody refused."""
    room = new_room(clock, 1)

    assert entered(room, "sheddable") == 1000
    read(room, None)
    assert entered(room, "sheddable") == 1000


@pytest.mark.parametrize(("lane", "most"), [("critical", 100), ("normal", 90), ("sheddable", 50)])
def test_lane_has_its_share_of_the_room(clock: HandClock, lane: Lane, most: int) -> None:
    """Sheddable jobs are refused first, critical ones when it is full."""
    room = new_room(clock)
    read(room, 40)

    assert entered(room, lane) == most - 40


@pytest.mark.parametrize("lane", LANES)
def test_empty_lanes_take_a_job_whatever_the_limit(clock: HandClock, lane: Lane) -> None:
    """With a limit of one, each lane takes one."""
    room = new_room(clock, 1)
    read(room, 0)

    assert entered(room, lane) == 1


def test_what_is_never_refused_counts_all_the_same(clock: HandClock) -> None:
    """Chain steps take up room for others."""
    room = new_room(clock)
    read(room, 0)

    for _ in range(60):
        room.count()

    assert room.is_full("sheddable")
    assert entered(room, "normal") == 30


def test_one_reading_a_second_is_taken(clock: HandClock) -> None:
    """Whoever asks meanwhile is told that it is not his turn."""
    room = new_room(clock)

    assert room.claim()
    assert not room.claim()
    room.tell(0)
    clock.advance(0.99)
    assert not room.claim()
    clock.advance(0.01)
    assert room.claim()


@pytest.mark.parametrize("seconds", [0.0, 1.0])
def test_reading_is_taken_also_by_the_first_process_of_a_machine(
    monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """Its id is 1 in a container, and the clock of a machine that has just booted shows nothing."""
    clock = HandClock(seconds)
    monkeypatch.setattr(os, "getpid", lambda: 1)
    room = new_room(clock)

    assert entered(room, "normal") == 1000
    read(room, 90)
    assert entered(room, "normal") == 0
    clock.advance(1.0)
    read(room, 0)
    assert entered(room, "normal") == 90


def test_reading_that_takes_long_is_not_joined_by_others(clock: HandClock) -> None:
    """While one is under way no other begins, whatever the time."""
    room = new_room(clock)

    assert room.claim()
    clock.advance(10)

    assert not room.claim()


def test_what_was_published_during_a_reading_counts(clock: HandClock) -> None:
    """Whether it is in the answer nobody knows: the room is rather too small than too large."""
    room = new_room(clock)
    room.claim()
    for _ in range(30):
        room.enter("normal")
    room.tell(30)

    assert entered(room, "normal") == 30


def test_crowd_waits_for_the_first_reading(clock: HandClock) -> None:
    """Who comes while it is under way is not let in for that, unless it takes too long."""
    room = new_room(clock)
    room.claim()

    def come(seconds: float) -> bool:
        room.await_reading(seconds)
        return room.enter("normal") is None

    assert come(0.01)
    with ThreadPoolExecutor() as threads:
        crowd = [threads.submit(come, LONG_SECONDS) for _ in range(4)]
        assert not wait(crowd, timeout=0.1).done
        room.tell(90)
        assert not any(one.result(LONG_SECONDS) for one in crowd)


def test_nobody_waits_for_a_reading_while_one_is_known(clock: HandClock) -> None:
    """A slow broker does not hold up those who know enough; a child has nobody to wait for."""
    room = new_room(clock)
    read(room, 0)
    clock.advance(1.0)
    room.claim()

    room.await_reading(float("inf"))

    clock.advance(2.0)
    child = os.fork()
    if child == 0:
        room.await_reading(float("inf"))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_old_reading_says_nothing(clock: HandClock) -> None:
    """When the broker has not answered for two seconds, everybody gets in again."""
    room = new_room(clock)
    read(room, 100)
    clock.advance(1.99)
    assert room.enter("critical") is not None

    clock.advance(0.01)

    assert room.enter("sheddable") is None


def test_refusal_says_how_many_wait_and_when_to_come_back(clock: HandClock) -> None:
    """The time that the jobs too many take, a little more, and never more than a minute."""
    room = new_room(clock)
    read(room, 119)

    soon, late = room.enter("critical"), room.enter("sheddable")

    assert soon is not None
    assert late is not None
    assert soon.depth == late.depth == 119
    assert 10.0 <= soon.retry_after <= 12.0
    assert 35.0 <= late.retry_after <= 42.0
    clock.advance(1.0)
    read(room, 100_000)
    later = room.enter("normal")
    assert later is not None
    assert 60.0 <= later.retry_after <= 72.0


def test_refusal_never_says_to_come_back_before_the_next_reading(clock: HandClock) -> None:
    """Until then the answer would be the same."""
    room = new_room(clock, timeout=0.001)
    read(room, 100)

    full = room.enter("critical")

    assert full is not None
    assert full.retry_after >= 1.0


def test_child_takes_readings_of_its_own(clock: HandClock) -> None:
    """A reading that its parent had under way at the fork keeps no child from one."""
    room = new_room(clock)
    assert room.claim()
    clock.advance(1.0)

    child = os.fork()
    if child == 0:
        os._exit(0 if room.claim() else 1)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
