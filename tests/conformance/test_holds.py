"""Orders to hold queues, kept in a real store: who hears of them, and what a lost store means."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from resilience.bulkhead import Holds, Spares
from resilience.errors import ConfigurationError, StoreUnavailableError
from resilience.events import Event, QueueHeld, QueueReleased
from resilience.pulse import Pulse
from resilience.store import Store
from resilience.store.fleet import StoreFleet
from resilience.testing.plugin import running_valkey
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyProcess]:
    """A server that tests may stop."""
    with running_valkey(tmp_path_factory) as running:
        yield running


class Someone:
    """One process of the fleet."""

    def __init__(self, server: ValkeyProcess, namespace: str) -> None:
        self.said: list[Event] = []
        self.store = Store(server.url, namespace=namespace, timeout_seconds=0.5)
        self.pulse = Pulse(StoreFleet(self.store))
        self.holds = Holds(self.store, time=self.pulse.refresh, listeners=[self.said.append])

    def held(self, name: str, *, later: float = 0.0) -> bool:
        """Tell whether *name* is held so many seconds from now, as far as this process knows."""
        return self.holds.known(name, self.pulse.time(older=1e9) + later) is not None


@pytest.fixture
def two(server: ValkeyProcess) -> Iterator[tuple[Someone, Someone]]:
    """Two processes of a fleet of their own."""
    if not server.running:
        server.start()
    namespace = uuid4().hex
    made = Someone(server, namespace), Someone(server, namespace)
    yield made
    for one in made:
        one.store.client.close()


def test_order_reaches_others_with_who_and_why(two: tuple[Someone, Someone]) -> None:
    """What one process orders another one knows after a look; each order is announced once."""
    ann, other = two
    ann.holds.hold("mail", seconds=60, actor="ann", reason="moving")
    assert not other.held("mail")
    other.holds.look()
    assert other.held("mail")
    assert not other.held("mail", later=61)
    known = other.holds.all()["mail"]
    assert (known.actor, known.reason) == ("ann", "moving")
    assert other.holds.release("mail", actor="bob", reason="moved")
    ann.holds.look()
    assert not ann.held("mail")
    assert [type(one) for one in ann.said + other.said] == [QueueHeld, QueueReleased]
    assert not ann.holds.release("mail", actor="bob", reason="moved")


def test_order_ends_by_itself_and_is_cleared_away(two: tuple[Someone, Someone]) -> None:
    """Nobody has to remember to lift it."""
    ann, other = two
    ann.holds.hold("mail", seconds=0.2, actor="ann", reason="test")
    wait_until(lambda: not other.holds.all(), 10, "it has ended")
    key = ann.store.key("holds")
    assert not ann.store.run(lambda client: client.exists(key))


def test_last_known_orders_stay_in_force_while_the_store_is_down(
    server: ValkeyProcess, two: tuple[Someone, Someone]
) -> None:
    """Until they expire; an order that does not reach the fleet is an error."""
    ann, other = two
    ann.holds.hold("mail", seconds=60, actor="ann", reason="test")
    other.pulse.refresh()
    other.holds.look()
    server.kill()
    other.holds.look()
    assert other.held("mail")
    assert not other.held("mail", later=61)
    with pytest.raises(StoreUnavailableError):
        ann.holds.hold("bank", seconds=60, actor="ann", reason="test")
    with pytest.raises(StoreUnavailableError):
        ann.holds.release("mail", actor="ann", reason="test")
    server.start()
    wait_until(lambda: _answers(other), 10, "the store is back")
    other.holds.look()
    assert other.held("mail")


def test_order_that_another_version_wrote_holds_nothing(two: tuple[Someone, Someone]) -> None:
    """What cannot be read is left out, and cleared away with the next order."""
    ann, _ = two
    key = ann.store.key("holds")
    ann.store.run(lambda client: client.hset(key, "mail", "[1]"))
    ann.holds.look()
    assert not ann.held("mail")
    assert not ann.holds.all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"seconds": 0.0}, "0.0"),
        ({"seconds": float("inf")}, "inf"),
        ({"actor": " "}, "' '"),
        ({"reason": ""}, "''"),
    ],
)
def test_order_that_makes_no_sense_is_refused(
    two: tuple[Someone, Someone], options: dict[str, Any], said: str
) -> None:
    """The message names the value."""
    with pytest.raises(ConfigurationError, match=said):
        two[0].holds.hold("mail", **{"seconds": 60, "actor": "ann", "reason": "test", **options})


def _answers(one: Someone) -> bool:
    try:
        return bool(one.store.run(lambda client: client.ping()))
    except StoreUnavailableError:
        return False


def test_job_that_fails_as_a_probe_is_spared_for_an_hour(two: tuple[Someone, Someone]) -> None:
    """Whoever asks, from the first time on; then it fails as any other."""
    ann, other = (Spares(one.store) for one in two)
    assert ann.spare("a")
    assert other.spare("a")
    key = two[0].store.key("spared", "a")
    # As the server's clock cannot be turned, turn back the end of the key's life of two hours.
    for minutes, spared in ((59, True), (60, False)):
        two[0].store.run(lambda client, left=120 - minutes: client.expire(key, 60 * left))
        assert other.spare("a") is spared
    assert other.spare("b")
