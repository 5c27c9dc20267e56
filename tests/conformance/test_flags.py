"""Flags of a fleet, kept in a real store: who hears of orders, and what a lost store means."""

import asyncio
from collections.abc import Iterator
from uuid import uuid4

import pytest

from resilience.clock import SystemClock
from resilience.errors import ConfigurationError, OrderConflictError, StoreUnavailableError
from resilience.events import Event, FeatureOrdered, FlagMisused, FlagsLost
from resilience.flags import Decision, Feature, Features, Flags, Source
from resilience.levels import Level
from resilience.pulse import Pulse
from resilience.store import Store
from resilience.store.flags import KEY, FlagStore
from resilience.store.fleet import StoreFleet
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.unit.hand_clock import HandClock

FEATURES = (
    Feature("search", level=Level.FAILED),
    Feature("search.ranking", level=Level.REDUCED, cost=0.05),
    Feature("search.spelling", level=Level.STALE, cost=0.01),
    Feature("beta", level=Level.REDUCED, default=False),
)
WHO = {"actor": "ann", "reason": "too slow"}


class Clock:
    """Real time and what the test adds to it."""

    added = 0.0

    def monotonic(self) -> float:
        """Return seconds that only move forward."""
        return SystemClock.monotonic() + self.added

    def now(self) -> float:
        """Return seconds since the epoch."""
        return SystemClock.now() + self.added


class Someone:
    """One process of the fleet."""

    def __init__(
        self, server: ValkeyProcess, namespace: str, clock: Clock | HandClock | None = None
    ) -> None:
        self.said: list[Event] = []
        self.clock = clock or Clock()
        self.store = Store(server.url, namespace=namespace, timeout_seconds=0.5)
        self.pulse = Pulse(StoreFleet(self.store), clock=self.clock)
        self.flags = Flags(
            Features(FEATURES, []),
            self.pulse,
            FlagStore(self.store),
            listeners=[self.said.append],
            clock=self.clock,
        )

    def looks(self) -> dict[str, bool]:
        """Ask the store, and return what is on."""
        self.pulse.refresh()
        return {one.name: self.flags.enabled(one.name) for one in FEATURES}

    def decision(self, name: str) -> Decision:
        """Ask the store, and return what is decided."""
        self.pulse.refresh()
        return self.flags.decide(name)


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


DEFAULTS = {"search": True, "search.ranking": True, "search.spelling": True, "beta": False}


def test_defaults_hold_while_nobody_has_ordered_anything(two: tuple[Someone, Someone]) -> None:
    """Without any order a feature is as it was declared."""
    assert two[0].looks() == DEFAULTS


def test_order_reaches_others_with_who_and_why(two: tuple[Someone, Someone]) -> None:
    """What one process orders another one follows, and knows until when; announced once."""
    ann, other = two
    ann.flags.order("search.ranking", "off", seconds=60, **WHO)
    assert other.looks() == {**DEFAULTS, "search.ranking": False}
    found = other.decision("search.ranking")
    assert (found.source, found.reason, found.level) == (Source.ORDER, "too slow", Level.REDUCED)
    assert [type(one) for one in (*ann.said, *other.said)] == [FeatureOrdered]


@pytest.mark.parametrize(
    ("age_seconds", "enabled"),
    [pytest.param(0.99, True, id="fresh"), pytest.param(1.01, False, id="stale")],
)
def test_event_loop_asks_before_it_answers_once_a_second_has_passed(
    server: ValkeyProcess, age_seconds: float, *, enabled: bool
) -> None:
    """A plain question blocks no event loop, unless what is known is over a second old."""
    namespace, clock = uuid4().hex, HandClock()
    ann, idle = Someone(server, namespace), Someone(server, namespace, clock)

    async def ask() -> bool:
        assert idle.flags.enabled("search.ranking")
        ann.flags.order("search.ranking", "off", seconds=60, **WHO)
        clock.advance(age_seconds)
        return idle.flags.enabled("search.ranking")

    assert asyncio.run(ask()) is enabled
    for one in (ann, idle):
        one.store.client.close()


