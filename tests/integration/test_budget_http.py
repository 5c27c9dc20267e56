"""HTTP clients under a budget, and servers that hang. The block of a budget is not cut itself."""

import asyncio
import ssl
from collections.abc import Callable

import httpx
import pytest
import requests

from resilience import BudgetExceededError, Dependency, Pipeline, TimeoutBudget
from resilience.budget import client_timeout, limit_requests
from resilience.errors import AttemptTimeoutError
from resilience.store import Answers, Store
from resilience.testing.ports import LOCALHOST, free_port
from tests.timing import ends_before
from tests.unit.black_hole import babbler, black_hole
from tests.unit.breakers import Rig

BUDGET = 0.8
LATEST = 1.2 * BUDGET
TRIES = 10
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
TOO_LONG = 600.0
NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Each client of httpx would load hundreds: work of its own, for which a busy machine takes longer
than the budget, and during which no timeout runs."""


def address(url: str) -> str:
    """Return the HTTP address of a server that says where it is as a store does."""
    return url.replace("redis://", "http://")


def limited(timeout: float | None = TOO_LONG) -> httpx.Client:
    """Return a client that keeps the budget; its own timeout is *timeout*."""
    client = httpx.Client(timeout=timeout, trust_env=False, verify=NO_CERTIFICATES)
    limit_requests(client)
    return client


def own_timeout() -> None:
    """Ask a server that says nothing, without a budget, and give up at the latest moment."""
    with black_hole() as url, pytest.raises(httpx.ReadTimeout):
        httpx.get(address(url), timeout=LATEST, trust_env=False, verify=NO_CERTIFICATES)


def by_requests(url: str) -> object:
    """Ask as `requests` does."""
    return requests.get(url, timeout=client_timeout(TOO_LONG))


def by_httpx(url: str) -> object:
    """Ask once, with a timeout for each phase."""
    timeout = client_timeout(TOO_LONG)
    return httpx.get(url, timeout=timeout, trust_env=False, verify=NO_CERTIFICATES)


def by_limited_httpx(url: str) -> object:
    """Ask with a client that keeps the budget over all phases."""
    with limited() as client:
        return client.get(url)


@pytest.mark.parametrize("ask", [by_requests, by_httpx, by_limited_httpx])
def test_client_gives_up_before_the_budget_ends(ask: Callable[[str], object]) -> None:
    """A server that takes the connection and says nothing costs no more than the budget."""
    gave_up = (httpx.ReadTimeout, requests.ReadTimeout)

    with (
        black_hole() as url,
        ends_before(own_timeout),
        TimeoutBudget(BUDGET),
        pytest.raises(gave_up),
    ):
        ask(address(url))


def test_phases_of_a_request_share_what_is_left() -> None:
    """A head that comes late leaves the body less: httpx alone would wait again for it."""
    with (
        babbler(HEAD, after=0.6 * BUDGET, hang=True) as url,
        limited() as client,
        ends_before(own_timeout),
        TimeoutBudget(BUDGET),
        pytest.raises(httpx.ReadTimeout),
    ):
        client.get(address(url))


def test_timeout_of_the_client_stays_if_it_is_shorter() -> None:
    """A budget makes nobody wait longer."""
    with (
        black_hole() as url,
        limited(0.1) as client,
        ends_before(own_timeout),
        TimeoutBudget(TOO_LONG),
        pytest.raises(httpx.ReadTimeout),
    ):
        client.get(address(url))


def test_client_is_as_before_without_a_budget() -> None:
    """Its own timeouts hold, phase by phase, and one that has none waits for the answer."""
    with babbler(HEAD + b"hello", after=0.2) as url, limited(None) as client:
        answer = client.get(address(url))

    assert answer.text == "hello"
    assert type(answer.request.extensions["timeout"]) is dict


def test_nothing_is_sent_when_nothing_is_left() -> None:
    """The request is refused before there is a connection."""
    with (
        limited() as client,
        TimeoutBudget.until(-1.0, total=1.0),
        pytest.raises(BudgetExceededError),
    ):
        client.get("http://127.0.0.1:9")


def test_error_of_the_client_comes_before_the_cut_of_a_pipeline() -> None:
    """It says more than that time was up, and the client has closed its connection."""
    no_answers = Answers(Store("redis://127.0.0.1:9/0", namespace="nowhere"))
    pipeline = Pipeline("ask", Dependency("users", timeout=5.0), no_answers)

    def ask() -> object:
        try:
            with black_hole() as url, limited() as client, TimeoutBudget(BUDGET):
                return pipeline.call(client.get, address(url))
        except (httpx.ReadTimeout, AttemptTimeoutError) as error:
            return type(error)

    # A process that the machine does not let run meets both at once: one of the tries must do.
    assert any(ask() is httpx.ReadTimeout for _ in range(TRIES))


def test_asynchronous_client_is_cancelled_where_it_waits() -> None:
    """It needs no timeout of its own, and keeps no connection."""

    async def ask(url: str) -> None:
        endless = httpx.AsyncClient(timeout=None, trust_env=False, verify=NO_CERTIFICATES)  # noqa: S113 - it is cut
        async with endless as client:
            with pytest.raises(BudgetExceededError), TimeoutBudget(BUDGET) as budget:
                await budget.arun(client.get, url)

    with black_hole() as url:
        asyncio.run(ask(address(url)))


def guarded(rig: Rig) -> Pipeline:
    """Return a pipeline whose dependency has far longer than any budget here."""
    no_answers = Answers(Store("redis://127.0.0.1:9/0", namespace="nowhere"))
    users = Dependency("users", timeout=10.0)
    return Pipeline("ask", users, no_answers, breaker=rig.breaker)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_client_that_had_next_to_no_time_says_nothing_about_the_dependency(
    asynchronous: bool,  # noqa: FBT001 - a parameter
) -> None:
    """It gave up before the cut, which would not have counted against the dependency either."""
    rig = Rig()
    pipeline = guarded(rig)

    async def ask(url: str) -> object:
        async with httpx.AsyncClient(trust_env=False, verify=NO_CERTIFICATES) as client:
            with TimeoutBudget(0.3):
                return await pipeline.call_async(client.get, url, timeout=client_timeout())

    def call(url: str) -> object:
        if asynchronous:
            return asyncio.run(ask(url))
        with limited() as client, TimeoutBudget(0.3):
            return pipeline.call(client.get, url)

    for _ in range(rig.breaker.policy.minimum_calls):
        with black_hole() as url, pytest.raises(BudgetExceededError) as caught:
            call(address(url))
        assert not caught.value.conclusive
    rig.tell()

    assert not rig.refused()


def test_dependency_that_refuses_at_once_is_counted_however_short_the_budget() -> None:
    """That was no want of time."""
    rig = Rig()
    pipeline = guarded(rig)

    for _ in range(rig.breaker.policy.minimum_calls):
        with limited() as client, TimeoutBudget(2.0), pytest.raises(httpx.ConnectError):
            pipeline.call(client.get, f"http://{LOCALHOST}:{free_port()}")
    rig.tell()

    assert rig.refused()
