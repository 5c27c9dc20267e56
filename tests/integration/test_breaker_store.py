"""Calls while the store dies, hangs, forgets and comes back: they go on, and nobody waits."""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import perf_counter
from uuid import uuid4

import pytest

from resilience import CircuitOpenError
from resilience.breaker import Breaker, BreakerPolicy, State
from resilience.events import CircuitOpened, StoreFound, StoreLost
from resilience.pulse import Pulse
from resilience.store import Store
from resilience.store.fleet import StoreFleet
from resilience.testing.plugin import running_valkey
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.unit.breakers import raise_
from tests.unit.calling import Listening

SECONDS = 120
THREADS = 4
STORE_TIMEOUT_SECONDS = 1.0
"""Far longer than a busy machine stops a process: a wait for the store is told from that."""
POLICY = BreakerPolicy(minimum_calls=4, window_seconds=60, open_seconds=30, open_seconds_max=60)


@pytest.fixture(scope="module")
def module_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyProcess]:
    """A server to be ill-treated."""
    with running_valkey(tmp_path_factory) as running:
        yield running


@pytest.fixture
def server(module_server: ValkeyProcess) -> Iterator[ValkeyProcess]:
    """That server, up, and set straight after the test."""
    yield module_server
    if module_server.running:
        module_server.send_signal(signal.SIGCONT)
    else:
        module_server.start()


class Client:
    """A process of the fleet, as far as a breaker is concerned."""

    def __init__(self, url: str, *, store_timeout: float = 0.1) -> None:
        """Prepare a circuit of its own."""
        self.listening = Listening()
        self.store = Store(
            url,
            namespace=uuid4().hex,
            timeout_seconds=store_timeout,
            listeners=[self.listening],
        )
        self.pulse = Pulse(StoreFleet(self.store))
        self.breaker = Breaker("users", self.pulse, POLICY, listeners=[self.listening])

    def heard(self, *kinds: type) -> list[str]:
        """Return the events of those kinds, in order."""
        heard = self.listening.heard
        return [type(event).__name__ for event in heard if isinstance(event, kinds)]

    def store_events(self) -> list[str]:
        """Return what was heard of the store."""
        return self.heard(StoreLost, StoreFound)


@contextmanager
def traffic(client: Client) -> Iterator[list[int]]:
    """Call something that answers from several threads all the time; no call may be refused."""
    stop, calls = threading.Event(), [0] * THREADS
    errors: list[BaseException] = []

    def call(number: int) -> None:
        try:
            while not stop.is_set():
                client.breaker.call(stop.wait, 0.001)
                calls[number] += 1
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test shall see it
            errors.append(error)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    try:
        yield calls
    finally:
        stop.set()
        for thread in threads:
            thread.join(SECONDS)
    assert not errors


def keeps_calling(calls: list[int]) -> None:
    """Wait until every thread has called fifty times more."""
    before = list(calls)
    wait_until(
        lambda: all(now - then > 50 for now, then in zip(calls, before, strict=True)),
        SECONDS,
        "all threads go on calling",
    )


def kill(server: ValkeyProcess) -> None:
    """Take the server away."""
    server.kill()


def hang(server: ValkeyProcess) -> None:
    """Let the server take connections and say nothing."""
    server.send_signal(signal.SIGSTOP)


def revive(server: ValkeyProcess) -> None:
    """Undo either."""
    if server.running:
        server.send_signal(signal.SIGCONT)
    else:
        server.start()


@pytest.mark.parametrize("trouble", [kill, hang])
def test_traffic_goes_on_without_the_store(
    server: ValkeyProcess, trouble: Callable[[ValkeyProcess], None]
) -> None:
    """No call fails or is refused while the store is lost and found; each is told once."""
    client = Client(server.url, store_timeout=STORE_TIMEOUT_SECONDS)

    with traffic(client) as calls:
        keeps_calling(calls)
        trouble(server)
        wait_until(lambda: client.pulse.scope == "local", SECONDS, "the process is alone")
        keeps_calling(calls)
        revive(server)
        wait_until(lambda: client.pulse.scope == "fleet", SECONDS, "the process is back")
        keeps_calling(calls)

    assert client.store_events() == ["StoreLost", "StoreFound"]