def test_order_ends_by_itself(two: tuple[Someone, Someone]) -> None:
    """An order is over when its time is, by the fleet's clock and not by a host's."""
    ann, other = two
    ann.flags.order("search.ranking", "off", seconds=0.3, **WHO)
    other.looks()
    wait_until(lambda: other.flags.enabled("search.ranking"), 20, "the order is over")
    ann.flags.order("search.ranking", "off", seconds=60, **WHO)
    assert not other.looks()["search.ranking"]
    other.clock.added += 61
    assert not other.flags.enabled("search.ranking")


def test_auto_ends_an_order(two: tuple[Someone, Someone]) -> None:
    """`auto` leaves a feature to its default and the rules again."""
    ann, other = two
    ann.flags.order("beta", "on", seconds=60, **WHO)
    assert other.looks()["beta"]
    ann.flags.order("beta", "auto", **WHO)
    assert other.looks() == DEFAULTS


def test_order_on_what_is_out_of_date_does_nothing(two: tuple[Someone, Someone]) -> None:
    """An order that names what its giver saw is refused if somebody was faster, and says who."""
    ann, other = two
    first = ann.flags.order("search", "off", actor="ann", reason="sale", seconds=60)
    ann.flags.order("beta", "on", **WHO)  # another feature's, which is no conflict
    other.flags.order("search", "on", actor="bob", reason="no", seconds=60, seen=first.version)
    with pytest.raises(OrderConflictError, match=r"search: bob has given another order .*\(no\)"):
        ann.flags.order("search", "off", **WHO, seen=first.version)
    assert ann.looks()["search"]


def test_brownout_sheds_features_up_to_its_level(two: tuple[Someone, Someone]) -> None:
    """`brownout 2` sheds what costs answers at most level 2; an order for one feature wins."""
    ann, other = two
    ann.flags.order("search.spelling", "on", **WHO)
    ann.flags.brownout(Level.REDUCED, seconds=60, **WHO)
    found = other.looks()
    assert found == {**DEFAULTS, "search.ranking": False}
    assert other.decision("search.ranking").source is Source.BROWNOUT


def test_end_of_a_brownout_leaves_restoring_to_the_controller(
    two: tuple[Someone, Someone],
) -> None:
    """After it the features stay shed, until the controller restores them one by one."""
    ann, other = two
    ann.flags.brownout(Level.REDUCED, seconds=60, **WHO)
    ann.flags.brownout(Level.FULL, seconds=60, **WHO)
    assert not other.looks()["search.ranking"]
    assert list(other.flags.document.shed) == ["search.ranking", "search.spelling"]


def test_end_of_a_brownout_never_switches_off_what_an_order_keeps_on(
    two: tuple[Someone, Someone],
) -> None:
    """Whether the order comes before the brownout, within it or after it; nothing lies in wait."""
    ann, _ = two
    ann.flags.order("search.ranking", "on", **WHO)
    ann.flags.brownout(Level.REDUCED, seconds=60, **WHO)
    assert list(ann.flags.document.shed) == ["search.spelling"]
    ann.flags.order("search.spelling", "on", **WHO)
    assert list(ann.flags.document.shed) == []
    ann.flags.order("search.ranking", "auto", **WHO)
    ann.flags.order("search.spelling", "on", seconds=1, **WHO)  # the brownout takes longer
    assert list(ann.flags.document.shed) == ["search.ranking", "search.spelling"]
    ann.flags.order("search.spelling", "on", seconds=30, **WHO)
    ann.flags.brownout(Level.FULL, **WHO)  # now it does not
    assert list(ann.flags.document.shed) == ["search.ranking"]
    ann.flags.order("search.ranking", "on", **WHO)
    assert list(ann.flags.document.shed) == []


def test_brownout_on_what_is_out_of_date_does_nothing(two: tuple[Someone, Someone]) -> None:
    """An order of a brownout names the version that its giver saw, like any other."""
    ann, other = two
    first = ann.flags.brownout(Level.STALE, seen=0, **WHO)
    other.flags.brownout(Level.REDUCED, actor="bob", reason="sale", seen=first.version)
    with pytest.raises(OrderConflictError, match="brownout: bob has given another order"):
        ann.flags.brownout(Level.FULL, seen=first.version, **WHO)
    assert not ann.looks()["search.ranking"]


