"""What every fleet answers: the store's, asked in both ways, and the one of a lone process."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any, NamedTuple
from uuid import uuid4

import pytest

from resilience.clock import SystemClock
from resilience.store import Store
from resilience.store.fleet import Evidence, Probes, Question, StoreFleet, Window
from resilience.store.memory import MemoryFleet
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.conformance.asking import NAME, Ask, circuit, end, seen, swap, take, tell, window

SECONDS = 120


class Ways(NamedTuple):
    """A fleet and how to ask it."""

    ask: Callable[[Question], Any]
    store: Store | None = None


@pytest.fixture(params=["memory", "store", "store-async"])
def ways(request: pytest.FixtureRequest) -> Iterator[Ways]:
    """Every fleet, empty."""
    if request.param == "memory":
        yield Ways(MemoryFleet().ask)
        return
    valkey: ValkeyProcess = request.getfixturevalue("server")
    store = Store(valkey.url, namespace=uuid4().hex, timeout_seconds=SECONDS)
    fleet = StoreFleet(store)
    if request.param == "store":
        yield Ways(fleet.ask, store)
    else:
        yield Ways(lambda question: asyncio.run(fleet.ask_async(question)), store)
    store.client.close()


@pytest.fixture
def ask(ways: Ways) -> Callable[[Question], Any]:
    """A way to ask an empty fleet."""
    return ways.ask


@pytest.fixture
def due(ask: Ask) -> Ask:
    """An empty fleet but for one circuit of generation 1, which may be probed."""
    assert swap(ask, None, circuit(1))
    return ask


def test_empty_fleet_knows_nothing(ask: Ask) -> None:
    """Without evidence there is no window, and a circuit that never changed is not listed."""
    reply = tell(ask)

    assert (reply.circuits, reply.windows) == ({}, {})


def test_fleet_time_goes_on(ask: Ask) -> None:
    """Every reply carries the fleet's time in seconds, and it never goes back."""
    clock = SystemClock()
    began, first = clock.monotonic(), tell(ask).now
    second, ended = tell(ask).now, clock.monotonic()

    assert 0 <= second - first <= ended - began + 0.1


def test_evidence_adds_up_over_processes(ask: Ask) -> None:
    """Calls are ok and failed; slow ones are among them; who saw bad ones is counted once."""
    window(ask, seen(ok=3, failed=2, slow=1, tail=1), "one")
    window(ask, seen(ok=1), "two")
    got = window(ask, seen(failed=4), "one")

    assert got == Window(calls=10, failed=6, slow=1, reporters=1, consecutive=4)


def test_window_comes_for_each_dependency_told_of(ask: Ask) -> None:
    """Windows of several dependencies do not mix, and others are not sent."""
    orders = Evidence(name="orders", generation=0, window_seconds=60, failed=7)
    tell(ask, seen(ok=1))

    reply = tell(ask, orders, seen(ok=1))

    assert {name: one.calls for name, one in reply.windows.items()} == {"orders": 7, NAME: 2}


def test_failures_in_a_row_end_with_a_success(ask: Ask) -> None:
    """A row grows over processes, and only failures after the last success are in it."""
    assert window(ask, seen(failed=2, tail=2), "one").consecutive == 2
    assert window(ask, seen(failed=3, tail=3), "two").consecutive == 5
    assert window(ask, seen(ok=1, failed=4, tail=1), "one").consecutive == 1
    assert window(ask, seen(ok=1), "one").consecutive == 0


def test_slow_calls_make_a_reporter(ask: Ask) -> None:
    """A process that saw slow calls has seen bad ones, though none failed; good ones do not."""
    assert window(ask, seen(ok=5), "one").reporters == 0
    assert window(ask, seen(ok=5, slow=1), "two").reporters == 1
    assert window(ask, seen(failed=1), "three").reporters == 2


