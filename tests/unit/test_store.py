"""The store's connections: shared by threads, forks, event loops and calls that are cut."""

import asyncio
import multiprocessing
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NoReturn
from uuid import uuid4

import pytest
import redis
import redis.asyncio

from resilience import ConfigurationError, StoreUnavailableError
from resilience.budget.timer import Alarm
from resilience.store import Store
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.unit.black_hole import babbler
from tests.unit.hand_clock import HandClock
from tests.unit.stopwatch import elapsed

THREADS = 8
EXCHANGES = 100
BURST = 1_000


class CutError(Exception):
    """What cuts a call in these tests."""


def echo(store: Store, text: str) -> str:
    """Return what the server answers to *text*: the same, unless answers got mixed up."""
    answer: Any = store.run(lambda client: client.echo(text))
    return str(answer, "ascii")


async def echo_async(store: Store, text: str) -> str:
    """Do the same as `echo` on the running loop."""
    answer: Any = await store.run_async(lambda client: client.echo(text))
    return str(answer, "ascii")


def mixed_up(store: Store, who: object) -> list[str]:
    """Return the answers of many exchanges that were not the ones to *who*'s questions."""
    asked = [f"{who}:{number}" for number in range(EXCHANGES)]
    return [answer for text in asked if (answer := echo(store, text)) != text]


def connected(valkey: ValkeyProcess) -> int:
    """Return how many connections the server has."""
    count: int = valkey.client().info("clients")["connected_clients"]
    return count


def test_keys_of_a_namespace_live_in_one_slot_of_a_cluster() -> None:
    """The namespace is the hash tag, so that one script may touch any of its keys."""
    store = Store("redis://cache", namespace="shop")

    assert store.key("answer", "popular") == "{shop}:answer:popular"


@pytest.mark.parametrize("url", ["", "cache:6379", "http://cache", "redis://cache:port"])
def test_store_names_a_url_that_it_cannot_use(url: str) -> None:
    """What is no address of a Redis or Valkey is refused at declaration."""
    with pytest.raises(ConfigurationError) as caught:
        Store(url, namespace="shop")

    assert repr(url) in str(caught.value)


def test_store_does_not_show_a_password() -> None:
    """The address of an error message can be read in a log."""
    with pytest.raises(ConfigurationError) as caught:
        Store("redis://user:se@cret@cache:port/0", namespace="shop")

    assert "se@cret" not in str(caught.value)
    assert "redis://***@cache:port/0" in str(caught.value)


def test_store_takes_valkeys_own_scheme(valkey: ValkeyProcess) -> None:
    """`valkey://` is the same as `redis://`."""
    store = Store(valkey.url.replace("redis://", "valkey://"), namespace="shop")

    assert echo(store, "hello") == "hello"


