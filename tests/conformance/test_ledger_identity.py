"""How processes find out that they have different ledgers."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from resilience.ledger import Ledger
from resilience.store import Store
from resilience.store.ledgers import Ledgers
from resilience.testing.valkey import ValkeyProcess

HERE = {"ledger": "a", "host": "one", "place": "file on one"}
COPY = {"ledger": "a", "host": "two", "place": "file on two"}
OTHER = {"ledger": "b", "host": "", "place": "server"}


@pytest.fixture
def ledgers(valkey: ValkeyProcess) -> Iterator[Ledgers]:
    """What processes agree on in a store that knows nothing yet."""
    store = Store(valkey.url, namespace=uuid4().hex, timeout_seconds=5.0)
    yield Ledgers(store)
    store.client.close()


def test_identity_is_made_with_the_schema_and_stays(ledger: Ledger, ledger_url: str) -> None:
    """Every process finds the same, on every database."""
    ledger.upgrade()
    again = Ledger(ledger_url, timeout_seconds=5.0)

    assert ledger.identity() == again.identity()
    assert len(ledger.identity().id) == 32
    assert bool(ledger.identity().host) == ledger_url.startswith("sqlite")
    again.close()


def test_first_ledger_is_the_one_and_a_second_changes_nothing(ledgers: Ledgers) -> None:
    """However often it joins; the queues that both may keep jobs of are named."""
    assert ledgers.compare(["q", "r"], **HERE, mode="join") == {}
    assert ledgers.compare(["r", "s"], **OTHER, mode="join") == {"r": "file on one"}
    assert ledgers.compare(["s"], **HERE, mode="look") == {}
    assert ledgers.compare(["q", "r"], **HERE, mode="join") == {}


def test_two_apps_on_one_store_may_have_a_ledger_each(ledgers: Ledgers) -> None:
    """As long as they share no queue: no job could be in the wrong one."""
    assert ledgers.compare(["q"], **HERE, mode="join") == {}
    assert ledgers.compare(["r"], **OTHER, mode="join") == {}


def test_looking_leaves_no_trace(ledgers: Ledgers) -> None:
    """A publisher in the wrong directory keeps no worker from starting."""
    assert ledgers.compare(["q"], **OTHER, mode="look") == {}
    assert ledgers.compare(["q"], **HERE, mode="join") == {}


def test_copied_file_on_another_host_is_a_second_ledger(ledgers: Ledgers) -> None:
    """It has the same identity; jobs that one host keeps are not in the other's file."""
    assert ledgers.compare(["q"], **HERE, mode="join") == {}
    assert ledgers.compare(["q"], **COPY, mode="join") == {"q": "file on one"}


def test_host_that_was_started_again_goes_on(ledgers: Ledgers, valkey: ValkeyProcess) -> None:
    """Its former self has not joined for half a minute."""
    assert ledgers.compare(["q"], **HERE, mode="join") == {}
    key = ledgers._store.key("ledgers")  # noqa: SLF001 - time cannot be moved otherwise
    client = ledgers._store.client  # noqa: SLF001 - as above
    client.hset(key, "q", '{"id": "a", "host": "one", "place": "x", "seen": 1}')

    assert ledgers.compare(["q"], **COPY, mode="join") == {}
    assert valkey.running


def test_accepted_ledger_makes_the_former_one_the_second(ledgers: Ledgers) -> None:
    """For a ledger that was replaced on purpose."""
    assert ledgers.compare(["q"], **HERE, mode="join") == {}
    ledgers.compare(["q"], **OTHER, mode="accept")

    assert ledgers.compare(["q"], **OTHER, mode="join") == {}
    assert ledgers.compare(["q"], **HERE, mode="join") == {"q": "server"}


def test_record_that_cannot_be_read_is_made_anew(ledgers: Ledgers) -> None:
    """The store may hold anything."""
    client, key = ledgers._store.client, ledgers._store.key("ledgers")  # noqa: SLF001 - as above
    for text in ("{", "[]", '{"id": 7}', '"text"'):
        client.hset(key, "q", text)
        ledgers.compare(["q"], **HERE, mode="accept")
        assert ledgers.compare(["q"], **HERE, mode="join") == {}
