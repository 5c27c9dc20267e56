"""The shop in the situations it is made for, seen from outside. Every call is timed."""

import signal
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from time import perf_counter

import pytest
from sqlalchemy import Engine

from jobs import budgets
from jobs.catalogue import POPULAR
from resilience import Level
from resilience.testing.waiting import wait_until
from tests.acceptance.answers import assert_problem, assert_unavailable, level_of, meta_of
from tests.acceptance.shop import READS, Shop
from tests.acceptance.upstream import PATIENCE_SECONDS, Upstream

SLOW_SECONDS = 3.0
QUERY = "/search?q=oak%20chair"


def test_healthy_shop_answers_in_full_and_does_what_it_says(healthy_shop: Shop) -> None:
    """Without a fault every endpoint is at level 0, and an order is charged, recorded, mailed."""
    answers = [healthy_shop.get(path) for path in READS]
    order = healthy_shop.order()

    assert [level_of(answer) for answer in [*answers, order]] == [Level.FULL] * 5
    assert order.status_code == 201
    taken = order.json()["data"]["order"]
    upstreams = healthy_shop.upstreams
    charge = upstreams["payments"].http.get(f"/charges/{taken['order_id']}").json()
    assert charge["charge_id"] == taken["charge_id"]
    assert charge["amount_cents"] == taken["amount_cents"]
    assert taken["order_id"] in healthy_shop.get("/dashboard").json()["data"]["orders"]["latest"]
    seen = healthy_shop.get(f"/orders/{taken['order_id']}?user_id=7")
    assert level_of(seen) is Level.FULL
    assert taken.items() <= seen.json()["data"].items()
    assert seen.json()["data"] in healthy_shop.get("/profile/7").json()["data"]["orders"]
    wait_until(
        lambda: taken["order_id"] in upstreams["mail"].http.get("/messages").text,
        PATIENCE_SECONDS,
        "the mail has arrived",
    )


def test_recommendations_say_level_reason_and_age_while_their_service_is_down(
    healthy_shop: Shop,
) -> None:
    """A user seen before gets the last list with its age, a new one the list of the segment."""
    fresh = healthy_shop.get("/recommendations/7").json()["data"]
    healthy_shop.upstreams["recommendations"].put_fault("fail")

    seen, new = healthy_shop.get("/recommendations/7"), healthy_shop.get("/recommendations/1234")

    meta = meta_of(seen)
    assert seen.json()["data"] == fresh
    assert (meta["level"], meta["source"], meta["reason"]) == (1, "stale", "HTTPStatusError")
    assert 0 <= meta["age"] < 60
    meta = meta_of(new)
    assert (meta["level"], meta["source"], meta["reason"]) == (2, "for_segment", "HTTPStatusError")
    assert len(new.json()["data"]) == 10


def test_recommendations_keep_their_budget_while_their_service_hangs(healthy_shop: Shop) -> None:
    """More requests than the bulkhead has room for: all are answered in time, all say why."""
    healthy_shop.upstreams["recommendations"].put_fault("hang")

    with ThreadPoolExecutor(16) as clients:
        crowd = list(clients.map(healthy_shop.get, [f"/recommendations/{n}" for n in range(1, 17)]))
        others = [healthy_shop.get(QUERY), healthy_shop.get("/dashboard"), healthy_shop.order()]

    metas = [meta_of(answer) for answer in crowd]
    assert all(meta["level"] >= Level.STALE and meta["reason"] for meta in metas)
    assert all(meta["age"] is not None for meta in metas if meta["level"] == Level.STALE)
    assert [level_of(answer) for answer in others] == [Level.FULL] * 3


def test_users_down_costs_orders_and_new_profiles_only(healthy_shop: Shop) -> None:
    """A known profile is shown stale; what cannot do without the user says so with 503."""
    healthy_shop.upstreams["users"].put_fault("fail")

    profile = healthy_shop.get("/profile/7")
    known = meta_of(profile)
    assert (known["level"], known["partial"], known["missing"]) == (Level.REDUCED, True, [])
    assert known["degraded"] == ["user", "notifications"]
    assert known["reasons"].keys() == {"user", "notifications"}
    # On a busy machine the refusal may come later than an attempt may take.
    assert all(why.startswith(("HTTP", "AttemptTimeout")) for why in known["reasons"].values())
    assert known["sources"] == {"user": "stale", "notifications": "default"}
    assert known["ages"]["user"] >= 0
    assert profile.json()["data"]["notifications"] == []
    assert_unavailable(healthy_shop.get("/profile/1999"), "users")
    assert_unavailable(healthy_shop.order(), "users")
    for path in ("/recommendations/7", QUERY, "/dashboard"):
        assert level_of(healthy_shop.get(path)) is Level.FULL


