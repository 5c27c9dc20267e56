"""How many jobs the fleet may run again, on a real server."""

import pytest

from resilience.store import Releases, Store
from resilience.store.release import LEAST_PER_SECOND
from resilience.testing.valkey import ValkeyProcess


@pytest.fixture
def pair(valkey: ValkeyProcess) -> tuple[Releases, Releases]:
    """Two processes of one fleet, of which nobody has heard."""
    valkey.client().flushall()
    return Releases(Store(valkey.url, namespace="shop")), Releases(
        Store(valkey.url, namespace="shop")
    )


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
    assert 50 <= granted[1] <= 50 + LEAST_PER_SECOND


def test_jobs_that_never_ran_are_not_limited(pair: tuple[Releases, Releases]) -> None:
    """An outbox is emptied at once."""
    assert pair[0].ask("mail", 5000, share=None, closed=True) == 5000
    assert Releases(None).ask("mail", 5000, share=None, closed=True) == 5000


def test_circuit_that_has_just_closed_lets_few_through(pair: tuple[Releases, Releases]) -> None:
    """What waited for it does not come all at once, whichever process sees it close."""
    one, other = pair
    one.ask("mail", 1, share=None, closed=False)

    granted = [each.ask("mail", 5000, share=None, closed=True) for each in (one, other)]

    assert 0 < sum(granted) <= 3 * LEAST_PER_SECOND
