"""What only the fleet that lives in a store can promise: keys that expire, scripts that return."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import cast
from uuid import uuid4

import pytest

from resilience.store import Store
from resilience.store.fleet import Probes, StoreFleet, Window
from resilience.testing.valkey import ValkeyProcess
from tests.conformance.asking import NAME, circuit, end, seen, swap, take, tell, window

SECONDS = 120
KEYS = [("circuits",), ("told",), ("windows",), ("probes", NAME)]


@pytest.fixture
def store(server: ValkeyProcess) -> Iterator[Store]:
    """A namespace of its own."""
    made = Store(server.url, namespace=uuid4().hex, timeout_seconds=SECONDS)
    yield made
    made.client.close()


def exercise(fleet: StoreFleet) -> None:
    """Ask every question once."""
    swap(fleet.ask, None, circuit(1))
    window(fleet.ask, seen(generation=1, ok=1, failed=1))
    take(fleet.ask, "a")
    end(fleet.ask, "a")


def test_every_key_expires(server: ValkeyProcess, store: Store) -> None:
    """Nothing stays of an app that is gone."""
    exercise(StoreFleet(store))

    client = server.client()
    lives = {key: client.ttl(key) for key in client.keys(store.key("*"))}
    assert set(lives) == {store.key(*key).encode() for key in KEYS}
    assert all(0 < life <= 86_400 for life in lives.values())


@pytest.mark.parametrize("forget", ["script-flush", "restart"])
def test_scripts_are_loaded_again(server: ValkeyProcess, store: Store, forget: str) -> None:
    """A server that forgot the scripts is taught them again, by callers of either way."""
    fleet = StoreFleet(store)
    exercise(fleet)

    for way in (fleet.ask, lambda question: asyncio.run(fleet.ask_async(question))):
        if forget == "restart":
            store.client.close()
            server.stop()
            server.start()
        else:
            server.client().script_flush()
        assert window(way, seen(generation=1, ok=1)).calls > 2


def test_flushed_fleet_begins_again(server: ValkeyProcess, store: Store) -> None:
    """After a flush all circuits are closed, of generation 0, and nobody probes an older one."""
    fleet = StoreFleet(store)
    exercise(fleet)
    take(fleet.ask, "b")

    server.flush()

    assert end(fleet.ask, "b", "failed") is None
    assert take(fleet.ask, "c") is None
    assert not swap(fleet.ask, circuit(1), circuit(2))
    assert window(fleet.ask, seen(generation=1, failed=9)) == Window()
    assert window(fleet.ask, seen(failed=1)).failed == 1


@pytest.mark.parametrize("result", ["ok", "failed", "neutral"])
def test_probe_that_ends_after_a_flush_is_not_the_first_of_the_next_circuit(
    server: ValkeyProcess, store: Store, result: str
) -> None:
    """The next circuit may bear the same generation; its own first probe announces half-open."""
    fleet = StoreFleet(store)
    swap(fleet.ask, None, circuit(1))
    take(fleet.ask, "early")
    server.flush()
    swap(fleet.ask, None, circuit(1))

    assert end(fleet.ask, "early", result) is None
    assert take(fleet.ask, "late") == Probes(granted=True, first=True)


def test_circuits_that_something_else_changed_are_sent(server: ValkeyProcess, store: Store) -> None:
    """A flush, a failover to older data, a worker of another version: each is noticed."""
    fleet = StoreFleet(store)
    swap(fleet.ask, None, circuit(1))
    old = tell(fleet.ask)
    swap(fleet.ask, circuit(1), circuit(2))
    new = tell(fleet.ask)

    server.client().hset(store.key("circuits"), NAME, circuit(1).text())
    assert tell(fleet.ask, version=new.version).circuits == old.circuits
    server.flush()
    assert tell(fleet.ask, version=old.version).circuits == {}


@pytest.mark.parametrize("failed", [0, 1])
def test_evidence_of_many_dependencies_is_no_more_commands(
    server: ValkeyProcess, store: Store, failed: int
) -> None:
    """While a process of two hundred dependencies tells of each, all others wait."""
    fleet, client = StoreFleet(store), server.client()

    def commands(dependencies: int) -> Counter[str]:
        names = map(str, range(dependencies))
        told = [replace(seen(generation=0, ok=9, failed=failed), name=name) for name in names]
        tell(fleet.ask, *told)
        client.config_resetstat()
        tell(fleet.ask, *told)
        stats = cast("dict[str, dict[str, int]]", client.info("commandstats"))
        return Counter({name: one["calls"] for name, one in stats.items()})

    assert commands(200) == commands(1)


def test_fleets_of_two_namespaces_do_not_meet(server: ValkeyProcess, store: Store) -> None:
    """Two apps on one server have circuits each."""
    other = StoreFleet(Store(server.url, namespace=uuid4().hex, timeout_seconds=SECONDS))
    exercise(StoreFleet(store))

    assert not tell(other.ask).circuits
    assert window(other.ask, seen(ok=1)).calls == 1