def test_store_is_shared_by_threads(store: Store) -> None:
    """Threads never get each other's answers."""
    wrong: list[str] = []
    together = threading.Barrier(THREADS)

    def work(who: int) -> None:
        together.wait(10)
        wrong.extend(mixed_up(store, who))

    threads = [threading.Thread(target=work, args=(who,)) for who in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert not wrong
    assert not any(thread.is_alive() for thread in threads)


def test_store_is_shared_by_the_tasks_of_a_loop(valkey: ValkeyProcess) -> None:
    """A burst of tasks is no reason to call the store lost, and nobody's answers get mixed up."""
    store = Store(valkey.url, namespace="shop", timeout_seconds=0.5)
    asked = [str(number) for number in range(BURST)]

    async def together() -> list[str]:
        return await asyncio.gather(*(echo_async(store, text) for text in asked))

    assert asyncio.run(together()) == asked


def test_store_used_before_a_fork_works_on_both_sides(store: Store) -> None:
    """A child of a worker shares no connection with its parent: nobody's answers get lost."""
    assert echo(store, "before") == "before"
    ours, theirs = multiprocessing.Pipe()

    def child(pipe: Connection) -> None:
        pipe.send(mixed_up(store, "child"))

    process = multiprocessing.get_context("fork").Process(target=child, args=(theirs,))
    process.start()
    try:
        wrong = mixed_up(store, "parent")
        assert ours.poll(20), "the child answers"
        assert ours.recv() == wrong == []
        process.join(10)
        assert process.exitcode == 0
    finally:
        process.kill()
        process.join(10)


def test_store_leaves_no_connection_behind_an_event_loop(
    store: Store, valkey: ValkeyProcess
) -> None:
    """A job that runs a loop of its own, a thousand times, does not use up the server."""
    before = connected(valkey)

    for number in range(20):
        assert asyncio.run(echo_async(store, str(number))) == str(number)

    wait_until(lambda: connected(valkey) <= before, 5, "all connections of ended loops are closed")


def test_store_serves_loops_of_several_threads(store: Store) -> None:
    """Each thread's loop has its own connections; none is used on a foreign loop."""
    answers: list[str] = []
    together = threading.Barrier(THREADS)

    async def work(who: int) -> None:
        together.wait(10)
        texts = [f"{who}:{number}" for number in range(10)]
        answers.extend(await asyncio.gather(*(echo_async(store, text) for text in texts)))

    def run(who: int) -> None:
        asyncio.run(work(who))

    threads = [threading.Thread(target=run, args=(who,)) for who in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert sorted(answers) == sorted(f"{w}:{n}" for w in range(THREADS) for n in range(10))


def test_exchange_that_is_cut_does_not_spoil_the_next(store: Store) -> None:
    """An answer that comes after its caller was cut is never handed to another."""

    def ask_and_be_cut(client: redis.Redis) -> NoReturn:
        pool = client.connection_pool
        connection = pool.get_connection()
        try:
            # The server answers in 0.05 s, when other exchanges are under way.
            connection.send_command("BLPOP", store.key("empty"), "0.05")  # type: ignore[no-untyped-call]
            raise CutError
        finally:
            pool.release(connection)

    with pytest.raises(CutError):
        store.run(ask_and_be_cut)

    assert not mixed_up(store, "next")


def test_wait_that_is_cut_takes_nothing(store: Store, valkey: ValkeyProcess) -> None:
    """What comes in after its waiter was cut stays for the next one."""
    queue = store.key("queue")

    with pytest.raises(CutError), Alarm(0.1, CutError):
        store.wait("BLPOP", queue, "10", seconds=10)
    wait_until(lambda: blocked(valkey) == 0, 5, "the server knows that nobody waits")
    valkey.client().rpush(queue, "item")

    assert echo(store, "next") == "next"
    assert store.wait("BLPOP", queue, "1", seconds=1) == [queue.encode(), b"item"]


def test_async_wait_that_is_cancelled_takes_nothing(store: Store, valkey: ValkeyProcess) -> None:
    """What comes in after a waiting task was cancelled stays for the next one."""
    queue = store.key("queue")

    async def cancelled() -> object:
        task = asyncio.create_task(store.wait_async("BLPOP", queue, "10", seconds=10))
        await asyncio.to_thread(wait_until, lambda: blocked(valkey) == 1, 5, "the task waits")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.to_thread(wait_until, lambda: blocked(valkey) == 0, 5, "nobody waits")
        valkey.client().rpush(queue, "item")
        assert await echo_async(store, "next") == "next"
        return await store.wait_async("BLPOP", queue, "1", seconds=1)

    assert asyncio.run(cancelled()) == [queue.encode(), b"item"]


def test_async_exchange_that_is_cancelled_does_not_spoil_the_next(store: Store) -> None:
    """A task cancelled between question and answer leaves no answer to the wrong question."""

    async def slow(client: redis.asyncio.Redis) -> object:
        return await client.blpop([store.key("empty")], timeout=0.05)

    async def cancel_often() -> list[str]:
        wrong = []
        for number in range(20):
            task = asyncio.create_task(store.run_async(slow))
            await asyncio.sleep(0.002 * number)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if (answer := await echo_async(store, str(number))) != str(number):
                wrong.append(answer)
        return wrong

    assert asyncio.run(cancel_often()) == []


def blocked(valkey: ValkeyProcess) -> int:
    """Return how many clients wait in a blocking command."""
    count: int = valkey.client().info("clients")["blocked_clients"]
    return count


def wait_sync(store: Store, *command: str, seconds: float) -> Any:  # noqa: ANN401 - as `wait`
    """Wait as a worker does."""
    return store.wait(*command, seconds=seconds)


def wait_async(store: Store, *command: str, seconds: float) -> Any:  # noqa: ANN401 - as `wait`
    """Wait as a web handler does."""
    return asyncio.run(store.wait_async(*command, seconds=seconds))


@pytest.fixture(params=[wait_sync, wait_async], ids=["sync", "async"])
def wait(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Both ways to wait."""
    way: Callable[..., Any] = request.param
    return way


def test_wait_returns_what_comes_in(valkey: ValkeyProcess, wait: Callable[..., Any]) -> None:
    """A waiter gets the item as soon as there is one, though that takes longer than a timeout."""
    store = Store(valkey.url, namespace=uuid4().hex, timeout_seconds=0.2)
    queue = store.key("queue")

    def push() -> None:
        wait_until(lambda: blocked(valkey) == 1, 10, "somebody waits")
        threading.Event().wait(0.3)  # longer than the store's timeout
        valkey.client().rpush(queue, "item")

    thread = threading.Thread(target=push)
    thread.start()
    answer = wait(store, "BLPOP", queue, "10", seconds=10)
    thread.join(10)

    assert answer == [queue.encode(), b"item"]


@pytest.mark.parametrize("server_seconds", ["0.1", "5"], ids=["server-first", "client-first"])
def test_wait_returns_none_when_nothing_comes(
    store: Store, wait: Callable[..., Any], server_seconds: str
) -> None:
    """A waiter gives up after its seconds, whatever the server was told, and the store is up."""

    def give_up() -> None:
        assert wait(store, "BLPOP", store.key("queue"), server_seconds, seconds=0.3) is None

    assert elapsed(give_up) < 1
    assert echo(store, "next") == "next"


def test_wait_counts_the_time_it_took_to_connect(wait: Callable[..., Any]) -> None:
    """A store that is slow to greet and then hangs makes no waiter late."""
    with babbler(b"+OK\r\n+OK\r\n", after=0.5, hang=True) as url:
        store = Store(url, namespace="shop", timeout_seconds=5)

        def give_up() -> None:
            assert wait(store, "BLPOP", "queue", "10", seconds=0.6) is None

        assert elapsed(give_up) < 0.9


def test_process_without_room_for_a_thread_goes_on() -> None:
    """Where no thread can be had to look for a lost store, a call is told the same as before."""
    clock = HandClock()
    store = Store("redis://127.0.0.1:9/0", namespace="nowhere", clock=clock)
    with pytest.raises(StoreUnavailableError):
        echo(store, "word")
    clock.advance(1.0)
    size = threading.stack_size(1 << 46)  # no machine has so much
    try:
        with pytest.raises(StoreUnavailableError):
            echo(store, "word")
    finally:
        threading.stack_size(size)
