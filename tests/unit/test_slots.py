"""A cap on calls in flight: how a call gets a slot, waits for one and gives it back."""

import asyncio
import functools
import gc
import threading

import pytest

from resilience import BulkheadFullError, Dependency, Pipeline, TimeoutBudget, fallback
from resilience.breaker import Breaker
from resilience.bulkhead import Renewal, Slots
from resilience.bulkhead.lease import Lease, Line
from resilience.errors import AttemptTimeoutError, BudgetExceededError
from resilience.events import BulkheadFull, SlotLost
from resilience.pulse import Pulse
from resilience.store import Answers, Store
from resilience.store.slots import SlotStore
from resilience.testing.waiting import wait_until
from tests.timing import no_later_than
from tests.unit.calling import Listening, Run, raising

LONG_SECONDS = 120.0
BUDGET = 1.0


@pytest.fixture(params=["store", "alone", "store down"])
def one_slot(request: pytest.FixtureRequest) -> Slots:
    """One slot, of the fleet or of a process that counts alone."""
    if request.param == "alone":
        return Slots("users", 1)
    if request.param == "store down":
        nowhere = Store("redis://127.0.0.1:9/0", namespace="nowhere", listeners=())
        return Slots("users", 1, store=SlotStore(nowhere))
    store: Store = request.getfixturevalue("store")
    return Slots("users", 1, store=SlotStore(store))


@pytest.fixture
def no_lease_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slot that nobody gives back stays away for as long as the test may take."""
    monkeypatch.setattr("resilience.store.slots.LEASE_SECONDS", 10 * LONG_SECONDS)


class Held:
    """A thread that holds the only slot until it is told to end."""

    def __init__(self, slots: Slots) -> None:
        """Hold it now."""
        self.end, holding = threading.Event(), threading.Event()

        def hold() -> None:
            holding.set()
            self.end.wait(LONG_SECONDS)

        self.thread = threading.Thread(target=slots.call, args=(LONG_SECONDS, hold))
        self.thread.start()
        assert holding.wait(LONG_SECONDS)

    def release(self) -> None:
        """Give it back."""
        self.end.set()
        self.thread.join(LONG_SECONDS)


def thread_names() -> set[str]:
    """Return the names of the threads of this process."""
    return {thread.name for thread in threading.enumerate()}


def stand(slots: Slots, calls: int) -> bool:
    """Tell whether so many calls are held or wait."""
    return len(slots._line._standing) == calls  # noqa: SLF001 - nothing else tells


def is_free(slots: Slots) -> bool:
    """Tell whether a slot can be had at once."""
    try:
        return bool(slots.call(0.0, lambda: True))
    except BulkheadFullError:
        return False


def test_call_that_gets_no_slot_is_refused(run: Run, one_slot: Slots, no_answers: Answers) -> None:
    """It waits no longer than its dependency's timeout, is not made, and says when to come back."""
    held = Held(one_slot)
    pipeline = Pipeline("users", Dependency("users", timeout=0.2), no_answers, slots=one_slot)
    made: list[int] = []

    with pytest.raises(BulkheadFullError) as refused:
        run(pipeline, made.append, 1)
    held.release()

    assert not made
    assert refused.value.dependency == "users"
    assert refused.value.retry_after is not None
    assert is_free(one_slot)


def test_call_that_waits_gets_the_slot_that_comes_free(
    run: Run, one_slot: Slots, no_answers: Answers
) -> None:
    """It is woken long before it would look by itself."""
    held = Held(one_slot)
    pipeline = Pipeline(
        "users", Dependency("users", timeout=LONG_SECONDS), no_answers, slots=one_slot
    )
    timer = threading.Timer(0.2, held.release)
    timer.start()

    assert run(pipeline, int, 7) == 7
    timer.join()


def test_refusal_runs_the_chain_and_is_announced(one_slot: Slots, no_answers: Answers) -> None:
    """Who has fallbacks gets a degraded answer, within the budget."""
    held = Held(one_slot)
    pipeline = Pipeline(
        "users", Dependency("users"), no_answers, slots=one_slot, fallbacks=[fallback.static(0)]
    )

    with no_later_than(BUDGET), TimeoutBudget(BUDGET):
        outcome = pipeline.call(int)
    held.release()

    assert (outcome.value, outcome.reason) == (0, "BulkheadFullError")


