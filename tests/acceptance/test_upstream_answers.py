"""What the upstream services answer, and that it agrees with the shop's database."""

from collections.abc import Mapping

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from jobs.models import Product, User
from jobs.words import SEGMENTS
from tests.acceptance.upstream import Upstream

QUERIES = 20
"""More than other tests ask within a minute."""


def test_charge_takes_money_once_per_order(upstreams: Mapping[str, Upstream]) -> None:
    """The same order gets the same charge, however often it is sent."""
    http = upstreams["payments"].http
    charge = {"order_id": "once", "user_id": 7, "amount_cents": 1999}

    first, second = http.post("/charges", json=charge), http.post("/charges", json=charge)

    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json()["status"] == second.json()["status"] == "captured"
    assert first.json()["charge_id"] == second.json()["charge_id"]
    assert (first.json()["repeated"], second.json()["repeated"]) == (False, True)
    assert http.get("/charges/once").json()["amount_cents"] == 1999


@pytest.mark.parametrize(
    ("change", "status"),
    [
        pytest.param({"amount_cents": 2}, 409, id="another-amount"),
        pytest.param({"user_id": 8}, 409, id="another-user"),
        pytest.param({"amount_cents": 0}, 422, id="no-amount"),
        pytest.param({"currency": "EUR"}, 422, id="unknown-name"),
    ],
)
def test_charge_that_contradicts_itself_is_refused(
    upstreams: Mapping[str, Upstream], change: Mapping[str, object], status: int
) -> None:
    """A second charge of an order with another sum or user, or a malformed one, changes nothing."""
    http = upstreams["payments"].http
    charge = {"order_id": "clash", "user_id": 7, "amount_cents": 1}
    http.post("/charges", json=charge).raise_for_status()

    answer = http.post("/charges", json={**charge, **change})

    assert answer.status_code == status
    assert answer.json()["status"] == status
    kept = http.get("/charges/clash").json()
    assert (kept["user_id"], kept["amount_cents"]) == (7, 1)


def test_users_service_agrees_with_the_database(
    upstreams: Mapping[str, Upstream], shop: Engine
) -> None:
    """A user is the same person in the service and in the shop's own table."""
    http = upstreams["users"].http
    with Session(shop) as session:
        stored = session.get_one(User, 7)
        expected = {
            "id": 7, "name": stored.name, "email": stored.email, "segment": stored.segment,
        }  # fmt: skip

    assert http.get("/users/7").json() == expected
    assert http.get("/users/7/segment").json() == {"segment": expected["segment"]}


def test_notifications_are_those_of_the_user(upstreams: Mapping[str, Upstream]) -> None:
    """Two to four different texts, the same at each look, and other ones for another user."""
    http = upstreams["users"].http
    own, again, others = (http.get(f"/users/{user}/notifications").json() for user in (7, 7, 8))

    assert own == again
    assert 2 <= len(set(own)) == len(own) <= 4
    assert set(own) != set(others)


@pytest.mark.parametrize(
    ("service", "path"),
    [
        pytest.param("users", "/users/2001", id="user"),
        pytest.param("recommendations", "/personalised/0", id="personalised"),
        pytest.param("recommendations", "/segments/nobody", id="segment"),
        pytest.param("payments", "/charges/never", id="charge"),
        pytest.param("search", "/nowhere", id="path"),
    ],
)
def test_unknown_thing_is_a_404_problem(
    upstreams: Mapping[str, Upstream], service: str, path: str
) -> None:
    """A missing thing is reported in the form that all errors have."""
    answer = upstreams[service].http.get(path)

    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_recommendations_are_products_the_users_segment_buys(
    upstreams: Mapping[str, Upstream], shop: Engine
) -> None:
    """Every list holds ten products of the shop; those of a segment are what it buys."""
    http = upstreams["recommendations"].http
    with Session(shop) as session:
        segment = session.get_one(User, 7).segment
        best = session.scalars(
            select(Product.id).order_by(Product.popularity.desc(), Product.id).limit(10)
        ).all()
        lists = [http.get(path).json() for path in ("/personalised/7", f"/segments/{segment}")]
        kinds = [
            set(session.scalars(select(Product.category).where(Product.id.in_(ids))))
            for ids in lists
        ]

    assert http.get("/popular").json() == best
    assert [len(set(ids)) for ids in lists] == [10, 10]
    assert lists[0] != lists[1]
    for found in kinds:
        assert found
        assert found <= {*SEGMENTS[segment]}
    assert not set(best) <= {*lists[0], *lists[1]}


def test_search_ranks_what_is_asked_for_first(
    upstreams: Mapping[str, Upstream], shop: Engine
) -> None:
    """The product whose name is the query ranks above others, however popular these are."""
    http = upstreams["search"].http
    with Session(shop) as session:
        popular = session.scalars(select(Product).order_by(Product.popularity.desc()).limit(20))
        ids = [*(item.id for item in popular), 42]
        name = session.get_one(Product, 42).name

    answer = http.get("/rank", params={"q": name, "ids": ",".join(map(str, ids))}).json()

    scores = [one["score"] for one in answer["scores"]]
    assert answer["scores"][0]["id"] == 42
    assert sorted(scores, reverse=True) == scores
    assert len(scores) == 21
    assert all(0 <= score <= 1 for score in scores)


@pytest.mark.parametrize("query", ["", "?q=", "?q=a&ids=x", "?q=a&ids=3001"])
def test_search_refuses_what_it_cannot_rank(upstreams: Mapping[str, Upstream], query: str) -> None:
    """A query without words, or with malformed or unknown ids, is the caller's mistake."""
    assert upstreams["search"].http.get(f"/rank{query}").status_code == 422


def test_search_corrects_words_and_reports_its_queries(
    upstreams: Mapping[str, Upstream],
) -> None:
    """A misspelt word becomes one of the shop's, an unknown word stays; queries are counted."""
    http = upstreams["search"].http
    query = {"q": "Wolnut chiar qqqq"}

    answer, *_ = (http.get("/spell", params=query).json() for _ in range(QUERIES))

    report = http.get("/metrics").json()
    assert answer == {"query": "Wolnut chiar qqqq", "corrected": "walnut chair qqqq"}
    assert report["queries_per_minute"] >= QUERIES
    assert report["median_ms"] > 0
