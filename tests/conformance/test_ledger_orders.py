"""What a ledger promises of orders about features, whatever database it is in."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import update

from resilience.clock import SystemClock
from resilience.errors import SchemaError
from resilience.events import Event, FeatureOrdered, OrderNotRecorded
from resilience.flags import Feature, Features, Flags, sync_orders
from resilience.flags.document import BROWNOUT, Order
from resilience.flags.intent import follow_edit
from resilience.ledger import Job, Ledger
from resilience.ledger.database import Database
from resilience.ledger.tables import HEAD, ORDERS
from resilience.levels import Level
from resilience.pulse import Pulse
from resilience.store import Store
from resilience.store.flags import KEY, FlagStore
from resilience.store.fleet import StoreFleet
from resilience.testing.valkey import ValkeyProcess
from tests.ledgers import make_ledger, revision_of

FEATURES = (
    Feature("search", level=Level.FAILED),
    Feature("search.ranking", level=Level.REDUCED, cost=0.05),
    Feature("search.spelling", level=Level.STALE, cost=0.01),
)
WHO: dict[str, Any] = {"actor": "ann", "reason": "too slow"}
# Neither ASCII nor what a view may take as its own; longer than MariaDB has an index for.
ODD = "Ünsal [#471] 🜚 \\ % ' " + "x" * 300


def order(version: int, state: str = "off", **changes: object) -> Order:
    """Return an order that a document of *version* made."""
    values = {"state": state, "until": 2e9 + version, "at": 1e9, "version": version, **WHO}
    return Order.model_validate(values | changes)


def brownout(version: int, level: Level) -> Order:
    """Return an order of a brownout."""
    return Order(state=level, until=2e9, at=1e9, version=version, **WHO)


class Process:
    """One process of a fleet whose orders a ledger keeps."""

    def __init__(self, url: str, namespace: str, ledger: Ledger) -> None:
        self.said: list[Event] = []
        self.ledger = ledger
        self.store = Store(url, namespace=namespace, timeout_seconds=5.0)
        self.pulse = Pulse(StoreFleet(self.store))
        self.flags = Flags(
            Features(FEATURES, []),
            self.pulse,
            FlagStore(self.store),
            keep=ledger.orders.keep,
            listeners=[self.said.append],
        )

    def off(self) -> list[str]:
        """Ask the store, and return what is off."""
        self.pulse.refresh()
        return [one.name for one in FEATURES if not self.flags.enabled(one.name)]

    def restore(self) -> None:
        """Do what the worker that leads does when the store has lost its document."""
        sync_orders(self.flags, self.ledger.orders)


class Fleet:
    """Makes processes that share a store, and takes the document away from them."""

    def __init__(self, url: str, ledger: Ledger) -> None:
        self._url, self._namespace, self._ledger = url, uuid4().hex, ledger
        self.made: list[Process] = []

    def process(self, ledger: Ledger | None = None) -> Process:
        """Return one more process, which knows nothing yet."""
        self.made.append(Process(self._url, self._namespace, ledger or self._ledger))
        return self.made[-1]

    def set(self, text: bytes | None) -> bytes | None:
        """Put *text* in place of the document; None: there is none. Return what was there."""
        client, key = self.made[0].store.client, self.made[0].store.key(KEY)
        before: bytes | None = client.get(key)  # type: ignore[assignment]
        client.delete(key) if text is None else client.set(key, text)
        return before


@pytest.fixture
def fleet(valkey: ValkeyProcess, ledger: Ledger) -> Iterator[Fleet]:
    """A fleet of its own."""
    made = Fleet(valkey.url, ledger)
    yield made
    for one in made.made:
        one.store.client.close()


def test_orders_come_back_as_they_were_given(ledger: Ledger) -> None:
    """Every field of both kinds of order survives, and each feature has its own last order."""
    odd = order(2**43, "auto", actor=ODD, reason=ODD, until=1.5e9 + 1e-6)
    shed = brownout(9, Level.REDUCED)
    given: dict[str, Order] = {"search": order(7), "ranking": odd, BROWNOUT: shed}
    for name, one in given.items():
        ledger.orders.keep(name, one)
    assert ledger.orders.latest() == given


def test_order_is_kept_once_and_never_changed(ledger: Ledger) -> None:
    """Keeping it again is harmless, whoever does it and whatever he believes that it was."""
    ledger.orders.keep("search", order(7))
    ledger.orders.keep("search", order(7))
    ledger.orders.keep("search", order(7, "on", reason="forged"))
    assert ledger.orders.history("search") == [order(7)]


def test_orders_of_another_namespace_are_not_ours(ledger: Ledger, ledger_url: str) -> None:
    """Two apps may share a ledger, as those do that start in one directory."""
    other = Ledger(ledger_url, timeout_seconds=5.0, namespace="other")
    ledger.orders.keep("search", order(7))
    other.orders.keep("search", order(7, "on"))
    assert ledger.orders.latest() == {"search": order(7)}
    assert other.orders.latest() == {"search": order(7, "on")}
    assert other.orders.history("search") == [order(7, "on")]
    other.close()


def test_history_is_newest_first_and_of_one_feature(ledger: Ledger) -> None:
    """It goes by version: an order that was kept late stands where it was given."""
    for version in (1, 3, 2):
        ledger.orders.keep("search", order(version))
    ledger.orders.keep("Search", order(4))
    assert [one.version for one in ledger.orders.history("search")] == [3, 2, 1]
    assert [one.version for one in ledger.orders.history("search", limit=2)] == [3, 2]
    assert ledger.orders.latest()["search"].version == 3


def test_row_that_is_no_order_is_left_out(ledger: Ledger, ledger_url: str) -> None:
    """What somebody has written into the table by hand stops nobody."""
    for name, version in [("search", 1), ("search", 2), ("search.ranking", 3)]:
        ledger.orders.keep(name, order(version))
    other = database(ledger_url)
    other.change(update(ORDERS).where(ORDERS.c.version == 2), {"order": "perhaps"})
    other.close()
    assert ledger.orders.history("search") == [order(1)]
    assert ledger.orders.latest() == {"search.ranking": order(3)}


def test_orders_come_back_after_a_flush(fleet: Fleet) -> None:
    """A store that has lost all gets the last orders again, from a process that knows nothing."""
    ann = fleet.process()
    ann.flags.order("search", "off", **WHO)
    ann.flags.order("search", "on", **WHO)
    given = ann.flags.order("search.ranking", "off", **WHO)
    assert fleet.set(None)

    bob = fleet.process()
    bob.restore()

    assert bob.off() == ["search.ranking"]
    assert bob.flags.document.orders["search.ranking"] == given


def test_order_that_is_over_stays_over_after_a_flush(fleet: Fleet) -> None:
    """Restoring brings no order back that has ended, by itself or by another order."""
    ann = fleet.process()
    ann.flags.order("search.spelling", "off", seconds=0.001, **WHO)
    ann.flags.order("search.ranking", "off", **WHO)
    ann.flags.order("search.ranking", "auto", **WHO)
    fleet.set(None)
    fleet.process().restore()
    assert ann.off() == []


def test_brownout_comes_back_with_what_it_sheds(fleet: Fleet) -> None:
    """After it the controller can restore the features one by one, as if nothing had been lost."""
    ann = fleet.process()
    ann.flags.brownout(Level.REDUCED, **WHO)
    before = list(ann.flags.document.shed)
    fleet.set(None)

    bob = fleet.process()
    bob.restore()

    assert bob.off() == ["search.ranking", "search.spelling"]
    assert list(bob.flags.document.shed) == before
    bob.flags.brownout(Level.FULL, **WHO)
    fleet.set(None)
    fleet.process().restore()
    assert ann.off() == []


def test_older_copy_of_the_store_takes_no_order_back(fleet: Fleet) -> None:
    """A store that was restored from a backup learns of the orders that came after it."""
    ann = fleet.process()
    ann.flags.order("search", "off", **WHO)
    backup = fleet.set(b"")
    fleet.set(backup)
    ann.flags.order("search", "auto", **WHO)
    ann.flags.order("search.ranking", "off", **WHO)
    fleet.set(backup)

    bob = fleet.process()
    assert bob.off() == ["search"]
    bob.restore()
    assert bob.off() == ["search.ranking"]
    last = bob.flags.order("search.spelling", "off", **WHO)
    assert last.version > max(one.version for one in ann.ledger.orders.history("search.ranking"))


def test_order_after_a_flush_is_newer_than_all_before(fleet: Fleet) -> None:
    """Also one of a process that knows nothing, before anybody has restored the others."""
    fleet.process().flags.order("search", "off", **WHO)
    ann = fleet.process()
    for _ in range(3):
        ann.flags.order("search.ranking", "off", **WHO)
    fleet.set(None)

    fleet.process().flags.order("search.ranking", "on", **WHO)
    bob = fleet.process()
    bob.restore()

    assert bob.off() == ["search"]
    history = bob.ledger.orders.history("search.ranking")
    assert [getattr(one, "state", "") for one in history] == ["on", "off", "off", "off"]


def test_restoring_changes_nothing_where_nothing_is_lost(fleet: Fleet) -> None:
    """The worker that leads may call it as often as it likes."""
    ann = fleet.process()
    ann.flags.order("search", "off", **WHO)
    before = fleet.set(b"")
    fleet.set(before)
    ann.restore()
    fleet.process().restore()
    assert fleet.set(None) == before


def test_orders_of_a_flag_provider_stay_out_of_the_ledger(fleet: Fleet) -> None:
    """It gives them again, every few minutes; those of people are kept beside them."""
    ann = fleet.process()
    ann.flags.order("search", "off", **WHO)
    ann.flags.change(follow_edit({"search.ranking": "off"}, "a provider"))
    assert ann.off() == ["search", "search.ranking"]
    ann.restore()
    assert list(ann.ledger.orders.latest()) == ["search"]
    fleet.set(None)
    bob = fleet.process()
    bob.restore()
    assert bob.off() == ["search"]


def test_order_that_the_ledger_lacks_is_kept_later(
    fleet: Fleet, ledger: Ledger, tmp_path: Path
) -> None:
    """A ledger that was down takes no order back: it is in force, announced, and kept later."""
    away = Ledger(f"sqlite:///{tmp_path}/missing/ledger.db", timeout_seconds=0.2)
    ann = fleet.process(away)
    given = ann.flags.order("search", "off", **WHO)
    shed = ann.flags.brownout(Level.STALE, **WHO)
    assert [type(one) for one in ann.said if isinstance(one, OrderNotRecorded)] == [
        OrderNotRecorded
    ] * 2
    assert isinstance(ann.said[0], FeatureOrdered)

    bob = fleet.process()
    assert bob.off() == ["search", "search.spelling"]
    bob.restore()
    assert ledger.orders.latest() == {"search": given, BROWNOUT: shed}


def database(url: str) -> Database:
    """Return the database at *url*."""
    return Database(url, timeout_seconds=5.0, clock=SystemClock())


def test_ledger_of_schema_0002_says_what_to_run_and_is_upgraded(
    ledger_url: str, valkey: ValkeyProcess
) -> None:
    """Until then orders are in force and announced as not kept; what it holds stays."""
    make_ledger(ledger_url, "0002")
    ledger = Ledger(ledger_url, timeout_seconds=5.0)
    fleet = Fleet(valkey.url, ledger)
    ann = fleet.process()
    given = ann.flags.order("search", "off", **WHO)
    [unkept] = [one for one in ann.said if isinstance(one, OrderNotRecorded)]
    assert "has schema 0002, 0005 is needed; run: celery -A <app> resilience ledger upgrade" in (
        unkept.error
    )
    with pytest.raises(SchemaError, match="resilience ledger upgrade"):
        ann.restore()
    assert ann.off() == ["search"]

    ledger.upgrade()
    ann.restore()

    assert ledger.orders.history("search") == [given]
    ledger.add([Job(id="1", task="t", dependency="d", queue="q", message="{}")])
    assert revision_of(ledger_url) == HEAD
    ledger.close()
    ann.store.client.close()