@pytest.mark.parametrize(("age", "calls", "reporters"), [(4.9, 2, 1), (5.0, 1, 0), (1e9, 1, 0)])
def test_evidence_older_than_the_window_is_dropped(
    ask: Ask, age: float, calls: int, reporters: int
) -> None:
    """A failure longer ago than the window is long does not count; successes always do."""
    got = window(ask, seen(window_seconds=5, ok=1, failed=1, failed_age=age))

    assert (got.calls, got.reporters) == (calls, reporters)


def test_slow_calls_are_as_old_as_the_youngest_call(ask: Ask) -> None:
    """Slow calls among old failures are as old; among good calls they count as of now."""
    assert window(ask, seen(window_seconds=5, failed=1, failed_age=9, slow=1)).slow == 0
    assert window(ask, seen(window_seconds=5, ok=1, failed=1, failed_age=9, slow=1)).slow == 1


def test_window_passes(ask: Ask) -> None:
    """Calls and reporters leave the window second by second; a row ends with all evidence."""
    assert window(ask, seen(window_seconds=1, failed=3)).failed == 3

    def gone() -> bool:
        # Of another generation, so that asking adds nothing.
        stale = seen(generation=99, window_seconds=1, failed=1)
        return window(ask, stale) == Window()

    wait_until(gone, SECONDS, "the window is empty")


def test_failures_of_one_second_leave_the_window_together(ask: Ask) -> None:
    """However many processes told of them, and while others go on."""
    for process in ("one", "two", "three"):
        window(ask, seen(window_seconds=2, failed=2), process)

    wait_until(
        lambda: window(ask, seen(window_seconds=2, ok=1)).failed == 0, SECONDS, "all have left"
    )
    assert window(ask, seen(window_seconds=2, ok=1)).calls > 0


def test_evidence_keeps_its_age(ask: Ask) -> None:
    """Evidence that is told late leaves the window no later for it."""
    got = window(ask, seen(window_seconds=3, failed=1, failed_age=2.0))
    assert got.failed == 1

    clock = SystemClock()
    began = clock.monotonic()
    stale = seen(generation=99, window_seconds=3)
    wait_until(lambda: window(ask, stale).failed == 0, SECONDS, "it is gone")

    assert clock.monotonic() - began < 2.0


@pytest.mark.parametrize("generation", [0, 2])
def test_evidence_of_another_generation_is_dropped(due: Ask, generation: int) -> None:
    """Only calls of the circuit as it is count for it; the window comes all the same."""
    window(due, seen(generation=1, ok=1))

    got = window(due, seen(generation=generation, failed=9, slow=9), "two")

    assert got == Window(calls=1)


def test_swap_changes_only_what_is_as_expected(ask: Ask) -> None:
    """Who knows an older circuit changes nothing, whatever it would make of it."""
    first = circuit(1, 50.0, '["naïve | text"]')
    assert not swap(ask, circuit(1), first)
    assert swap(ask, None, first)
    assert not swap(ask, None, circuit(1))
    assert not swap(ask, circuit(1, 51.0, first.body), circuit(2))

    assert tell(ask).circuits == {NAME: first}
    assert swap(ask, first, circuit(2))


def test_swap_forgets_what_was_counted(due: Ask) -> None:
    """A changed circuit begins with an empty window and all permits."""
    window(due, seen(generation=1, failed=9))
    take(due, "a")
    take(due, "b")

    assert swap(due, circuit(1), circuit(2))

    assert window(due, seen(generation=2, ok=1)) == Window(calls=1)
    assert take(due, "c", generation=2) == Probes(granted=True, first=True)


def test_swap_leaves_other_dependencies_alone(ask: Ask) -> None:
    """A change is one dependency's."""
    orders = Evidence(name="orders", generation=0, window_seconds=60, failed=7)
    tell(ask, orders)

    swap(ask, None, circuit(1))

    assert tell(ask, orders).windows["orders"].failed == 14


