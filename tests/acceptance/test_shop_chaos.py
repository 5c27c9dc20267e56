"""The shop while faults are injected into its dependencies, as its users see it."""

from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine

from jobs.dependencies import DEPENDENCIES
from jobs.features import AI_RANKING, FEATURES, SPELL_CHECK
from resilience import Level
from resilience.faults import Fault
from resilience.flags import Features, Flags
from resilience.flags.faults import Faults
from resilience.pulse import Pulse
from resilience.store import Store
from resilience.store.flags import FlagStore
from resilience.store.fleet import StoreFleet
from resilience.tasks.shared import NAMESPACE
from resilience.testing.plugin import running_valkey
from resilience.testing.waiting import wait_until
from tests.acceptance.answers import level_of, meta_of
from tests.acceptance.shop import Shop, running_shop
from tests.acceptance.test_shop import QUERY
from tests.acceptance.upstream import PATIENCE_SECONDS, Upstream

WHO = {"actor": "ann", "reason": "a test", "seconds": 600.0}
NAMES = [one.name for one in DEPENDENCIES]
SEED = 20261201
REQUESTS = 1000
pytestmark = pytest.mark.long
"""The other tests of the shop break its services; here its own processes inject the faults."""


@pytest.fixture(scope="module")
def chaos_shop(
    upstream_processes: Mapping[str, Upstream],
    shop: Engine,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Shop]:
    """A shop whose processes inject faults."""
    directory = tmp_path_factory.mktemp("front")
    with (
        running_valkey(tmp_path_factory) as valkey,
        running_shop(
            upstream_processes, valkey, str(shop.url), directory, RESILIENCE_CHAOS="1"
        ) as running,
    ):
        yield running


@pytest.fixture
def store(chaos_shop: Shop) -> Iterator[Store]:
    """The store of the shop, which is well before the test."""
    chaos_shop.await_health()
    made = Store(chaos_shop.valkey.url, namespace=NAMESPACE, timeout_seconds=10.0)
    yield made
    made.client.close()


@pytest.fixture
def flags(store: Store) -> Flags:
    """What an operator knows of the features."""
    return Flags(Features(FEATURES, NAMES), Pulse(StoreFleet(store)), FlagStore(store))


@pytest.fixture
def faults(store: Store, flags: Flags) -> Iterator[Faults]:
    """What an operator has in hand; no fault is left after the test."""
    made = Faults(flags, Pulse(StoreFleet(store)), NAMES, allowed=True)
    yield made
    made.stop_all(actor="ann", reason="the test is over")
    made.allow(actor="ann", reason="the test is over")


def test_dashboard_under_chaos_is_always_there_and_says_what_it_lacks(
    chaos_shop: Shop, faults: Faults
) -> None:
    """Three in ten calls of every dependency fail: each answer is 200, with `_meta`."""
    for number, name in enumerate(NAMES):
        fault = Fault(dependency=name, kind="error", rate=0.3, seed=SEED + number)
        faults.set(fault, **WHO)
    wait_until(
        lambda: level_of(chaos_shop.get("/dashboard")) > Level.FULL,
        PATIENCE_SECONDS,
        "the faults are injected",
    )

    with ThreadPoolExecutor(4) as users:
        answers = list(users.map(lambda _: chaos_shop.front.get("/dashboard"), range(REQUESTS)))

    assert Counter(answer.status_code for answer in answers) == {200: REQUESTS}
    metas = [meta_of(answer) for answer in answers]
    assert all(meta["partial"] == bool(meta["missing"] or meta["degraded"]) for meta in metas)
    hurt = [meta for meta in metas if meta["partial"]]
    assert hurt
    assert all(meta["level"] > 0 and meta["reasons"] for meta in hurt)


def test_exhausted_payments_leave_browsing_alone(chaos_shop: Shop, faults: Faults) -> None:
    """All of its workers hang; what does not pay is as good as ever, and in time."""
    faults.set(Fault(dependency="payments", kind="hang"), **WHO)
    with ThreadPoolExecutor(8) as buyers:
        orders = [buyers.submit(chaos_shop.order) for _ in range(8)]
        browsed = [chaos_shop.get(path) for path in (QUERY, "/recommendations/7", "/profile/7")]
        dashboard = chaos_shop.get("/dashboard")

    assert [level_of(answer) for answer in browsed] == [Level.FULL] * 3
    meta = meta_of(dashboard)
    assert {*meta["degraded"], *meta["missing"]} <= {"alerts"}  # those of payments
    assert all(order.result().status_code in {201, 202, 503} for order in orders)


def test_order_is_answered_while_its_mail_is_late_and_the_mail_comes_once(
    chaos_shop: Shop, faults: Faults
) -> None:
    """Each mail takes longer than its time limit, goes to the retry queue, and arrives later."""
    sent = len(chaos_shop.upstreams["mail"].http.get("/messages").json())
    faults.set(Fault(dependency="notifications", kind="hang"), **WHO)

    order = chaos_shop.order()

    assert order.status_code == 201
    order_id = order.json()["data"]["order"]["order_id"]
    faults.stop_all(actor="ann", reason="the mail server is well")

    def mails() -> int:
        messages = chaos_shop.upstreams["mail"].http.get("/messages").json()
        assert len(messages) >= sent
        return sum(order_id in str(message) for message in messages)

    wait_until(mails, PATIENCE_SECONDS, "the mail has arrived")
    assert mails() == 1


def test_search_sheds_ranking_then_spell_check_and_still_finds(
    chaos_shop: Shop, flags: Flags, faults: Faults
) -> None:
    """All calls of their dependency fail: the costlier feature goes first, and comes back last."""
    shed: list[tuple[str, ...]] = [()]

    def look() -> tuple[str, ...]:
        """Search, and note what is shed; without searches no circuit opens, and none closes."""
        assert chaos_shop.get(QUERY).status_code == 200
        now = tuple(flags.document.shed)
        if now != shed[-1]:
            shed.append(now)
        return now

    faults.set(Fault(dependency="search", kind="error"), **WHO)
    wait_until(lambda: look() == (AI_RANKING, SPELL_CHECK), PATIENCE_SECONDS, "both are shed")
    faults.stop_all(actor="ann", reason="search is well")
    wait_until(lambda: look() == (), PATIENCE_SECONDS, "both are back")

    both = (AI_RANKING, SPELL_CHECK)
    assert shed == [(), (AI_RANKING,), both, (AI_RANKING,), ()]


def test_profile_keeps_its_total_while_two_of_its_dependencies_hang(
    chaos_shop: Shop, faults: Faults
) -> None:
    """`Shop.get` asserts the budget + 10 %; the answer names both."""
    chaos_shop.get("/profile/7")
    for name in ("users", "recommendations"):
        faults.set(Fault(dependency=name, kind="hang"), **WHO)

    wait_until(
        lambda: "user" in meta_of(chaos_shop.get("/profile/7"))["degraded"],
        PATIENCE_SECONDS,
        "the faults are injected",
    )
    meta = meta_of(chaos_shop.get("/profile/7"))

    assert {"user", "recommendations"} <= {*meta["degraded"], *meta["missing"]}
    assert meta["level"] > 0
