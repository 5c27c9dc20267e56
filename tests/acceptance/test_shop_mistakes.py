"""What a client of the shop did wrong is said to be its mistake."""

from collections.abc import Mapping

import pytest

from tests.acceptance.answers import assert_problem
from tests.acceptance.shop import ORDER, Shop

NO_ORDER = "/orders/00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        pytest.param("/recommendations/99999", 404, id="unknown-user"),
        pytest.param("/profile/99999", 404, id="unknown-profile"),
        pytest.param("/recommendations/seven", 422, id="no-number"),
        pytest.param("/profile/99999999999999999999", 422, id="number-too-large"),
        pytest.param("/search", 422, id="no-query"),
        pytest.param("/search?q=%20", 422, id="blank-query"),
        pytest.param("/search?q=a%00b", 422, id="zero-byte"),
        pytest.param("/search?q=" + "x" * 201, 422, id="query-too-long"),
        pytest.param("/orders", 405, id="wrong-method"),
        pytest.param(NO_ORDER, 404, id="unknown-order"),
        pytest.param("/orders/seven", 422, id="no-id-of-an-order"),
        pytest.param(f"{NO_ORDER}?user_id=0", 422, id="no-user"),
        pytest.param("/nothing", 404, id="unknown-path"),
    ],
)
def test_bad_request_is_explained(healthy_shop: Shop, path: str, status: int) -> None:
    """What the client did wrong is a problem document, never a 500 and never a degraded answer."""
    assert_problem(healthy_shop.front.get(path), status)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"user_id": 99_999}, id="unknown-user"),
        pytest.param({"product_id": 99_999}, id="unknown-product"),
        pytest.param({"quantity": 0}, id="nothing"),
        pytest.param({"quantity": "2"}, id="text"),
        pytest.param({"price_cents": 1}, id="own-price"),
    ],
)
def test_bad_order_is_refused(healthy_shop: Shop, change: Mapping[str, object]) -> None:
    """An order that cannot be is refused before anybody is charged."""
    charges = healthy_shop.upstreams["payments"].http
    before = charges.get("/stats").json()["calls"]

    assert_problem(healthy_shop.front.post("/orders", json={**ORDER, **change}), 422)

    assert charges.get("/stats").json()["calls"] == before


def test_order_without_json_is_refused(healthy_shop: Shop) -> None:
    """A body that is no JSON is the client's mistake."""
    broken = healthy_shop.front.post(
        "/orders", content="{", headers={"Content-Type": "application/json"}
    )

    assert_problem(broken, 422)


def test_order_without_end_is_refused(healthy_shop: Shop) -> None:
    """The front keeps none of 20 MB in memory, and serves the next client."""
    head = {"Content-Type": "application/json"}

    assert_problem(healthy_shop.front.post("/orders", content=b"[" * 20_000_000, headers=head), 413)

    assert healthy_shop.front.get("/health").is_success
