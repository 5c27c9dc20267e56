"""Commands of redis-py under a budget, on a real server. The block itself is not cut."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import redis
import redis.asyncio
from redis.backoff import ConstantBackoff, NoBackoff
from redis.retry import Retry

from resilience import BudgetExceededError, TimeoutBudget
from resilience.budget import limit_commands
from resilience.testing.ports import LOCALHOST, free_port
from resilience.testing.valkey import ValkeyProcess
from tests.timing import ends_before
from tests.unit.black_hole import black_hole

BUDGET = 0.8
LATEST = 1.2 * BUDGET
TOO_LONG = 600.0


@pytest.fixture
def client(valkey: ValkeyProcess) -> Iterator[redis.Redis]:
    """A limited client with redis-py's own settings, and two keys."""
    client = redis.Redis.from_url(valkey.url)
    limit_commands(client)
    client.mset({"a": "1", "b": "2"})
    yield client
    client.close()


@contextmanager
def silent(server: ValkeyProcess) -> Iterator[None]:
    """Let the server answer what it is asked meanwhile only afterwards."""
    server.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.send_signal(signal.SIGCONT)


def own_timeout() -> None:
    """Ask a server that says nothing, without a budget, and give up at the latest moment."""
    with black_hole() as url:
        client = redis.Redis.from_url(url, socket_timeout=LATEST, retry=Retry(NoBackoff(), 0))
        with client, pytest.raises(redis.TimeoutError):
            client.get("a")


def get(client: redis.Redis) -> object:
    """Send one command."""
    return client.get("a")


def get_twice(client: redis.Redis) -> object:
    """Send two commands in one batch."""
    with client.pipeline(transaction=False) as batch:
        return batch.get("a").get("a").execute()


def get_at_once(client: redis.Redis) -> object:
    """Send two commands in one transaction."""
    with client.pipeline() as batch:
        return batch.get("a").get("a").execute()


def block(client: redis.Redis) -> object:
    """Send a command that the server answers late on its own account."""
    return client.blpop(["nothing"], timeout=600)


@pytest.mark.parametrize("ask", [get, get_twice, get_at_once, block])
def test_command_gives_up_before_the_budget_ends(
    client: redis.Redis, valkey: ValkeyProcess, ask: Callable[[redis.Redis], object]
) -> None:
    """No retry, no pause and no second timeout follow; the late answer is nobody's."""
    with (
        silent(valkey),
        ends_before(own_timeout),
        TimeoutBudget(BUDGET),
        pytest.raises(BudgetExceededError) as caught,
    ):
        ask(client)

    assert caught.value.conclusive
    assert isinstance(caught.value.__cause__, redis.TimeoutError)
    assert client.get("b") == b"2"


def test_handshake_with_a_server_that_hangs_keeps_the_budget() -> None:
    """A connection that is taken and never answered costs no more than the budget."""
    with black_hole() as url, ends_before(own_timeout), TimeoutBudget(BUDGET):
        client = redis.Redis.from_url(url)
        limit_commands(client)
        with pytest.raises(BudgetExceededError):
            client.get("a")
        client.close()


def test_server_that_is_down_is_not_waited_for_beyond_the_budget() -> None:
    """A pause between two attempts that would outlast the budget is not begun."""
    retry = Retry(ConstantBackoff(0.75 * BUDGET), 9)
    client = redis.Redis(host=LOCALHOST, port=free_port(), retry=retry)
    limit_commands(client)

    with ends_before(own_timeout), TimeoutBudget(BUDGET), pytest.raises(BudgetExceededError):
        client.get("a")


def test_own_timeout_stays_if_it_is_shorter(valkey: ValkeyProcess) -> None:
    """A budget makes nobody wait longer, and the error is the client's own."""
    client = redis.Redis.from_url(valkey.url, socket_timeout=0.1, retry=Retry(NoBackoff(), 0))
    limit_commands(client)
    client.ping()

    with (
        silent(valkey),
        ends_before(own_timeout),
        TimeoutBudget(TOO_LONG),
        pytest.raises(redis.TimeoutError),
    ):
        client.get("a")
    client.close()


def test_connection_has_its_own_timeout_back_after_the_budget(client: redis.Redis) -> None:
    """What a budget shortened holds for nobody else, nor for a connection that it opened."""
    client.connection_pool.disconnect()
    with TimeoutBudget(1.0):
        client.ping()

    assert client.blpop(["nothing"], timeout=1.2) is None


def test_nothing_is_sent_when_nothing_is_left(client: redis.Redis) -> None:
    """The command is refused, and the connection stays good."""
    with TimeoutBudget.until(-1.0, total=1.0), pytest.raises(BudgetExceededError):
        client.set("a", "never")

    assert client.get("a") == b"1"


def test_asynchronous_command_is_cancelled_and_its_connection_dropped(
    client: redis.Redis, valkey: ValkeyProcess
) -> None:
    """It needs no help: the late answer is nobody's."""
    del client  # set the keys

    async def ask() -> object:
        asynchronous = redis.asyncio.Redis.from_url(valkey.url)
        await asynchronous.ping()
        with silent(valkey):
            async with TimeoutBudget(BUDGET) as budget:
                with pytest.raises(BudgetExceededError):
                    await budget.arun(asynchronous.get, "a")
        answer = await asynchronous.get("b")
        await asynchronous.aclose()
        return answer

    assert asyncio.run(ask()) == b"2"
