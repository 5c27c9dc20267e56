"""The store when it is dead, hangs, talks nonsense or refuses: what callers and listeners get."""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from resilience import StoreUnavailableError
from resilience.events import Event, StoreFound, StoreLost
from resilience.store import Store
from resilience.testing.plugin import running_valkey
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.unit.black_hole import babbler, black_hole
from tests.unit.calling import Listening
from tests.unit.hand_clock import HandClock
from tests.unit.stopwatch import elapsed, next_to_nothing

THREADS = 8

Ask = Callable[[Store], Any]


def ask_sync(store: Store) -> Any:  # noqa: ANN401 - what the server says
    """Exchange a word with the store."""
    return store.run(lambda client: client.echo("word"))


def ask_async(store: Store) -> Any:  # noqa: ANN401 - what the server says
    """Exchange a word with the store on an event loop."""
    return asyncio.run(store.run_async(lambda client: client.echo("word")))


def wait_sync(store: Store) -> Any:  # noqa: ANN401 - what the server says
    """Wait for a word from the store."""
    return store.wait("ECHO", "word", seconds=1)


def wait_async(store: Store) -> Any:  # noqa: ANN401 - what the server says
    """Wait for a word from the store on an event loop."""
    return asyncio.run(store.wait_async("ECHO", "word", seconds=1))


@pytest.fixture(
    params=[ask_sync, ask_async, wait_sync, wait_async],
    ids=["run", "run-async", "wait", "wait-async"],
)
def ask(request: pytest.FixtureRequest) -> Ask:
    """Every way to talk with the store: what holds for one holds for all."""
    way: Ask = request.param
    return way


@pytest.fixture(scope="module")
def module_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyProcess]:
    """A server that may be killed without disturbing other tests."""
    with running_valkey(tmp_path_factory) as server:
        yield server


@pytest.fixture
def server(module_server: ValkeyProcess) -> Iterator[ValkeyProcess]:
    """That server, up, and set straight after the test."""
    yield module_server
    if module_server.running:
        module_server.send_signal(signal.SIGCONT)
        module_server.client().replicaof("NO", "ONE")
        module_server.client().config_set("maxmemory", "0")
    else:
        module_server.start()


@pytest.fixture
def clock() -> HandClock:
    """Time for the store's own pauses."""
    return HandClock()


@pytest.fixture
def listening() -> Listening:
    """Who hears of the store."""
    return Listening()


def make(
    url: str, clock: HandClock, listening: Callable[[Event], None], *, timeout_seconds: float = 10
) -> Store:
    """Return a store whose pauses end when *clock* says so."""
    return Store(
        url,
        namespace="shop",
        timeout_seconds=timeout_seconds,
        clock=clock,
        listeners=[listening],
    )


def kinds(listening: Listening) -> list[type[Event]]:
    """Return what was heard, in order."""
    return [type(event) for event in listening.heard]


def refused(ask: Ask, store: Store) -> float:
    """Return how long it took to be refused.

    Raises:
        Failed: It was not refused.
    """

    def block() -> None:
        with pytest.raises(StoreUnavailableError):
            ask(store)

    return elapsed(block)


def looking() -> list[threading.Thread]:
    """Return the threads that find out whether a store is back."""
    return [thread for thread in threading.enumerate() if thread.name == "store-look"]


def looked() -> None:
    """Wait until nobody looks any more."""
    wait_until(lambda: not looking(), 10, "all have looked whether the store is back")


def found(ask: Ask, store: Store) -> bool:
    """Tell whether the store answers this process again."""
    try:
        return bool(ask(store) == b"word")
    except StoreUnavailableError:
        return False


def test_dead_store_is_announced_once_and_left_alone_for_a_second(
    server: ValkeyProcess, clock: HandClock, listening: Listening, ask: Ask
) -> None:
    """From the first failure on there is one event and one attempt a second, until it is back."""
    store = make(server.url, clock, listening)
    assert ask(store) == b"word"
    server.kill()

    for _ in range(5):
        refused(ask, store)
    clock.advance(1.0)
    refused(ask, store)
    looked()
    assert kinds(listening) == [StoreLost]

    server.start()
    refused(ask, store)  # nobody has looked again yet
    clock.advance(1.0)
    wait_until(lambda: found(ask, store), 10, "the store was found")
    assert ask(store) == b"word"
    assert kinds(listening) == [StoreLost, StoreFound]


def test_restarted_store_is_not_lost_when_nobody_asked_meanwhile(
    server: ValkeyProcess, clock: HandClock, listening: Listening, ask: Ask
) -> None:
    """Connections that died idle are replaced; the first exchange after a restart succeeds."""
    store = make(server.url, clock, listening)
    ask(store)

    server.kill()
    server.start()

    assert ask(store) == b"word"
    assert not listening.heard


@pytest.mark.parametrize("ask", [ask_sync, ask_async], ids=["run", "run-async"])
def test_hung_store_holds_a_caller_for_its_timeout_once(
    server: ValkeyProcess, clock: HandClock, listening: Listening, ask: Ask
) -> None:
    """A server that stops answering in the middle costs the timeout once, and is found again."""
    store = make(server.url, clock, listening, timeout_seconds=0.5)
    assert ask(store) == b"word"

    server.send_signal(signal.SIGSTOP)
    first = refused(ask, store)
    others = [refused(ask, store) for _ in range(20)]
    server.send_signal(signal.SIGCONT)
    clock.advance(1.0)

    assert 0.4 < first < 1
    assert next_to_nothing(others)
    wait_until(lambda: found(ask, store), 10, "the store was found")
    assert kinds(listening) == [StoreLost, StoreFound]


