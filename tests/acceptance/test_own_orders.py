"""The shop on a real primary and its replica: users see what they bought, whatever is down."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import httpx
import pytest

from jobs import catalogue
from jobs.storage import MAX_LAG_SECONDS
from resilience import Level
from resilience.consistency.steps import OWN_WRITE
from resilience.tasks.positions import READ_STALE
from resilience.testing.plugin import running_valkey
from resilience.testing.waiting import wait_until
from tests.acceptance.answers import meta_of
from tests.acceptance.databases import RunningDatabases, open_directory
from tests.acceptance.shop import READS, Shop, running_shop
from tests.acceptance.upstream import PATIENCE_SECONDS, Upstream

BUYER, OTHER = 7, 8
AT_ONCE_SECONDS = 1.0
"""Less than half of what an order may take."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A shop and the databases that it is on."""

    shop: Shop
    databases: RunningDatabases

    def buy(self) -> str:
        """Return the id of a new order of the buyer's."""
        answer = self.shop.order(BUYER)
        assert answer.status_code == 201, answer.text
        order_id: str = answer.json()["data"]["order"]["order_id"]
        return order_id

    def look(self, order_id: str, user_id: int) -> httpx.Response:
        """Return what the front says of an order to a user."""
        return self.shop.get(f"/orders/{order_id}?user_id={user_id}")

    def listed(self) -> tuple[list[str], Mapping[str, Any]]:
        """Return the orders of the buyer's profile, and what the page says of itself."""
        page = self.shop.get(f"/profile/{BUYER}").json()
        return [one["order_id"] for one in page["data"]["orders"]], page["_meta"]

    def listed_in_full(self) -> list[str]:
        """Return the orders of the first profile that shows them in full.

        A busy machine may spend the page's budget before it is their turn; the page then says so.
        """

        def full() -> list[list[str]]:
            listed, page = self.listed()
            return [listed] if page["level"] == Level.FULL else []

        return wait_until(full, PATIENCE_SECONDS, "the profile is in full")[0]

    def await_replica(self) -> None:
        """Wait until the replica has all orders."""
        wait_until(
            lambda: self.databases.orders("replica") == self.databases.orders("primary"),
            PATIENCE_SECONDS,
            "the replica has replayed the orders",
        )

    def repair(self) -> None:
        """Bring both back, and wait until every endpoint answers in full."""
        self.databases.put("replication", "ok").raise_for_status()
        self.databases.put("primary", "ok").raise_for_status()
        self.shop.await_health()


