"""Orders to hold queues, in a real store: how they reach processes, and when the store is down."""

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
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until


class Process:
    """One process of the fleet."""

    def __init__(self, server: ValkeyProcess, namespace: str) -> None:
        self.events: list[Event] = []
        self.store = Store(server.url, namespace=namespace, timeout_seconds=0.5)
        self.pulse = Pulse(StoreFleet(self.store))
        self.later = 0.0
        self.holds = Holds(self.store, time=self._time, listeners=[self.events.append])

    def _time(self) -> float:
        """Return the fleet's time, *later* by so many seconds."""
        return self.pulse.refresh() + self.later

    def held(self, name: str, *, later: float = 0.0) -> bool:
        """Tell whether *name* is held so many seconds from now, as far as this process knows."""
        return self.holds.known(name, self.pulse.time(older=1e9) + later) is not None


@pytest.fixture
def two(server: ValkeyProcess) -> Iterator[tuple[Process, Process]]:
    """Two processes of a new fleet."""
    if not server.running:
        server.start()
    namespace = uuid4().hex
    made = Process(server, namespace), Process(server, namespace)
    yield made
    for one in made:
        one.store.client.close()


def test_order_reaches_others_with_who_and_why(two: tuple[Process, Process]) -> None:
    """Another process knows an order after a look; each order is announced once."""
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
    assert [type(one) for one in ann.events + other.events] == [QueueHeld, QueueReleased]
    assert not ann.holds.release("mail", actor="bob", reason="moved")


def test_order_ends_by_itself_and_is_cleared_away(two: tuple[Process, Process]) -> None:
    """It is in force until then, and nobody has to remember to release the queue."""
    ann, other = two
    key = ann.store.key("holds")
    ann.holds.hold("mail", seconds=3600, actor="ann", reason="test")

    other.later = 3000
    assert list(other.holds.all()) == ["mail"]
    assert ann.store.run(lambda client: client.exists(key))
    other.later = 3600
    assert not other.holds.all()
    assert not other.held("mail")
    assert not ann.store.run(lambda client: client.exists(key))


def test_clearing_what_has_ended_leaves_all_else(two: tuple[Process, Process]) -> None:
    """An order in force stays, and so does one that workers of another version may obey.

    Whoever releases its name clears that away, too.
    """
    ann, other = two
    key = ann.store.key("holds")
    ann.store.run(lambda client: client.hset(key, "bank", "[1]"))
    ann.holds.hold("users", seconds=3600, actor="ann", reason="test")
    ann.holds.hold("mail", seconds=30, actor="ann", reason="test")

    def names() -> set[bytes]:
        return set(ann.store.run(lambda client: client.hkeys(key)))

    other.later = 30
    assert list(other.holds.all()) == ["users"]
    assert names() == {b"bank", b"users"}
    ann.holds.release("bank", actor="ann", reason="test")
    assert names() == {b"users"}


def test_last_known_orders_stay_in_force_while_the_store_is_down(
    server: ValkeyProcess, two: tuple[Process, Process]
) -> None:
    """They do so until they expire; an order that does not reach the fleet is an error."""
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


def test_order_that_another_version_wrote_holds_nothing(two: tuple[Process, Process]) -> None:
    """An order that cannot be read counts for nothing; the next one for its name replaces it."""
    ann, other = two
    key = ann.store.key("holds")
    ann.store.run(lambda client: client.hset(key, "mail", "[1]"))
    ann.holds.look()
    assert not ann.held("mail")
    assert not ann.holds.all()
    ann.holds.hold("mail", seconds=60, actor="ann", reason="test")
    assert list(other.holds.all()) == ["mail"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"seconds": 0.0}, "0.0"),
        ({"seconds": float("inf")}, "inf"),
        ({"actor": " "}, "' '"),
        ({"reason": ""}, "''"),
    ],
)
def test_order_that_makes_no_sense_is_refused(
    two: tuple[Process, Process], options: dict[str, Any], named: str
) -> None:
    """The message names the value."""
    with pytest.raises(ConfigurationError, match=named):
        two[0].holds.hold("mail", **{"seconds": 60, "actor": "ann", "reason": "test", **options})


def _answers(one: Process) -> bool:
    try:
        return bool(one.store.run(lambda client: client.ping()))
    except StoreUnavailableError:
        return False


def test_job_that_fails_as_a_probe_is_spared_for_an_hour(two: tuple[Process, Process]) -> None:
    """The hour begins with the first question of any process; then it fails as any other."""
    ann, other = (Spares(one.store) for one in two)
    assert ann.spare("a")
    assert other.spare("a")
    key = two[0].store.key("spared", "a")
    # The server's clock cannot be moved: instead, shorten the two hours that the key has to live.
    for minutes, spared in ((59, True), (60, False)):
        two[0].store.run(lambda client, left=120 - minutes: client.expire(key, 60 * left))
        assert other.spare("a") is spared
    assert other.spare("b")
