"""A worker goes on when its broker is back; `make chaos` has all cases, and a table of them."""

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from resilience.testing.plugin import running_valkey
from resilience.testing.valkey import ValkeyProcess
from tests.brokers import Broker, Rabbit, Valkey
from tests.chaos.outages import Place, Site

RESUMED_SECONDS = 10.0
AWAY_SECONDS = 2.0
JOBS = 40


@pytest.fixture
def valkeys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Broker]]:
    """Two servers that no other test uses."""
    with ExitStack() as stack:
        yield [Valkey(stack.enter_context(running_valkey(tmp_path_factory))) for _ in range(2)]


@pytest.mark.parametrize("kind", ["valkey", pytest.param("rabbitmq", marks=pytest.mark.long)])
def test_worker_goes_on_when_its_connections_are_forgotten(
    kind: str, request: pytest.FixtureRequest, valkey: ValkeyProcess, tmp_path: Path
) -> None:
    """As behind a firewall that drops them without a word; new ones work.

    What RabbitMQ sent over an old one runs when RabbitMQ gives that up, half a minute later.
    """
    broker: Broker = (
        request.getfixturevalue("valkeys")[0]
        if kind == "valkey"
        else Rabbit(request.getfixturevalue("rabbitmq"))
    )
    place = Place(broker)
    site = Site(tmp_path, place.behind_proxy, valkey.url)
    with site.working() as worker:
        verdict = site.endure(worker, place.forget, forgets=kind == "rabbitmq", jobs=JOBS)
    place.proxy.close()
    assert verdict.resumed_seconds <= RESUMED_SECONDS
    assert not verdict.lost


def test_worker_leaves_nothing_held_when_its_broker_was_away(
    valkeys: list[Broker], valkey: ValkeyProcess, tmp_path: Path
) -> None:
    """Jobs that end meanwhile are acknowledged later, and keep no place for ever."""
    place = Place(valkeys[0])
    site = Site(tmp_path, place.first.url, valkey.url)
    with site.working() as worker:
        verdict = site.endure(worker, partial(place.restart, AWAY_SECONDS), jobs=JOBS)
        site.await_settled(place.first)
    place.proxy.close()
    assert verdict.resumed_seconds <= RESUMED_SECONDS
    assert not verdict.lost
    assert not verdict.gone


@pytest.mark.long
def test_worker_goes_to_the_other_address_when_its_broker_is_gone(
    valkeys: list[Broker], valkey: ValkeyProcess, tmp_path: Path
) -> None:
    """Of two that `broker_url` names; so do publishers."""
    place = Place(*valkeys)
    site = Site(tmp_path, place.both, valkey.url)
    with site.working() as worker:
        verdict = site.endure(worker, place.fail, forgets=True, jobs=JOBS)
    place.proxy.close()
    assert verdict.resumed_seconds <= RESUMED_SECONDS
    assert not verdict.lost
