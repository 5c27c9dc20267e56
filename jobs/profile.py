"""One page made of what four services know of a user, one after the other under one budget."""

from typing import Any, Final

from jobs.asking import Composite
from jobs.catalogue import POPULAR
from jobs.orders import get_orders
from jobs.recommendations import personalised
from jobs.users import get_notifications, get_user
from resilience import Level, Outcome, PartialResponse, TimeoutBudget, part
from resilience.partial import assemble

STALE_SECONDS: Final = 600.0
USER_SHARE: Final = 0.4
RECOMMENDATIONS_SHARE: Final = 0.3
ORDERS_SHARE: Final = 0.15
BEST_SELLERS: Final = Outcome(value=list(POPULAR), level=Level.STATIC, source="default")
NO_ORDERS: Final = Outcome(value=list[Any](), level=Level.REDUCED, source="default")
NO_NOTIFICATIONS: Final = Outcome(value=list[str](), level=Level.REDUCED, source="default")


async def profile_of(user_id: int, *, budget: float) -> PartialResponse:
    """Return a user's data, recommendations, orders, notifications; only `user`, None, if unknown.

    What a service leaves of its share is there for the next one.

    Raises:
        NotServedError: The user is not to be had, fresh or stale.
    """
    async with TimeoutBudget(budget) as whole:
        page = Composite(whole)
        user = part(get_user.s(user_id), required=True, stale=STALE_SECONDS)
        if await page.ask("user", user, allocation=USER_SHARE) is not None:
            await page.ask(
                "recommendations",
                part(personalised.s(user_id)),
                allocation=RECOMMENDATIONS_SHARE,
                default=BEST_SELLERS,
            )
            await page.ask(
                "orders", part(get_orders.s(user_id)), allocation=ORDERS_SHARE, default=NO_ORDERS
            )
            await page.ask(
                "notifications", part(get_notifications.s(user_id)), default=NO_NOTIFICATIONS
            )
    return assemble(page.parts)
