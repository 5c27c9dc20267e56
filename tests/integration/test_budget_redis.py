"""Commands of redis-py give up before the budget ends, so that the block need not be cut."""

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
    """A client with redis-py's default settings, limited by the budget, and the keys a and b."""
    client = redis.Redis.from_url(valkey.url)
    limit_commands(client)
    client.mset({"a": "1", "b": "2"})
    yield client
    client.close()


@contextmanager
def silent(server: ValkeyProcess) -> Iterator[None]:
    """Stop the server for the length of the block; it answers afterwards."""
    server.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.send_signal(signal.SIGCONT)


def own_timeout() -> None:
    """The control: without a budget, time out after the longest that a budget may take."""
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
    """Send a command that the server itself answers late."""
    return client.blpop(["nothing"], timeout=600)


@pytest.mark.parametrize("ask", [get, get_twice, get_at_once, block])
def test_command_gives_up_before_the_budget_ends(
    client: redis.Redis, valkey: ValkeyProcess, ask: Callable[[redis.Redis], object]
) -> None:
    """No retry, pause or second timeout follows, and the next command does not get its answer."""
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
    """A connection that is accepted and never answered costs no more than the budget."""
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
    """A budget never lengthens a wait, and the error is redis-py's own."""
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
    """A later command has the full timeout, even on a connection opened under the budget."""
    client.connection_pool.disconnect()
    with TimeoutBudget(1.0):
        client.ping()

    assert client.blpop(["nothing"], timeout=1.2) is None


def test_nothing_is_sent_when_nothing_is_left(client: redis.Redis) -> None:
    """The command is refused, and its connection can still be used."""
    with TimeoutBudget.until(-1.0, total=1.0), pytest.raises(BudgetExceededError):
        client.set("a", "never")

    assert client.get("a") == b"1"


def test_asynchronous_command_is_cancelled_and_its_connection_dropped(
    client: redis.Redis, valkey: ValkeyProcess
) -> None:
    """Cancellation is enough: the next command does not get the late answer."""
    del client  # has set the keys

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