@pytest.fixture(scope="module")
def running_stage(
    upstream_processes: Mapping[str, Upstream], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """Run the shop on a primary and a replica."""
    with open_directory() as directory, running_valkey(tmp_path_factory) as valkey:
        databases = RunningDatabases(directory)
        databases.process.start()
        try:
            primary = databases.url("primary")
            with running_shop(
                upstream_processes,
                valkey,
                primary,
                tmp_path_factory.mktemp("front"),
                SHOP_DATABASE_REPLICA_URLS=databases.url("replica"),
                RESILIENCE_LEDGER_URL=primary,
            ) as shop:
                yield Stage(shop, databases)
        finally:
            databases.process.stop()


@pytest.fixture
def stage(running_stage: Stage, upstreams: Mapping[str, Upstream]) -> Iterator[Stage]:
    """The shop with everything well, before the test and after it."""
    del upstreams  # lifts the faults behind the test
    running_stage.shop.await_health()
    yield running_stage
    running_stage.repair()


def test_order_is_seen_at_once_by_everybody_though_the_replica_lacks_it(stage: Stage) -> None:
    """By its user and by others, on its own page and in the list, in full."""
    stage.databases.put("replication", "hang").raise_for_status()

    order_id = stage.buy()
    answers = [stage.look(order_id, user_id) for user_id in (BUYER, OTHER)]
    listed = stage.listed_in_full()

    assert [meta_of(answer)["level"] for answer in answers] == [Level.FULL] * 2
    assert {answer.json()["data"]["user_id"] for answer in answers} == {BUYER}
    assert listed[:1] == [order_id]
    assert stage.databases.orders("primary") > stage.databases.orders("replica")


def test_users_see_own_orders_and_others_what_is_marked_without_the_primary(stage: Stage) -> None:
    """The replica lacks the order, and the primary is dead: its user sees it all the same.

    What anybody is shown from a replica that is too far behind is marked with its lag.
    """
    stage.databases.put("replication", "hang").raise_for_status()
    order_id = stage.buy()
    stage.databases.put("primary", "fail").raise_for_status()

    own, other = stage.look(order_id, BUYER), stage.look(order_id, OTHER)
    listed, page = stage.listed()
    wait_until(
        lambda: meta_of(stage.look(catalogue.order(1).id, OTHER))["level"] == Level.STALE,
        PATIENCE_SECONDS,
        "the replica is behind by more than is allowed",
    )
    old = meta_of(stage.look(catalogue.order(1).id, OTHER))

    assert own.json()["data"]["order_id"] == order_id
    assert (meta_of(own)["level"], meta_of(own)["source"]) == (Level.FULL, OWN_WRITE)
    assert other.status_code == 503
    assert other.json()["reasons"] == {"order": "DatabaseUnavailableError"}
    assert (old["level"], old["reason"]) == (Level.STALE, READ_STALE)
    assert old["age"] > MAX_LAG_SECONDS
    assert order_id not in listed
    assert page["degraded"] == ["orders"]


def test_order_is_read_from_a_replica_that_has_it(stage: Stage) -> None:
    """Whoever looks, the primary is not asked: the answer is in full the moment it is gone."""
    order_id = stage.buy()
    stage.await_replica()
    stage.databases.put("primary", "fail").raise_for_status()

    seen = stage.look(order_id, OTHER)

    assert seen.json()["data"]["order_id"] == order_id
    assert (meta_of(seen)["level"], meta_of(seen)["source"]) == (Level.FULL, None)


def test_order_without_the_primary_is_refused_before_anybody_is_charged(stage: Stage) -> None:
    """At once, with a reason and when to come back; whatever only reads goes on in full.

    Once the replica may be too far behind, its answers say so, and are not in full any more.
    """
    charges = stage.shop.upstreams["payments"].http
    usual = stage.shop.order(BUYER).elapsed.total_seconds()
    stage.await_replica()
    cut_off = perf_counter()
    stage.databases.put("primary", "fail").raise_for_status()
    before = charges.get("/stats").json()["calls"]

    def goes_on(path: str) -> bool:
        answer = stage.shop.get(path)
        behind = perf_counter() - cut_off > MAX_LAG_SECONDS
        return answer.is_success and (meta_of(answer)["level"] == Level.FULL or behind)

    refused = stage.shop.order(BUYER)
    after = charges.get("/stats").json()["calls"]
    for path in READS:  # what is first to meet the dead connections is not in full
        wait_until(lambda path=path: goes_on(path), PATIENCE_SECONDS, f"{path} answers in full")

    assert refused.status_code == 503
    # The answer does not wait for the other part, which may be missing, too.
    assert refused.json()["reasons"]["product"] == "DatabaseUnavailableError"
    assert int(refused.headers["Retry-After"]) >= 1
    assert refused.elapsed.total_seconds() < usual + AT_ONCE_SECONDS
    assert after == before


def test_mail_that_the_ledger_cannot_note_waits_and_is_sent_once(stage: Stage) -> None:
    """The ledger is on the primary: what needs a note goes back to the broker until it is back."""
    worker, mail = stage.shop.workers["notifications"], stage.shop.upstreams["mail"].http
    worker.kill()
    try:
        order_id = stage.buy()
        stage.databases.put("primary", "fail").raise_for_status()
    finally:
        worker.start()
    wait_until(lambda: "LedgerUnavailable" in worker.log, PATIENCE_SECONDS, "the job is put off")
    stage.databases.put("primary", "ok").raise_for_status()

    wait_until(
        lambda: order_id in mail.get("/messages").text, PATIENCE_SECONDS, "the mail has arrived"
    )
    sent = [one for one in mail.get("/messages").json() if order_id in one["message_id"]]
    assert len(sent) == 1


def test_order_that_nobody_placed_is_not_found(stage: Stage) -> None:
    """A 404 is given by whoever knows: the primary; without it, nobody knows."""
    nothing = "00000000-0000-4000-8000-000000000000"
    assert stage.look(nothing, BUYER).status_code == 404
    stage.databases.put("primary", "fail").raise_for_status()

    assert stage.look(nothing, BUYER).status_code == 503
