"""Canvases with members that a full bulkhead refuses: a caller gets an answer or the refusal."""

from uuid import uuid4

import pytest
from celery import chain, chord, group

from resilience import BulkheadFullError, FanOut, Level, Outcome, part
from tests.integration.admission_stage import SECONDS, Shop, running, shop

__all__ = ["running", "shop"]
pytestmark = pytest.mark.filterwarnings("default:Call to deprecated setex:DeprecationWarning")


def test_task_with_fallbacks_is_answered_where_it_is_published(shop: Shop) -> None:
    """The result is ready and holds the outcome, and the backend keeps the same under its id."""
    shop.fill(9)

    result = shop.made.designed.delay()

    expected = Outcome(
        value="instead",
        level=Level.STATIC,
        reason="BulkheadFullError",
        source="static",
        dependency="shop",
    )
    assert result.ready()
    assert result.get() == expected
    assert shop.app.AsyncResult(result.id).get(timeout=SECONDS) == expected
    assert shop.depth() == 9


def test_link_and_chain_go_on_with_the_answer_of_the_publisher(shop: Shop) -> None:
    """Callbacks and the next step are published with the outcome."""
    shop.fill(9)
    key = uuid4().hex

    shop.made.designed.apply_async(link=shop.made.collect.signature(kwargs={}, args=(key,)))
    last = chain(shop.made.designed.s(), shop.made.visit.si(key, "second")).apply_async()

    assert shop.waiting("free") == ["collect"]
    assert shop.waiting("shop") == ["visit"]  # a chain that has begun is not refused
    assert last.parent is not None


def test_chain_is_refused_by_its_first_step(shop: Shop) -> None:
    """Without a fallback nothing of it is published."""
    shop.fill(9)

    with pytest.raises(BulkheadFullError):
        chain(shop.made.plain.s(1), shop.made.plain.s()).apply_async()

    assert shop.depth() == 9


def test_refused_member_of_a_group_fails_in_its_place(shop: Shop) -> None:
    """The others are published, and the result of the group says why one is missing."""
    shop.fill(7)

    result = group(shop.made.plain.s(n) for n in range(3)).apply_async()

    assert shop.depth() == 9
    with pytest.raises(BulkheadFullError):
        result.results[2].get(timeout=SECONDS)


def test_refused_member_of_a_group_whose_result_nobody_keeps_is_raised(shop: Shop) -> None:
    """Nobody would hear of it otherwise."""
    shop.fill(9)

    with pytest.raises(BulkheadFullError):
        group(shop.made.plain.s(n).set(ignore_result=True) for n in range(2)).apply_async()


def test_chord_with_a_refused_member_fails_and_one_with_fallbacks_is_done(shop: Shop) -> None:
    """Neither is left hanging: the body fails, or gets the outcome."""
    shop.fill(9)
    key = uuid4().hex

    lost = chord([shop.made.plain.s(1), shop.made.plain.s(2)], shop.made.collect.si(key, 0))()
    done = chord([shop.made.designed.s(), shop.made.designed.s()], shop.made.collect.s(key))

    with pytest.raises(BulkheadFullError):  # that of the member which the body waited for
        lost.get(timeout=SECONDS)
    done()
    assert shop.waiting("free") == ["collect"]


def test_part_of_a_fan_out_gets_its_answer_or_says_why_it_is_missing(shop: Shop) -> None:
    """The response is there at once: nothing is waited for."""
    shop.fill(9)
    dashboard = FanOut(good=part(shop.made.designed.s()), bad=part(shop.made.plain.s(1)))

    response = dashboard.apply_async(budget=SECONDS).get()

    assert response.missing == ["bad"]
    assert response.reasons["bad"] == "BulkheadFullError"
    assert response.degraded == ["good"]
    assert response.to_json()["data"]["good"] == "instead"
    assert shop.depth() == 9