def test_profile_in_which_users_hang_leaves_recommendations_their_share(healthy_shop: Shop) -> None:
    """The user takes 40 % of the budget and is shown stale; what comes next is as ever."""
    fresh = healthy_shop.get("/profile/7").json()["data"]
    healthy_shop.upstreams["users"].put_fault("hang")

    profile = healthy_shop.get("/profile/7")

    known = meta_of(profile)
    assert known["degraded"] == ["user", "notifications"]
    assert known["reasons"].keys() == {"user", "notifications"}
    assert profile.json()["data"] == fresh | {"notifications": []}


def test_profile_in_which_recommendations_hang_has_the_rest_in_full(healthy_shop: Shop) -> None:
    """They are stale, reduced or the best sellers; user and notifications are fresh."""
    healthy_shop.upstreams["recommendations"].put_fault("hang")

    new = healthy_shop.get("/profile/1777")

    assert meta_of(new)["degraded"] == ["recommendations"]
    assert meta_of(new)["missing"] == []
    assert meta_of(new)["level"] in {Level.REDUCED, Level.STATIC}
    assert len(new.json()["data"]["recommendations"]) == 10
    assert new.json()["data"]["notifications"]


def test_profile_has_best_sellers_while_nobody_recommends(healthy_shop: Shop) -> None:
    """Without a worker that knows better the default stands in, and says so."""
    worker = healthy_shop.workers["recommendations"]
    worker.kill()
    try:
        profile = healthy_shop.get("/profile/7")
    finally:
        worker.start()

    known = meta_of(profile)
    assert (known["level"], known["degraded"]) == (Level.STATIC, ["recommendations"])
    assert known["sources"] == {"recommendations": "default"}
    assert profile.json()["data"]["recommendations"] == list(POPULAR)
    assert profile.json()["data"]["notifications"]


def test_slow_payments_end_orders_with_503_and_leave_the_others_alone(healthy_shop: Shop) -> None:
    """An order whose payment is not confirmed in time fails by its budget and names the order."""
    healthy_shop.upstreams["payments"].put_fault("slow", latency_seconds=SLOW_SECONDS)

    document = assert_unavailable(healthy_shop.order(), "payments")
    others = [healthy_shop.get(path) for path in ("/recommendations/7", QUERY, "/profile/7")]
    dashboard = meta_of(healthy_shop.get("/dashboard"))

    assert document["order_id"]
    assert [level_of(answer) for answer in others] == [Level.FULL] * 3
    assert dashboard["degraded"] == ["alerts"]
    assert dashboard["ages"]["alerts"] >= 0


def test_refused_payment_hands_on_when_to_come_back(healthy_shop: Shop) -> None:
    """The provider's Retry-After reaches the shop's client."""
    healthy_shop.upstreams["payments"].put_fault("fail")

    answer = healthy_shop.order()

    assert_unavailable(answer, "payments")
    assert answer.headers["Retry-After"] == "5"


def test_search_ranks_simply_while_the_ranking_is_down(healthy_shop: Shop) -> None:
    """The same products are found, best sellers first, and the answer says what it lacks."""
    ranked = healthy_shop.get(QUERY).json()["data"]["products"]
    healthy_shop.upstreams["search"].put_fault("fail")

    answer = healthy_shop.get(QUERY)

    meta = meta_of(answer)
    assert (meta["level"], meta["degraded"], meta["missing"]) == (2, ["ranking"], ["spelling"])
    assert meta["sources"]["ranking"] == "by_popularity"
    simple = answer.json()["data"]["products"]
    assert sorted(one["id"] for one in simple) == sorted(one["id"] for one in ranked)


def test_dashboard_shows_the_rest_while_one_part_hangs(healthy_shop: Shop) -> None:
    """A part that hangs is stale or missing; the page comes inside its budget."""
    healthy_shop.upstreams["search"].put_fault("hang")

    answer = healthy_shop.get("/dashboard")

    meta = meta_of(answer)
    assert "metrics" in [*meta["missing"], *meta["degraded"]]
    assert meta["reasons"]["metrics"]
    assert answer.json()["data"]["orders"]["count"] > 4_000


def mails_about(server: Upstream, order_id: str) -> int:
    """Return how many mails have arrived that name *order_id*."""
    return sum(order_id in str(one) for one in server.http.get("/messages").json())


