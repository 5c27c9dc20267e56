"""The flags of the shop's search, switched by people and by trouble, seen from outside."""

from collections.abc import Iterator
from typing import Any

import pytest

from jobs.dependencies import DEPENDENCIES
from jobs.features import AI_RANKING, FEATURES, SEARCH, SPELL_CHECK
from resilience import Level
from resilience.flags import Features, Flags
from resilience.pulse import Pulse
from resilience.store import Store
from resilience.store.flags import FlagStore
from resilience.store.fleet import StoreFleet
from resilience.tasks.shared import NAMESPACE
from resilience.testing.waiting import wait_until
from tests.acceptance.answers import assert_unavailable, meta_of
from tests.acceptance.shop import Shop
from tests.acceptance.test_shop import QUERY

SECONDS = 120.0
WHO = {"actor": "ann", "reason": "a test", "seconds": 600.0}
SHED = "FeatureShedError"


@pytest.fixture
def flags(healthy_shop: Shop) -> Iterator[Flags]:
    """What an operator has in hand; all orders are ended afterwards."""
    store = Store(healthy_shop.valkey.url, namespace=NAMESPACE, timeout_seconds=10.0)
    features = Features(FEATURES, [one.name for one in DEPENDENCIES])
    made = Flags(features, Pulse(StoreFleet(store)), FlagStore(store))
    yield made
    for name in features:
        made.order(name, "auto", **WHO)
    store.client.close()


def reasons(shop: Shop) -> dict[str, Any]:
    """Return why parts of a search are missing or degraded."""
    found: dict[str, Any] = meta_of(shop.get(QUERY))["reasons"]
    return found


def test_search_without_ranking_says_so(healthy_shop: Shop, flags: Flags) -> None:
    """The same products are found, the best sellers first, and spelling is still checked."""
    ranked = healthy_shop.get(QUERY).json()["data"]["products"]
    flags.order(AI_RANKING, "off", **WHO)

    wait_until(lambda: reasons(healthy_shop) == {"ranking": SHED}, SECONDS, "it is shed")

    answer = healthy_shop.get(QUERY)
    meta = meta_of(answer)
    assert (meta["level"], meta["degraded"], meta["missing"]) == (2, ["ranking"], [])
    assert meta["sources"]["ranking"] == "by_popularity"
    simple = answer.json()["data"]["products"]
    assert sorted(one["id"] for one in simple) == sorted(one["id"] for one in ranked)


def test_search_without_spell_check_still_ranks(healthy_shop: Shop, flags: Flags) -> None:
    """Only the spelling is missing."""
    flags.order(SPELL_CHECK, "off", **WHO)

    wait_until(lambda: reasons(healthy_shop) == {"spelling": SHED}, SECONDS, "it is shed")

    assert meta_of(healthy_shop.get(QUERY))["missing"] == ["spelling"]


def test_search_that_is_off_is_unavailable_and_says_when_to_look_again(
    healthy_shop: Shop, flags: Flags
) -> None:
    """Search as a whole is off by order only, and the answer says when to come back."""
    flags.order(SEARCH, "off", **WHO)

    wait_until(lambda: healthy_shop.get(QUERY).status_code == 503, SECONDS, "it is off")

    answer = healthy_shop.get(QUERY)
    assert assert_unavailable(answer, SEARCH)["reasons"] == {"products": SHED}
    assert 25 <= int(answer.headers["Retry-After"]) <= 30


def test_brownout_sheds_what_its_level_allows(healthy_shop: Shop, flags: Flags) -> None:
    """Brownout 2 leaves search itself on; afterwards the features come back one by one."""
    flags.brownout(Level.REDUCED, **WHO)
    both = {"ranking": SHED, "spelling": SHED}
    wait_until(lambda: reasons(healthy_shop) == both, SECONDS, "both are shed")
    assert healthy_shop.get(QUERY).status_code == 200

    flags.brownout(Level.FULL, **WHO)

    wait_until(lambda: reasons(healthy_shop) == {"ranking": SHED}, SECONDS, "spelling is back")
    wait_until(lambda: not reasons(healthy_shop), SECONDS, "ranking is back")


def test_features_of_a_service_that_fails_are_shed_and_restored_in_reverse(
    healthy_shop: Shop, flags: Flags
) -> None:
    """While ranking and spelling fail, their features are shed, the costliest first."""
    healthy_shop.upstreams["search"].put_fault("fail")

    def shed() -> list[str]:
        healthy_shop.get(QUERY)  # without calls no circuit opens, and none closes again
        return list(flags.document.shed)

    wait_until(lambda: shed() == [AI_RANKING], SECONDS, "ranking is shed")
    wait_until(lambda: shed() == [AI_RANKING, SPELL_CHECK], SECONDS, "both are shed")
    # While the circuit probes, its features are on, and it refuses what is no probe.
    both = {"ranking": SHED, "spelling": SHED}
    wait_until(lambda: reasons(healthy_shop) == both, SECONDS, "answers say what is shed")

    healthy_shop.upstreams["search"].lift_fault()

    wait_until(lambda: shed() == [AI_RANKING], SECONDS, "spelling is back")
    assert wait_until(lambda: shed() == [], SECONDS, "ranking is back")