def test_circuits_are_sent_to_those_who_know_others(ask: Ask) -> None:
    """Circuits that did not change are not sent again, whatever was counted; a change sends all."""
    empty = tell(ask)
    assert tell(ask, seen(ok=1), version=empty.version).circuits is None

    swap(ask, None, circuit(1))
    one = tell(ask, version=empty.version)
    assert one.circuits == {NAME: circuit(1)}
    assert tell(ask, seen(ok=1), version=one.version).circuits is None

    swap(ask, circuit(1), circuit(2))
    assert tell(ask, version=one.version).circuits == {NAME: circuit(2)}
    assert tell(ask).circuits == {NAME: circuit(2)}


def test_one_of_many_swaps_at_once_succeeds(ways: Ways) -> None:
    """Eight processes that want the same change make it once."""
    start = Barrier(8)

    def change(number: int) -> bool:
        start.wait(SECONDS)
        return swap(ways.ask, None, circuit(1, body=str(number)))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(change, range(8))) == 1


def test_permits_are_as_many_as_asked_for(due: Ask) -> None:
    """The first is told so; the third of two is refused and learns how the probes went."""
    assert take(due, "a") == Probes(granted=True, first=True)
    assert take(due, "b") == Probes(granted=True)
    assert take(due, "c") == Probes()
    assert end(due, "a", "failed") == Probes(failed=1)
    assert take(due, "c") == Probes(failed=1)
    assert end(due, "b") == Probes(ok=1, failed=1)
    assert take(due, "c") == Probes(ok=1, failed=1)


def test_permits_taken_at_once_are_never_too_many(ways: Ways) -> None:
    """Of twenty that ask at the same moment two are let through, and one was first."""
    swap(ways.ask, None, circuit(1))
    start = Barrier(20)

    def ask_one(number: int) -> Probes | None:
        start.wait(SECONDS)
        return take(ways.ask, str(number))

    with ThreadPoolExecutor(20) as pool:
        got = list(pool.map(ask_one, range(20)))

    assert sum(one is not None and one.granted for one in got) == 2
    assert sum(one is not None and one.first for one in got) == 1


def test_neutral_probe_frees_its_permit(due: Ask) -> None:
    """It counts neither way, and somebody else may probe in its place."""
    take(due, "a")
    take(due, "b")

    assert end(due, "a", "neutral") == Probes()
    assert take(due, "c") == Probes(granted=True)


@pytest.mark.parametrize("owner", ["a", "stranger"])
def test_permit_is_given_back_once_and_by_its_owner(due: Ask, owner: str) -> None:
    """Nobody reports twice, or for another."""
    take(due, "a")
    end(due, "a")

    assert end(due, owner, "failed") is None
    assert take(due, "b") == Probes(granted=True, ok=1)


def test_permit_ends_with_its_lease_whatever_is_refused_meanwhile(due: Ask) -> None:
    """A lost prober's permit is free in time, and its late result counts for nothing."""
    take(due, "a", seconds=0.2)
    take(due, "b")

    def granted() -> bool:
        probes = take(due, "c")
        return probes is not None and probes.granted

    assert not granted()
    wait_until(granted, SECONDS, "the lease has ended")
    assert end(due, "a", "failed") is None
    assert end(due, "c") == Probes(ok=1)


@pytest.mark.parametrize("generation", [0, 2])
def test_permit_of_another_generation_is_none(due: Ask, generation: int) -> None:
    """Who knows another circuit than there is cannot probe it, nor end a probe of it."""
    assert take(due, "a", generation=generation) is None
    take(due, "a")
    assert end(due, "a", generation=generation) is None
    assert end(due, "a") == Probes(ok=1)


def test_permit_before_the_time_is_none(ask: Ask) -> None:
    """An open circuit is not probed before its time is up by the fleet's own clock."""
    now = tell(ask).now
    swap(ask, None, circuit(1, now + 1.0))

    assert take(ask, "a") is None
    wait_until(lambda: take(ask, "a") == Probes(granted=True, first=True), SECONDS, "it is due")
    assert tell(ask).now >= now + 1.0
