"""A store whose host does not even refuse a connection: a firewall drops it, or a queue is full."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from resilience import StoreUnavailableError
from resilience.store import Store
from tests.timing import no_later_than
from tests.unit.black_hole import full_house

TIMEOUT_SECONDS = 0.5
SOON = 3.0
"""Later than the timeout of these stores, and sooner than redis-py's own of five seconds."""


def ask_sync(store: Store) -> Any:  # noqa: ANN401 - what the server says
    """Exchange a word with the store."""
    return store.run(lambda client: client.ping())


def ask_async(store: Store) -> Any:  # noqa: ANN401 - what the server says
    """Exchange a word with the store on an event loop."""
    return asyncio.run(store.run_async(lambda client: client.ping()))


@pytest.mark.parametrize("ask", [ask_sync, ask_async], ids=["sync", "async"])
@pytest.mark.parametrize(
    "url",
    [
        pytest.param("redis://{}/0", id="server"),
        pytest.param("sentinel://{}/shop", id="sentinel"),
        pytest.param("redis+cluster://{}", id="cluster"),
    ],
)
def test_caller_waits_for_a_connection_no_longer_than_for_an_answer(
    url: str, ask: Callable[[Store], Any]
) -> None:
    """The timeout of the store is the longest wait to connect, too, whatever the URL says."""
    with full_house() as address:
        store = Store(
            url.format(address), namespace="shop", timeout_seconds=TIMEOUT_SECONDS, listeners=()
        )
        with no_later_than(SOON), pytest.raises(StoreUnavailableError):
            ask(store)