def test_traffic_goes_on_through_a_flush_and_a_quick_restart(server: ValkeyProcess) -> None:
    """A store that forgot everything, scripts included, costs no call."""
    client = Client(server.url, store_timeout=STORE_TIMEOUT_SECONDS)

    with traffic(client) as calls:
        keeps_calling(calls)
        server.flush()
        server.client().script_flush()
        keeps_calling(calls)
        assert client.store_events() == []
        server.stop()
        server.start()
        keeps_calling(calls)
        wait_until(lambda: client.pulse.scope == "fleet", SECONDS, "the process is back")

    assert client.store_events() in ([], ["StoreLost", "StoreFound"])
    assert client.breaker.state is State.CLOSED


@pytest.mark.parametrize("trouble", [kill, hang])
def test_lone_process_protects_itself(
    server: ValkeyProcess, trouble: Callable[[ValkeyProcess], None]
) -> None:
    """Without the store a failing dependency is refused all the same, and one wait is enough."""
    client = Client(server.url, store_timeout=STORE_TIMEOUT_SECONDS)
    client.breaker.call(str)
    trouble(server)

    with pytest.raises(CircuitOpenError):
        fail_until_refused(client, took := list[float]())

    assert sum(seconds > STORE_TIMEOUT_SECONDS / 2 for seconds in took) <= 1
    opened = [event for event in client.listening.heard if isinstance(event, CircuitOpened)]
    assert [event.scope for event in opened] == ["local"]


def fail_until_refused(client: Client, took: list[float]) -> None:
    """Call what fails until a call is refused; add to *took* how long each call took."""
    for _ in range(100_000):
        began = perf_counter()
        try:
            with suppress(ConnectionError):
                client.breaker.call(raise_, ConnectionError("gone"))
        finally:
            took.append(perf_counter() - began)


def test_event_loop_is_never_blocked(server: ValkeyProcess) -> None:
    """While the store is silent the loop runs on: nothing on it ever waits for the store.

    The machine may stop the loop, as it may stop a thread beside it: that is the control.
    """
    client = Client(server.url, store_timeout=STORE_TIMEOUT_SECONDS)

    loop, thread = asyncio.run(longest_lags(client, lambda: hang(server)))

    assert client.heard(StoreLost) == ["StoreLost"]
    assert loop < STORE_TIMEOUT_SECONDS / 2 + thread


async def longest_lags(client: Client, trouble: Callable[[], None]) -> tuple[float, float]:
    """Return how long the loop, and a thread, did nothing else at most from *trouble* on."""
    over, lags = threading.Event(), {"loop": 0.0, "thread": 0.0}

    async def call() -> None:
        while not over.is_set():
            await client.breaker.acall(asyncio.sleep, 0.001)

    async def watch() -> None:
        while not over.is_set():
            began = perf_counter()
            await asyncio.sleep(0.001)
            lags["loop"] = max(lags["loop"], perf_counter() - began)

    def watch_beside() -> None:
        while not over.is_set():
            began = perf_counter()
            over.wait(0.001)
            lags["thread"] = max(lags["thread"], perf_counter() - began)

    callers = [asyncio.create_task(call()) for _ in range(10)]
    await asyncio.sleep(0.3)
    await asyncio.to_thread(trouble)
    watching = asyncio.create_task(watch())
    beside = asyncio.create_task(asyncio.to_thread(watch_beside))
    async with asyncio.timeout(SECONDS):
        await asyncio.to_thread(
            wait_until, lambda: client.pulse.scope == "local", SECONDS, "the process is alone"
        )
        await asyncio.sleep(0.6)
    over.set()
    await asyncio.gather(watching, beside, *callers)
    return lags["loop"], lags["thread"]
