"""Which feature is shed or restored next."""

import math
from collections.abc import Sequence
from typing import Literal

import pytest
from pydantic import ValidationError

from resilience import Feature, Level, SheddingPolicy
from resilience.events import Event, FeatureRestored, FeatureShed, FeatureShedLong
from resilience.flags import Features
from resilience.flags.controller import Reading, step
from resilience.flags.document import BROWNOUT, Cost, Document, Order, Shed
from resilience.flags.orders import after_loss, order_edit

JITTER = 0.2

POLICY = SheddingPolicy()
DWELL = 10.0
BACK = DWELL * (1 + JITTER)
"""After so long a feature may come back, whatever its jitter."""
NAN = float("nan")
FEATURES = (
    Feature("search", level=Level.FAILED, depends_on=("search",), automatic=False, cost=9),
    Feature("ranking", level=Level.REDUCED, depends_on=("search",), cost=0.05),
    Feature("spelling", level=Level.STALE, depends_on=("search",), cost=0.01),
    Feature("similar", level=Level.STALE, depends_on=("search", "shop"), cost=0.001),
    Feature("avatars", level=Level.STATIC),
    Feature("beta", level=Level.STALE, depends_on=("search",), default=False, cost=1),
)


class Fleet:
    """What is agreed, and time."""

    def __init__(self, features: Sequence[Feature] = FEATURES) -> None:
        self.features = Features(features, ["search", "shop"])
        self.document = Document()
        self.now = 1_000.0
        self.policy = POLICY
        self.said: list[Event] = []

    def step(self, later: float = 0.0, /, **measured: float) -> list[Event]:
        """Do a step *later*, at which rules have *measured* so much of their threshold."""
        self.now += later
        readings = [
            Reading(rule=rule.replace("_", ":"), measured=share, threshold=1.0)
            for rule, share in {"open_search": 0.0, "load": 0.0, **measured}.items()
        ]
        made, said = step(self.features, self.document, readings, self.now, self.policy)
        assert made is not None or not said
        self.document = made or self.document
        return said

    def shed(self, later: float = 0.0, /, **measured: float) -> list[str]:
        """Do the same, and return what is shed then."""
        self.step(later, **measured)
        return list(self.document.shed)

    def order(self, name: str, state: Literal["on", "off"], seconds: float = 1e6) -> None:
        """Order a feature on or off."""
        order = Order(
            state=state, until=self.now + seconds, actor="ann", reason="so", version=1, at=self.now
        )
        orders = {**self.document.orders, name: order}
        self.document = self.document.model_copy(update={"orders": orders})


@pytest.fixture
def fleet() -> Fleet:
    """A fleet in which all is well."""
    return Fleet()


def test_costliest_feature_is_shed_first_and_one_in_a_dwell(fleet: Fleet) -> None:
    """An open circuit sheds what depends on it, one by one; nothing that only people may."""
    assert fleet.shed(open_search=1) == ["ranking"]
    assert fleet.shed(DWELL - 0.1, open_search=1) == ["ranking"]
    assert fleet.shed(0.1, open_search=1) == ["ranking", "spelling"]
    assert fleet.shed(DWELL, open_search=1) == ["ranking", "spelling", "similar"]
    assert fleet.shed(DWELL, open_search=1) == ["ranking", "spelling", "similar"]


@pytest.mark.parametrize("kind", ["open", "held", "depth", "age", "p95"])
def test_rule_sheds_from_its_threshold_on_and_not_below(fleet: Fleet, kind: str) -> None:
    """What is measured just below it is no trouble, least of all nothing."""
    rule = f"{kind}_search"
    assert fleet.shed(**{rule: 0.0}) == []
    assert fleet.shed(**{rule: math.nextafter(1.0, 0.0)}) == []
    assert fleet.shed(**{rule: 1.0}) == ["ranking"]


def test_load_sheds_any_feature(fleet: Fleet) -> None:
    """Load is no dependency's: what has no dependency is shed as well, last without a cost."""
    for _ in range(5):
        fleet.step(DWELL, load=1)
    assert list(fleet.document.shed) == ["ranking", "spelling", "similar", "avatars"]


def test_measured_cost_counts_before_the_given_one(fleet: Fleet) -> None:
    """What a trial has found decides."""
    cost = Cost(seconds=2, low=1, high=3, calls=1_000, at=0)
    fleet.document = Document(costs={"similar": cost})
    assert fleet.shed(load=1) == ["similar"]


def test_causes_do_not_wait_for_each_other(fleet: Fleet) -> None:
    """Each dependency, and the load, sheds one feature in a dwell of its own."""
    assert fleet.shed(open_shop=1) == ["similar"]
    assert fleet.shed(1, open_shop=1, open_search=1) == ["similar", "ranking"]
    assert fleet.shed(1, open_shop=1, open_search=1, load=1)[2:] == ["spelling"]


