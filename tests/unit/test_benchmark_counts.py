"""Figures of the benchmarks that count: any machine finds the same, so tests can judge them."""

from collections.abc import Callable, Iterator
from functools import partial

import pytest

from benchmarks.breaker_fleet import join, round_trips, running_server
from benchmarks.figure import Figure
from benchmarks.weight import core_packages
from resilience.breaker import Breaker
from resilience.pulse import Pulse
from resilience.testing.valkey import ValkeyProcess

CALLS = 10_000
PATIENCE = 10.0
"""A pulse that a busy machine delays is not sent again."""


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyProcess]:
    """Run a server that nobody else asks anything."""
    with running_server() as running:
        yield running


def counted(
    server: ValkeyProcess, breaker: Breaker, pulse: Pulse, call: Callable[[], object]
) -> Figure:
    """Return how many round trips *call* takes beside the pulses of *breaker*."""
    call()
    figure, _ = round_trips(breaker.name, call, pulse, server.client(), CALLS)
    return figure


def test_closed_breaker_asks_the_store_nothing_beside_its_pulse(server: ValkeyProcess) -> None:
    """A call is admitted from what the process knows: ten thousand calls, no round trip."""
    breaker, pulse = join(server.url, "closed", timeout_seconds=PATIENCE)

    assert counted(server, breaker, pulse, partial(breaker.call, int)).value == 0


def test_open_breaker_asks_the_store_nothing_beside_its_pulse(server: ValkeyProcess) -> None:
    """A refusal costs no round trip either, however many callers insist."""
    breaker, pulse = join(server.url, "open", timeout_seconds=PATIENCE)
    breaker.force_open(seconds=600.0, actor="test", reason="to be refused")

    assert counted(server, breaker, pulse, breaker.refusal).value == 0


def test_a_question_to_the_store_is_counted(server: ValkeyProcess) -> None:
    """Were it not, the tests above could not fail."""
    breaker, pulse = join(server.url, "asking", timeout_seconds=PATIENCE)
    client, left = server.client(), iter(range(CALLS + 1))
    ask = partial(client.get, "any")

    def call() -> None:
        if next(left) % 1000 == 0:
            ask()

    assert counted(server, breaker, pulse, call).value == CALLS // 1000


def test_core_brings_at_most_fourteen_packages_beside_those_of_celery() -> None:
    """What only a terminal, a supervisor or an exporter needs is an extra."""
    figure = core_packages()

    assert figure.bound == 14
    assert figure.ok, figure.to_json()


@pytest.mark.parametrize(
    ("least", "ok"), [(False, [True, True, False]), (True, [False, True, True])]
)
def test_figure_is_ok_on_the_right_side_of_its_bound(*, least: bool, ok: list[bool]) -> None:
    """A bound is the most that is ok, or the least; as much is ok both times."""
    figures = [
        Figure(name="any", value=value, unit="s", bound=2.0, least=least) for value in (1, 2, 3)
    ]

    assert [figure.ok for figure in figures] == ok
