"""What is proved of the shop: each endpoint under every fault; see docs/proving.md.

`python -m demo.proof --all` runs all of it on upstream services of its own.
"""

from collections.abc import Mapping
from typing import Any, Final

from celery import current_app

from jobs import budgets, catalogue
from jobs.dashboard import DASHBOARD
from jobs.orders import NewOrder, order_of, place
from jobs.profile import profile_of
from jobs.recommendations import Recommender
from jobs.search import Search
from resilience import Level, Outcome, PartialResponse, Resilience
from resilience.chaos import Call

USER: Final = 7
ORDER: Final = NewOrder(user_id=USER, product_id=9, quantity=2)
QUERY: Final = "oak chair"
ANSWER_SECONDS: Final = 0.2
"""Kept of each budget for all but waiting, as in the front."""


async def recommend() -> Outcome[Any]:
    """Recommend something to a user."""
    return await Recommender(_adopted()).recommend(USER)


async def order() -> PartialResponse:
    """Take an order."""
    async with _adopted().consistent_session(USER):
        return await place(ORDER, budget=budgets.PLACE_ORDER - ANSWER_SECONDS)


async def look_at_order() -> Outcome[Any]:
    """Show an order of the past."""
    async with _adopted().consistent_session(USER):
        known = catalogue.order(1).id
        return await order_of(known, budget=budgets.LOOK_AT_ORDER - ANSWER_SECONDS)


async def search() -> PartialResponse:
    """Search."""
    return await Search(_adopted()).find(QUERY, budget=budgets.SEARCH - ANSWER_SECONDS)


async def profile() -> PartialResponse:
    """Show what is known of a user."""
    async with _adopted().consistent_session(USER):
        return await profile_of(USER, budget=budgets.PROFILE - ANSWER_SECONDS)


def _adopted() -> Resilience:
    return Resilience.of(current_app)


CALLS: Final[Mapping[str, Call]] = {
    "recommendations": Call(recommend, budget=budgets.RECOMMENDATIONS, worst=Level.STATIC),
    "order": Call(order, budget=budgets.PLACE_ORDER, required=["users", "database", "payments"]),
    "look at order": Call(look_at_order, budget=budgets.LOOK_AT_ORDER, required=["database"]),
    "search": Call(search, budget=budgets.SEARCH, worst=Level.REDUCED, required=["database"]),
    "profile": Call(profile, budget=budgets.PROFILE, required=["users"]),
    "dashboard": Call(DASHBOARD, budget=budgets.DASHBOARD, worst=Level.REDUCED),
}
"""By endpoint. An order needs a user, a price, a payment and its record; a mail it does not."""