def test_rules_of_one_dependency_are_one_cause(fleet: Fleet) -> None:
    """An open circuit, a full queue and slow jobs of one dependency shed one feature, not three."""
    assert fleet.shed(open_search=1, depth_search=1, p95_search=1) == ["ranking"]
    assert fleet.shed(DWELL - 1, age_search=3) == ["ranking"]


def test_features_come_back_in_reverse_one_in_a_dwell(fleet: Fleet) -> None:
    """The last that was shed is the first that comes back, and the next one not before a dwell."""
    for _ in range(3):
        fleet.step(DWELL, open_search=1)
    assert fleet.shed(BACK) == ["ranking", "spelling"]
    assert fleet.shed(DWELL - 0.1) == ["ranking", "spelling"]
    assert fleet.shed(BACK - DWELL + 0.1) == ["ranking"]
    assert fleet.shed(BACK) == []


def test_features_come_back_at_half_the_threshold(fleet: Fleet) -> None:
    """Between both nothing happens: the feature would be shed again."""
    fleet.step(load=1.0)
    assert fleet.shed(BACK, load=0.99) == ["ranking"]
    assert fleet.shed(BACK, load=0.51) == ["ranking"]
    assert fleet.shed(BACK, load=0.5) == []


def test_what_is_not_known_neither_sheds_nor_restores(fleet: Fleet) -> None:
    """A broker that tells no depth is no sign of trouble, and none of the contrary."""
    assert fleet.shed(depth_search=NAN) == []
    assert fleet.shed(depth_search=1) == ["ranking"]
    assert fleet.shed(BACK, depth_search=NAN) == ["ranking"]
    assert fleet.shed(BACK, depth_search=0) == []


def test_rule_that_exists_no_more_keeps_nothing_shed(fleet: Fleet) -> None:
    """Where a new version of the app leaves out a rule, what it had shed comes back."""
    assert fleet.shed(depth_search=1) == ["ranking"]
    assert fleet.shed(BACK) == []


def test_feature_does_not_come_back_into_other_trouble(fleet: Fleet) -> None:
    """It would be shed again for that; what the other trouble does not concern comes back."""
    fleet.step(open_shop=1)
    fleet.step(load=1)
    assert list(fleet.document.shed) == ["similar", "ranking"]
    trouble = fleet.shed(BACK, open_shop=0, open_search=1, load=0.4)
    assert trouble == ["similar", "ranking", "spelling"]
    back = [fleet.shed(BACK, open_shop=0, load=0.4) for _ in trouble]
    assert back == [["similar", "ranking"], ["similar"], []]


def test_held_for_long_does_not_keep_what_another_cause_shed(fleet: Fleet) -> None:
    """Causes restore on their own: a dependency that is held for a day keeps its features only."""
    fleet.order("spelling", "on")
    fleet.order("similar", "on")
    fleet.step(load=1)
    fleet.order("ranking", "on")
    fleet.step(DWELL, load=1)
    assert list(fleet.document.shed) == ["ranking", "avatars"]
    fleet.document = fleet.document.model_copy(update={"orders": {}})
    fleet.step(DWELL, held_search=1)
    assert fleet.shed(BACK, held_search=1, load=0)[:1] == ["ranking"]
    assert "avatars" not in fleet.document.shed


def test_order_is_neither_shed_nor_restored(fleet: Fleet) -> None:
    """A person decides until the order ends; what is behind it in the row does not wait for it."""
    fleet.order("ranking", "on")
    assert fleet.shed(load=1) == ["spelling"]
    assert fleet.shed(DWELL, load=1) == ["spelling", "similar"]
    fleet.order("similar", "off", seconds=100)
    assert fleet.shed(BACK) == ["similar"]
    assert fleet.shed(BACK) == ["similar"]
    assert fleet.shed(100) == []


def test_brownout_is_restored_like_the_rest_once_it_is_over(fleet: Fleet) -> None:
    """Not while it is in force, not all at once; also what the controller never sheds."""
    edit = order_edit(BROWNOUT, Level.FAILED, 60, "ann", "sale", features=FEATURES)
    fleet.document = edit(fleet.document, fleet.now) or fleet.document
    everything = list(fleet.document.shed)
    assert len(everything) == 5
    assert fleet.shed(59) == everything
    assert fleet.shed(2, load=1) == everything
    for left in range(4, -1, -1):
        assert fleet.shed(BACK) == everything[:left]


def test_brownout_keeps_what_the_controller_shed_before(fleet: Fleet) -> None:
    """Restoring it would change nothing, and its event would be wrong."""
    fleet.step(load=1)
    brownout = Order(
        state=Level.REDUCED, until=2_000, actor="ann", reason="sale", version=1, at=fleet.now
    )
    fleet.document = fleet.document.model_copy(update={"orders": {BROWNOUT: brownout}})
    assert fleet.shed(BACK) == ["ranking"]
    assert fleet.shed(1_000) == []