def test_black_hole_holds_a_caller_for_its_timeout_once(
    clock: HandClock, listening: Listening, ask: Ask
) -> None:
    """An address that takes connections and never answers costs the timeout, then nothing."""
    with black_hole() as url:
        store = make(url, clock, listening, timeout_seconds=0.5)
        first = refused(ask, store)
        others = [refused(ask, store) for _ in range(20)]

    assert first < 1
    assert next_to_nothing(others)
    assert kinds(listening) == [StoreLost]


@pytest.mark.parametrize("reply", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00\xff\r\n", b""])
def test_stranger_in_place_of_the_store_is_no_store(
    clock: HandClock, listening: Listening, ask: Ask, reply: bytes
) -> None:
    """Whatever a server that is no Redis says, callers get the one error they know."""
    with babbler(reply) as url:
        refused(ask, make(url, clock, listening))

    assert kinds(listening) == [StoreLost]


def fail_together(store: Store) -> list[float]:
    """Be refused in many threads at once; return how long each waited."""
    together = threading.Barrier(THREADS)
    took: list[float] = []

    def work() -> None:
        together.wait(10)
        took.append(refused(ask_sync, store))

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(took) == THREADS
    return took


def test_loss_that_all_threads_see_at_once_is_announced_once(
    clock: HandClock, listening: Listening
) -> None:
    """Threads that wait side by side for a store that hangs make one event, not eight."""
    with black_hole() as url:
        for _ in range(5):
            fail_together(make(url, clock, listening, timeout_seconds=0.1))

    assert kinds(listening) == [StoreLost] * 5


def test_lost_store_is_looked_for_beside_the_calls(clock: HandClock, listening: Listening) -> None:
    """When the pause is over no call waits for the store; one thread looks for it."""
    with black_hole() as url:
        store = make(url, clock, listening, timeout_seconds=0.5)
        refused(ask_sync, store)
        clock.advance(1.0)
        took = fail_together(store)
        at_it = len(looking())
        looked()

    assert next_to_nothing(took)
    assert at_it <= 1
    assert kinds(listening) == [StoreLost]


def test_error_of_a_lost_store_says_when_it_is_asked_again(clock: HandClock) -> None:
    """In the future: also when nobody has asked for long."""
    store = make("redis://127.0.0.1:1/0", clock, Listening())
    refused(ask_sync, store)
    with pytest.raises(StoreUnavailableError, match=r"next try in 1\.0 s"):
        ask_sync(store)
    clock.advance(4.0)
    with pytest.raises(StoreUnavailableError, match="it is asked again now"):
        ask_sync(store)
    looked()


def test_listener_that_raises_changes_nothing(server: ValkeyProcess, clock: HandClock) -> None:
    """Monitoring that fails hides neither the loss of the store nor its return."""

    def broken(_: Event) -> None:
        msg = "no metrics today"
        raise RuntimeError(msg)

    store = make(server.url, clock, broken)
    server.kill()
    refused(ask_sync, store)
    server.start()
    clock.advance(1.0)

    assert wait_until(lambda: found(ask_sync, store), 10, "the store was found")


def write_sync(store: Store) -> Any:  # noqa: ANN401 - what the server says
    """Write a key."""
    return store.run(lambda client: client.set(store.key("k"), "v"))


def write_async(store: Store) -> Any:  # noqa: ANN401 - what the server says
    """Write a key on an event loop."""
    return asyncio.run(store.run_async(lambda client: client.set(store.key("k"), "v")))


def write_waiting(store: Store) -> Any:  # noqa: ANN401 - what the server says
    """Write a key with a command that could block."""
    return store.wait("SET", store.key("k"), "v", seconds=1)


def write_waiting_async(store: Store) -> Any:  # noqa: ANN401 - what the server says
    """Write a key with a command that could block, on an event loop."""
    return asyncio.run(store.wait_async("SET", store.key("k"), "v", seconds=1))


@pytest.mark.parametrize("write", [write_sync, write_async, write_waiting, write_waiting_async])
@pytest.mark.parametrize("trouble", ["full", "read-only"])
def test_store_that_refuses_a_write_is_unavailable_for_it_but_not_lost(
    server: ValkeyProcess,
    clock: HandClock,
    listening: Listening,
    write: Callable[[Store], Any],
    trouble: str,
) -> None:
    """A full server, or one demoted to a replica, fails the write alone: reads go on."""
    store = make(server.url, clock, listening)
    if trouble == "full":
        server.client().config_set("maxmemory", "1")
    else:
        server.client().replicaof("127.0.0.1", 1)

    with pytest.raises(StoreUnavailableError, match="the store refused"):
        write(store)

    assert ask_sync(store) == b"word"
    assert not listening.heard


def test_refusal_of_a_store_that_was_lost_tells_that_it_is_back(
    server: ValkeyProcess, clock: HandClock, listening: Listening
) -> None:
    """Even an error is an answer."""
    store = make(server.url, clock, listening)
    server.kill()
    refused(ask_sync, store)
    server.start()
    server.client().config_set("maxmemory", "1")
    clock.advance(1.0)
    refused(ask_sync, store)
    looked()

    with pytest.raises(StoreUnavailableError, match="the store refused"):
        write_sync(store)

    assert kinds(listening) == [StoreLost, StoreFound]
