"""How many jobs the fleet may run again, on a real server."""

from typing import Any

import pytest

from resilience.store import Releases, Store
from resilience.testing.valkey import ValkeyProcess

SECONDS = 120


@pytest.fixture
def pair(valkey: ValkeyProcess) -> tuple[Releases, Releases]:
    """Two processes of one fleet, of which nobody has heard."""
    valkey.client().flushall()
    one, other = (
        Releases(Store(valkey.url, namespace="shop", timeout_seconds=SECONDS)) for _ in range(2)
    )
    return one, other


def test_retries_of_the_whole_fleet_stay_within_their_share(
    pair: tuple[Releases, Releases],
) -> None:
    """Of 1,000 jobs that one process took, both together release a fifth, whoever asks."""
    one, other = pair
    for _ in range(1000):
        one.count("mail", again=False)
    one.tell()

    granted = [each.ask("mail", 150, share=0.2, closed=True) for each in (one, other)]

    assert granted[0] == 150
    assert 50 <= granted[1] <= 60  # ten a second go whatever the share


@pytest.mark.parametrize(("age", "granted"), [(8, 150), (11, 10)])
def test_share_is_one_of_the_jobs_of_the_last_ten_seconds(
    pair: tuple[Releases, Releases], valkey: ValkeyProcess, age: int, granted: int
) -> None:
    """Jobs that ran earlier allow no retries now."""
    one, other = pair
    for _ in range(1000):
        one.count("mail", again=False)
    one.tell()
    client: Any = valkey.client()
    [flow] = client.keys("*flow*")
    # As the server's clock cannot be turned, turn back when the jobs ran.
    for field, jobs in client.hgetall(flow).items():
        kind, second = field.decode().split(":")
        client.hdel(flow, field)
        client.hset(flow, f"{kind}:{int(second) - age}", jobs)

    assert other.ask("mail", 150, share=0.2, closed=True) == granted


def test_jobs_that_never_ran_are_not_limited(pair: tuple[Releases, Releases]) -> None:
    """An outbox is emptied at once."""
    assert pair[0].ask("mail", 5000, share=None, closed=True) == 5000
    assert Releases(None).ask("mail", 5000, share=None, closed=True) == 5000


def test_circuit_that_has_just_closed_lets_few_through(pair: tuple[Releases, Releases]) -> None:
    """What waited for it does not come all at once, whichever process sees it close."""
    one, other = pair
    one.ask("mail", 1, share=None, closed=False)

    granted = [each.ask("mail", 5000, share=None, closed=True) for each in (one, other)]

    assert 9 <= sum(granted) <= 30  # ten a second to begin with, one of which was released before


@pytest.mark.parametrize("seconds", [0, 2, 5])
def test_jobs_released_after_a_circuit_has_closed_grow_by_half_each_second(
    pair: tuple[Releases, Releases], valkey: ValkeyProcess, seconds: int
) -> None:
    """A dependency that is back gets ten jobs in the first second, 15 in the next, and so on."""
    one, other = pair
    for closed in (False, True):
        one.ask("mail", 1, share=None, closed=closed)
    # As the server's clock cannot be turned, turn back when the circuit closed.
    client: Any = valkey.client()
    [flow] = client.keys("*flow*")
    closed_ms = int(client.hget(flow, "closed")) - 1000 * seconds
    client.hset(flow, "closed", closed_ms)

    def rate() -> float:
        now, microseconds = client.time()
        return float(10 * 1.5 ** (now + microseconds / 1e6 - closed_ms / 1000))

    least, granted = rate(), other.ask("mail", 5000, share=None, closed=True)

    # Two were released before, maybe in this second; the script counts in milliseconds.
    assert least - 3 <= granted <= rate() + 1


def test_process_without_a_store_releases_ten_if_there_is_a_limit() -> None:
    """A process that cannot ask the fleet keeps to the least that the fleet may release."""
    alone = Releases(None)

    assert alone.ask("mail", 5000, share=0.2, closed=True) == 10
    assert alone.ask("mail", 5000, share=None, closed=False) == 10
    assert alone.ask("mail", 3, share=0.2, closed=True) == 3