def test_switches_are_announced_with_what_was_measured(fleet: Fleet) -> None:
    """Both events name rule, value and threshold; the way back has half of it."""
    fleet.policy = SheddingPolicy(dwell_seconds=5)
    assert fleet.step(load=1.5) == [
        FeatureShed(feature="ranking", level=Level.REDUCED, rule="load", measured=1.5, threshold=1)
    ]
    assert fleet.step(20, load=0.3) == [
        FeatureRestored(feature="ranking", rule="load", measured=0.3, threshold=0.5, seconds=20)
    ]
    assert fleet.step(20) == []


def test_long_shed_is_announced_once_more(fleet: Fleet) -> None:
    """After fifteen minutes, once, whatever else happens then; and again when it is shed again."""
    for _ in range(2):
        for name in ("spelling", "similar", "avatars"):
            fleet.order(name, "off", seconds=1_000)
        fleet.step(load=1)
        assert fleet.step(900, load=1) == []
        expected = FeatureShedLong(feature="ranking", rule="load", seconds=901)
        assert fleet.step(1, load=1) == [expected]
        assert [type(one) for one in fleet.step(100, load=1)] == [FeatureShed]
        fleet.step(BACK)
        fleet.step(BACK)
        assert list(fleet.document.shed) == []
        fleet.now += BACK


def test_feature_is_announced_once_more_after_the_time_declared(fleet: Fleet) -> None:
    """`escalate_seconds` says after how long; the default is a quarter of an hour."""
    fleet.policy = SheddingPolicy(escalate_seconds=60)
    assert fleet.shed(open_search=1) == ["ranking"]
    fleet.order("spelling", "on")
    fleet.order("similar", "on")

    assert fleet.step(60, open_search=1) == []
    assert fleet.step(0.5, open_search=1) == [
        FeatureShedLong(feature="ranking", rule="open:search", seconds=60.5)
    ]
    assert fleet.step(60, open_search=1) == []


def test_features_of_another_version_of_the_app_stay_shed_for_an_hour(fleet: Fleet) -> None:
    """A leader that does not know a feature leaves it to those that do, and in nobody's way."""
    old = Shed(rule="load", measured=1, threshold=1, since=fleet.now)
    fleet.document = Document(shed={"ranking": old, "gone": old})
    fleet.now += 3000
    fleet.shed(load=0)
    assert list(fleet.document.shed) == ["gone"]
    fleet.now += 3000
    fleet.shed(load=1)
    assert "gone" not in fleet.document.shed


def test_jitter_is_the_same_whoever_leads_and_another_for_each_feature() -> None:
    """A fleet does not restore everything at once, nor does a new leader begin to count again."""

    def wait(name: str) -> int:
        features = Features([Feature(name, level=Level.STALE)], [])
        entry = Shed(rule="load", measured=1, threshold=1, since=0)
        document = Document(shed={name: entry}, switched={name: 0})
        tenths = range(200)
        return next(one for one in tenths if step(features, document, [], one / 10, POLICY)[0])

    times, again = ([wait(name) for name in "abcdefgh"] for _ in range(2))
    assert times == again
    assert set(times) <= set(range(100, 121))
    assert len(set(times)) > 3


@pytest.mark.parametrize("since", [1e18, -1e18])
def test_tampered_time_keeps_nothing_shed_for_ever(fleet: Fleet, since: float) -> None:
    """What was shed in a thousand years is restored now."""
    entry = Shed.model_construct(rule="load", measured=NAN, threshold=-1, since=since)
    document = Document().model_copy(
        update={"shed": {"ranking": entry}, "switched": {"ranking": since}}
    )
    fleet.document = document
    assert fleet.shed() == []


def test_nothing_is_switched_for_a_dwell_after_the_store_lost_the_state(fleet: Fleet) -> None:
    """Nobody knows what another leader has switched meanwhile."""
    fleet.step(load=1)
    fleet.document = after_loss(fleet.document, fleet.features, fleet.now + 1)
    assert fleet.shed(DWELL, load=1) == ["ranking"]
    assert fleet.shed(1, load=1) == ["ranking", "spelling"]
    assert fleet.document.version == 1_001_000


@pytest.mark.parametrize(
    "options",
    [
        {"dwell_seconds": 0},
        {"escalate_seconds": -1},
        {"load": 1.5},
        {"depth_share": 0},
        {"age_seconds": float("inf")},
        {"p95_share": 2},
        {"dwel_seconds": 1},
    ],
)
def test_policy_refuses_what_makes_no_sense(options: dict[str, float]) -> None:
    """Where it is written, and with the value."""
    with pytest.raises(ValidationError, match=next(iter(options))):
        SheddingPolicy(**options)
