"""What the upstream services know, and that the shop's database knows the same."""

from collections.abc import Mapping

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from jobs.models import Product, User
from tests.acceptance.upstream import Upstream


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
        pytest.param({"amount_cents": 0}, 422, id="no-amount"),
        pytest.param({"currency": "EUR"}, 422, id="unknown-name"),
    ],
)
def test_charge_that_contradicts_itself_is_refused(
    upstreams: Mapping[str, Upstream], change: Mapping[str, object], status: int
) -> None:
    """An order is never charged twice with different sums, nor with nonsense."""
    http = upstreams["payments"].http
    charge = {"order_id": "clash", "user_id": 7, "amount_cents": 1}
    http.post("/charges", json=charge).raise_for_status()

    answer = http.post("/charges", json={**charge, **change})

    assert answer.status_code == status
    assert answer.json()["status"] == status
    assert http.get("/charges/clash").json()["amount_cents"] == 1


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
    assert 2 <= len(http.get("/users/7/notifications").json()) <= 4


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
    """What does not exist is said to be missing, in the form all errors have."""
    answer = upstreams[service].http.get(path)

    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_recommendations_are_products_the_users_segment_buys(
    upstreams: Mapping[str, Upstream], shop: Engine
) -> None:
    """Every list holds ten products of the shop; the personal one stays in the segment."""
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
    assert len(kinds[0] | kinds[1]) <= 3


def test_search_ranks_what_is_asked_for_first(
    upstreams: Mapping[str, Upstream], shop: Engine
) -> None:
    """The product whose name is the query wins against others, however popular."""
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
    """A query without words, or with ids that are none, is the caller's mistake."""
    assert upstreams["search"].http.get(f"/rank{query}").status_code == 422


def test_search_corrects_words_and_reports_its_queries(
    upstreams: Mapping[str, Upstream],
) -> None:
    """A misspelt word becomes the shop's word, a strange one stays; both are measured."""
    http = upstreams["search"].http

    answer = http.get("/spell", params={"q": "Wolnut chiar qqqq"}).json()

    report = http.get("/metrics").json()
    assert answer == {"query": "Wolnut chiar qqqq", "corrected": "walnut chair qqqq"}
    assert report["queries_per_minute"] >= 1
    assert report["median_ms"] > 0
