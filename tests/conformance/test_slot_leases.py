"""What the store promises of slots, whoever asks: the fleet's line, which no process sees."""

import asyncio
from time import perf_counter
from uuid import uuid4

import pytest

from resilience.store import Store
from resilience.store import slots as module
from resilience.store.slots import SlotStore
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until

LONG_SECONDS = 20.0


@pytest.fixture
def store(valkey: ValkeyProcess) -> Store:
    """An empty store."""
    return Store(valkey.url, namespace=uuid4().hex, timeout_seconds=10)


@pytest.fixture
def slots(store: Store) -> SlotStore:
    """Slots that nobody has taken."""
    return SlotStore(store)


def test_no_more_leases_are_granted_than_there_are_slots(slots: SlotStore) -> None:
    """Who comes too late hears when a lease may end; who asks again keeps the one that it has."""
    assert slots.take("users", "ann", 2) is None
    assert slots.take("users", "ben", 2) is None

    left = slots.take("users", "cem", 2)
    assert left is not None
    assert 0 < left <= 5.0
    assert slots.take("users", "ann", 2) is None


def test_slot_that_comes_free_is_for_who_came_first(slots: SlotStore) -> None:
    """Nobody overtakes who stands in line, however often they ask."""
    slots.take("users", "ann", 1)
    for who in ("ben", "cem", "cem", "ben"):
        assert slots.take("users", who, 1) is not None

    assert slots.leave("users", "ann", 1)

    assert slots.take("users", "cem", 1) is not None
    assert slots.take("users", "ben", 1) is None


def test_who_is_next_in_line_is_woken(slots: SlotStore) -> None:
    """A call that dozes gets up when its slot comes free, not when its time is up."""
    slots.take("users", "ann", 1)
    slots.take("users", "ben", 1)
    slots.leave("users", "ann", 1)

    began = perf_counter()
    slots.doze("users", "ben", LONG_SECONDS)

    assert perf_counter() - began < LONG_SECONDS / 2


def test_lease_that_nobody_renews_ends(slots: SlotStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slot of a killed process is free for others; it cannot be given back any more."""
    monkeypatch.setattr(module, "LEASE_SECONDS", 0.05)
    slots.take("users", "ann", 2)
    monkeypatch.setattr(module, "LEASE_SECONDS", 60.0)
    slots.take("users", "ben", 2)

    wait_until(lambda: slots.take("users", "cem", 2) is None, LONG_SECONDS, "the lease has ended")
    assert not slots.leave("users", "ann", 2)


def test_renewed_lease_ends_later(slots: SlotStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that runs keeps its slot; one that was lost is taken again if there is room."""
    monkeypatch.setattr(module, "LEASE_SECONDS", 60.0)
    slots.take("users", "ann", 1)
    monkeypatch.setattr(module, "LEASE_SECONDS", 600.0)

    assert slots.renew([("users", "ann", 1), ("users", "ben", 1), ("mail", "ben", 1)]) == [1, 0, 2]

    for dependency in ("users", "mail"):
        left = slots.take(dependency, "cem", 1)
        assert left is not None
        assert left > 500


def test_place_in_line_is_gone_once_there_is_a_slot(slots: SlotStore, store: Store) -> None:
    """Who got a slot after a wait stands in nobody's way."""
    slots.take("users", "ann", 1)
    slots.take("users", "ben", 1)
    slots.leave("users", "ann", 1)

    assert slots.take("users", "ben", 1) is None

    line = [store.key("slots", "users", part) for part in ("line", "alive")]
    assert not store.client.exists(*line)


def test_server_that_forgot_the_scripts_is_told_again(slots: SlotStore, store: Store) -> None:
    """A server that was started anew counts from the first call on, whatever names have in them."""
    for step in (slots.take, slots.leave):
        store.client.script_flush()
        assert step("größe\r\n$1", "änn", 1) is not False
    store.client.script_flush()

    assert asyncio.run(slots.take_async("größe\r\n$1", "ben", 1)) is None
    assert slots.leave("größe\r\n$1", "ben", 1)