def test_refusal_says_how_long_it_waited() -> None:
    """Listeners hear of each refusal."""
    listening = Listening()
    slots = Slots("users", 1, listeners=[listening])
    held = Held(slots)

    assert not is_free(slots)
    held.release()

    (event,) = listening.heard
    assert isinstance(event, BulkheadFull)
    assert (event.dependency, event.slots) == ("users", 1)


def test_refusal_is_no_failure_of_the_dependency(no_answers: Answers) -> None:
    """A breaker never hears of calls that got no slot."""
    slots = Slots("users", 1)
    breaker = Breaker("users", Pulse(None))
    pipeline = Pipeline(
        "users", Dependency("users", timeout=0.01), no_answers, breaker=breaker, slots=slots
    )
    held = Held(slots)

    for _ in range(30):
        with pytest.raises(BulkheadFullError):
            pipeline.call(int)
    held.release()

    assert breaker.refusal() is None
    assert pipeline.call(int) == 0


@pytest.mark.parametrize("error", [OSError(), KeyboardInterrupt(), GeneratorExit()])
def test_slot_is_free_after_any_exception(one_slot: Slots, error: BaseException) -> None:
    """However a call ends, its slot is back at once."""
    with pytest.raises(type(error)):
        one_slot.call(1.0, raising(error))

    assert is_free(one_slot)


@pytest.mark.usefixtures("no_lease_ends")
def test_slot_is_free_after_a_cut(one_slot: Slots, no_answers: Answers) -> None:
    """Neither the timeout of the call nor a budget around it keeps a slot."""
    hasty = Pipeline("users", Dependency("users", timeout=0.1), no_answers, slots=one_slot)
    patient = Pipeline("users", Dependency("users", timeout=None), no_answers, slots=one_slot)

    with pytest.raises(AttemptTimeoutError):
        hasty.call(threading.Event().wait, LONG_SECONDS)
    assert is_free(one_slot)
    with pytest.raises((BudgetExceededError, AttemptTimeoutError)), TimeoutBudget(0.2) as budget:
        budget.run(patient.call, threading.Event().wait, LONG_SECONDS)
    # The cut may have come while the slot was taken or given back.
    assert wait_until(lambda: is_free(one_slot), LONG_SECONDS, "the slot is back")


# A cut while it connects leaves a socket to the garbage collector. As an error its warning would go
# through Python code of pytest's, which the next cut may meet in the collector.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.usefixtures("no_lease_ends")
def test_slot_is_free_after_a_cut_at_any_moment(store: Store) -> None:
    """Cuts while a slot is asked for, held and given back lose none."""
    slots = Slots("users", 1, store=SlotStore(store))
    is_free(slots)

    for tenth in range(1, 200):
        try:
            with TimeoutBudget(LONG_SECONDS) as budget:
                budget.run(slots.call, LONG_SECONDS, int, seconds=tenth * 1e-5)
        except BudgetExceededError:
            pass

    assert wait_until(lambda: is_free(slots), LONG_SECONDS, "the slot is back")
    gc.collect()  # here, where warnings of sockets are ignored


@pytest.mark.usefixtures("no_lease_ends")
def test_slot_is_free_after_cancellation(one_slot: Slots) -> None:
    """A cancelled coroutine, waiting or running, and a closed one keep nothing."""

    async def forever() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        running = asyncio.create_task(one_slot.acall(LONG_SECONDS, forever))
        await asyncio.sleep(0.1)
        waiting = asyncio.create_task(one_slot.acall(LONG_SECONDS, forever))
        await asyncio.sleep(0.1)
        for task in (waiting, running):
            task.cancel()
        await asyncio.gather(waiting, running, return_exceptions=True)

    asyncio.run(main())

    assert wait_until(lambda: is_free(one_slot), LONG_SECONDS, "the slot is back")


