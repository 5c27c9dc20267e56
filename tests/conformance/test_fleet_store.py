"""What only the fleet that lives in a store can promise: keys that expire, scripts that return."""

import asyncio
from collections.abc import Iterator
from uuid import uuid4

import pytest

from resilience.store import Store
from resilience.store.fleet import Probes, StoreFleet, Window
from resilience.testing.plugin import running_valkey
from resilience.testing.valkey import ValkeyProcess
from tests.conformance.asking import NAME, circuit, end, seen, swap, take, tell, window

SECONDS = 120
KEYS = [("circuits",), ("told",), ("window", NAME), ("probes", NAME)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyProcess]:
    """A server that may be restarted and flushed."""
    with running_valkey(tmp_path_factory) as running:
        yield running


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
    """Nothing stays of an app that is gone, and a window goes soon after its last second."""
    exercise(StoreFleet(store))

    client = server.client()
    lives = {key: client.ttl(key) for key in client.keys(store.key("*"))}
    assert set(lives) == {store.key(*key).encode() for key in KEYS}
    assert 0 < lives.pop(store.key("window", NAME).encode()) <= 61
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


def test_fleets_of_two_namespaces_do_not_meet(server: ValkeyProcess, store: Store) -> None:
    """Two apps on one server have circuits each."""
    other = StoreFleet(Store(server.url, namespace=uuid4().hex, timeout_seconds=SECONDS))
    exercise(StoreFleet(store))

    assert not tell(other.ask).circuits
    assert window(other.ask, seen(ok=1)).calls == 1