def test_order_is_taken_while_the_mail_server_is_down(healthy_shop: Shop) -> None:
    """A mail that fails costs nobody an order, and is sent when the server is back: once."""
    server, log = healthy_shop.upstreams["mail"], healthy_shop.workers["notifications"]
    server.put_fault("fail")
    before = log.log.count("JobParked")

    order = healthy_shop.order()

    assert order.status_code == 201
    wait_until(lambda: log.log.count("JobParked") > before, PATIENCE_SECONDS, "the mail is kept")
    server.lift_fault()
    order_id = order.json()["data"]["order"]["order_id"]
    wait_until(lambda: mails_about(server, order_id), PATIENCE_SECONDS, "it has arrived")
    # A mail of another order goes the same way afterwards: whatever was under way has arrived.
    other_id = healthy_shop.order().json()["data"]["order"]["order_id"]
    wait_until(lambda: mails_about(server, other_id), PATIENCE_SECONDS, "the other has arrived")
    assert mails_about(server, order_id) == 1


def test_mail_is_sent_long_after_the_budget_of_its_order(healthy_shop: Shop) -> None:
    """Nobody waits for it, so a worker that was away sends it when it is back."""
    worker, began = healthy_shop.workers["notifications"], perf_counter()
    worker.kill()
    try:
        order = healthy_shop.order()
        wait_until(
            lambda: perf_counter() - began > budgets.PLACE_ORDER,
            PATIENCE_SECONDS,
            "the budget is spent",
        )
    finally:
        worker.start()

    order_id = order.json()["data"]["order"]["order_id"]
    mail = healthy_shop.upstreams["mail"]
    wait_until(lambda: mails_about(mail, order_id), PATIENCE_SECONDS, "the mail has arrived")
    assert mails_about(mail, order_id) == 1


@pytest.fixture
def locked_database(shop: Engine) -> Iterator[None]:
    """Let nobody else write."""
    with closing(sqlite3.connect(str(shop.url.database))) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


@pytest.mark.usefixtures("locked_database")
def test_order_that_cannot_be_recorded_is_not_confirmed(shop_processes: Shop) -> None:
    """A paid order that is not in the database ends with 503 and the id to find the payment by."""
    answer = shop_processes.order()

    document = assert_unavailable(answer, "database")
    charge = shop_processes.upstreams["payments"].http.get(f"/charges/{document['order_id']}")
    assert charge.status_code == 200


def test_recommendations_are_served_while_their_worker_is_dead(healthy_shop: Shop) -> None:
    """Without a worker the front still has what was remembered: the user's list, or the popular."""
    worker = healthy_shop.workers["recommendations"]
    worker.kill()
    try:
        seen, new = healthy_shop.get("/recommendations/7"), healthy_shop.get("/recommendations/77")
    finally:
        worker.start()

    assert (meta_of(seen)["level"], meta_of(seen)["source"]) == (1, "stale")
    assert meta_of(seen)["age"] >= 0
    assert (meta_of(new)["level"], meta_of(new)["source"]) == (3, "cached:recommendations:popular")
    assert meta_of(new)["reason"] == "AttemptTimeoutError"


def test_front_answers_while_broker_and_store_are_dead(healthy_shop: Shop) -> None:
    """Every endpoint keeps its budget and none has a 500; recommendations come from a constant."""
    healthy_shop.valkey.kill()
    try:
        answers = {path: healthy_shop.get(path) for path in READS}
        order = healthy_shop.order()
    finally:
        healthy_shop.valkey.start()

    recommendations = answers["/recommendations/7"]
    assert recommendations.json()["data"] == POPULAR
    assert (meta_of(recommendations)["level"], meta_of(recommendations)["source"]) == (3, "static")
    assert sorted(meta_of(answers["/dashboard"])["missing"]) == ["alerts", "metrics", "orders"]
    assert_unavailable(answers[QUERY], "database")
    assert_unavailable(answers["/profile/7"], "users")
    assert_unavailable(order, "users")


def test_front_answers_while_broker_and_store_hang(healthy_shop: Shop) -> None:
    """A server that takes connections and never answers is no worse than a dead one."""
    healthy_shop.valkey.send_signal(signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(8) as clients:
            crowd = [*READS, *READS]
            answers = dict(zip(crowd, clients.map(healthy_shop.get, crowd), strict=True))
        order = healthy_shop.order()
    finally:
        healthy_shop.valkey.send_signal(signal.SIGCONT)

    assert answers["/recommendations/7"].json()["data"] == POPULAR
    assert sorted(meta_of(answers["/dashboard"])["missing"]) == ["alerts", "metrics", "orders"]
    for answer in (answers[QUERY], answers["/profile/7"], order):
        assert_problem(answer, 503)


def test_control_answers_in_full_while_every_service_hangs(healthy_shop: Shop) -> None:
    """`/ping` takes the way of all endpoints and calls nobody, so no dependency makes it late."""
    for upstream in healthy_shop.upstreams.values():
        upstream.put_fault("hang")

    answer = healthy_shop.get("/ping")

    assert level_of(answer) is Level.FULL
    assert answer.json()["data"] == {"ping": "pong"}