def test_orders_and_trials_are_announced_with_who_and_why(two: tuple[Someone, Someone]) -> None:
    """An order that only ends another one is over at once, whatever its seconds are."""
    ann, _ = two
    ann.flags.order("search", "auto", **WHO)
    ann.flags.brownout(Level.REDUCED, **WHO)
    over = ann.flags.brownout(Level.FULL, seconds=-1, **WHO)
    ann.flags.start_trial("search", **WHO)
    said = [one for one in ann.said if isinstance(one, FeatureOrdered)]
    assert [(one.feature, one.order) for one in said] == [
        ("search", "auto"),
        ("brownout", "reduced"),
        ("brownout", "off"),
        ("search", "trial"),
    ]
    assert {(one.actor, one.reason) for one in said} == {("ann", "too slow")}
    assert over.until == over.at


@pytest.mark.parametrize("name", ["serach", ["search"], None, 7])
def test_unknown_flag_has_the_callers_default_and_one_warning(
    two: tuple[Someone, Someone], name: object
) -> None:
    """Whatever is asked for, nothing is raised."""
    one, _ = two
    given = [one.flags.enabled(name, default) for default in (True, False, False)]  # type: ignore[arg-type]
    assert given == [True, False, False]
    assert [type(event) for event in one.said] == [FlagMisused]


def test_without_the_store_what_was_known_holds_and_then_the_defaults(
    server: ValkeyProcess, two: tuple[Someone, Someone]
) -> None:
    """A lost store changes nothing for five minutes, then nothing is shed; each announced once."""
    ann, other = two
    ann.flags.order("search.ranking", "off", seconds=3000, **WHO)
    assert not other.looks()["search.ranking"]
    server.stop()
    other.clock.added += 290
    assert not other.flags.enabled("search.ranking")
    other.clock.added += 11
    assert other.flags.enabled("search.ranking")
    lost = [one.defaults for one in other.said if isinstance(one, FlagsLost)]
    assert lost == [False, True]
    with pytest.raises(StoreUnavailableError):
        other.flags.order("beta", "on", **WHO)


@pytest.mark.parametrize("text", [b"", b"7|{", b"[]", b"999|[]", b'3|{"orders":7}', b"\xff\xfe"])
def test_tampered_store_changes_nothing(two: tuple[Someone, Someone], text: bytes) -> None:
    """A text that nobody of ours wrote is no state; the next order mends it."""
    ann, other = two
    ann.flags.order("search.ranking", "off", seconds=60, **WHO)
    assert not other.looks()["search.ranking"]
    ann.store.client.set(ann.store.key(KEY), text)
    assert other.looks() == {**DEFAULTS, "search.ranking": False}
    assert other.pulse.scope == "fleet"
    other.flags.order("beta", "on", **WHO)
    assert ann.looks() == {**DEFAULTS, "search.ranking": False, "beta": True}


def test_key_of_another_type_changes_nothing(two: tuple[Someone, Someone]) -> None:
    """A list in place of the text keeps no breaker from the fleet either."""
    ann, other = two
    ann.flags.order("search.ranking", "off", seconds=60, **WHO)
    assert not other.looks()["search.ranking"]
    ann.store.client.delete(ann.store.key(KEY))
    ann.store.client.rpush(ann.store.key(KEY), "x")
    assert not other.looks()["search.ranking"]
    assert other.pulse.scope == "fleet"
    ann.flags.order("beta", "on", **WHO)
    assert other.looks() == {**DEFAULTS, "search.ranking": False, "beta": True}


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_order_without_an_end_is_refused(two: tuple[Someone, Someone], seconds: float) -> None:
    """Nobody should have to remember to lift an order."""
    with pytest.raises(ConfigurationError, match="seconds must be more than 0"):
        two[0].flags.order("search", "off", seconds=seconds, **WHO)


def test_store_that_comes_back_is_followed_again(
    server: ValkeyProcess, two: tuple[Someone, Someone]
) -> None:
    """What is ordered after an outage reaches a process that was left alone in it."""
    ann, other = two
    ann.flags.order("search.ranking", "off", seconds=600, **WHO)
    assert not other.looks()["search.ranking"]
    server.stop()
    other.pulse.refresh()
    server.start()
    ann.pulse.refresh()
    wait_until(lambda: ann.pulse.refresh() and ann.pulse.scope == "fleet", 10, "the store is back")
    ann.flags.order("search.ranking", "on", seconds=600, **WHO)
    wait_until(lambda: other.looks()["search.ranking"], 10, "the order has come")