def test_calls_are_served_in_the_order_they_came() -> None:
    """Nobody overtakes who waits."""
    slots, order = Slots("users", 1), list[int]()
    held = Held(slots)
    threads = []
    for number in range(5):
        thread = threading.Thread(target=slots.call, args=(LONG_SECONDS, order.append, number))
        thread.start()
        threads.append(thread)
        waiting = functools.partial(stand, slots, number + 2)
        wait_until(waiting, 5, "it stands in line")
    held.release()
    for thread in threads:
        thread.join()

    assert order == [0, 1, 2, 3, 4]


def test_next_in_line_is_woken_though_another_looked_as_the_call_ended() -> None:
    """Who looks takes out a call that is done; whoever is served then is told all the same."""
    woken: list[int] = []
    line, leases = Line(1), [Lease("d", 1, functools.partial(woken.append, n)) for n in range(3)]
    for lease in leases:
        line.join(lease)
    leases[0].done = True  # and it gives its slot back to the store, which takes a moment

    assert not line.serves(leases[2])
    line.leave(leases[0])

    assert woken == [1]


class Bell:
    """A bell that rings at once, and keeps how long the renewal would have waited for it."""

    def __init__(self) -> None:
        """Keep nothing yet."""
        self.waits: list[float] = []

    def acquire(self, *, timeout: float) -> bool:
        """Return as if *timeout* were over."""
        self.waits.append(timeout)
        return False


def test_running_call_is_renewed_each_second(store: Store) -> None:
    """A lease of five seconds, renewed each second, outlives four renewals that are missed."""
    leases = SlotStore(store)
    renewal, bell = Renewal(leases), Bell()
    renewal._bell = bell  # type: ignore[assignment] # noqa: SLF001 - nothing else tells
    held = Held(Slots("users", 1, store=leases, renewal=renewal))

    wait_until(lambda: len(bell.waits) > 2, LONG_SECONDS, "the lease was renewed twice")
    left = leases.take("users", "another", 1)
    held.release()
    wait_until(lambda: "slot-renewal" not in thread_names(), LONG_SECONDS, "the thread is gone")

    assert {*bell.waits} == {1.0}
    assert left is not None
    assert 0 < left <= 5.0


@pytest.mark.parametrize("taken", [False, True], ids=["room", "no room"])
def test_lost_lease_is_announced(store: Store, taken: bool) -> None:  # noqa: FBT001
    """A running call whose lease is gone is counted again if there is room; it is never silent."""
    listening = Listening()
    leases = SlotStore(store)
    renewal = Renewal(leases, listeners=[listening])
    slots = Slots("users", 1, store=leases, renewal=renewal)
    held = Held(slots)
    store.client.delete(store.key("slots", "users", "held"))
    if taken:
        assert leases.take("users", "another", 1) is None

    wait_until(lambda: listening.heard, LONG_SECONDS, "somebody noticed")
    held.release()

    assert listening.heard[0] == SlotLost(dependency="users", retaken=not taken)


def test_lease_that_a_beat_gives_back_was_not_lost(store: Store) -> None:
    """A beat between the end of a call and its own giving back is no loss."""
    listening = Listening()
    leases = SlotStore(store)
    renewal = Renewal(leases, listeners=[listening])
    slots = Slots("users", 1, store=leases, renewal=renewal)
    leave = slots._leave  # noqa: SLF001 - to come in between

    def late(lease: Lease) -> None:
        renewal.beat()
        leave(lease)

    slots._leave = late  # type: ignore[method-assign] # noqa: SLF001 - as above

    assert is_free(slots)
    assert is_free(slots)
    assert not listening.heard


@pytest.mark.parametrize("slots", [0, -1, 1.5])
def test_dependency_refuses_a_number_of_slots_that_is_none(slots: float) -> None:
    """What nobody could ever hold is refused where it is written, with the value."""
    with pytest.raises(ValueError, match=f"input_value={slots}"):
        Dependency("users", slots=slots)  # type: ignore[arg-type]


def test_renewal_ends_when_nothing_is_held(store: Store) -> None:
    """A process without calls in flight has no thread for them."""
    slots = Slots("users", 1, store=SlotStore(store))

    assert is_free(slots)

    wait_until(lambda: "slot-renewal" not in thread_names(), LONG_SECONDS, "the thread is gone")
