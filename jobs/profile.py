"""One page made of what three services know of a user, under one budget."""

from dataclasses import replace
from typing import Any, Final

from jobs.asking import require
from jobs.catalogue import POPULAR
from jobs.recommendations import personalised
from jobs.users import get_notifications, get_user
from resilience import FanOut, Level, PartialResponse, part

STALE_SECONDS: Final = 600.0


async def profile_of(user_id: int, *, budget: float) -> PartialResponse:
    """Return a user's data, recommendations and notifications; `user` is None if unknown.

    Raises:
        NotServedError: The user is not to be had, fresh or stale.
    """
    wanted = FanOut(
        user=part(get_user.s(user_id), required=True, stale=STALE_SECONDS),
        recommendations=part(personalised.s(user_id)),
        notifications=part(get_notifications.s(user_id)),
    )
    response = await require(wanted, budget)
    return with_default(response, "recommendations", list(POPULAR))


def with_default(response: PartialResponse, name: str, value: Any) -> PartialResponse:  # noqa: ANN401 - any JSON
    """Return *response* with *value* for the part *name* if that is missing, at level STATIC."""
    if name not in response.missing:
        return response
    return replace(
        response,
        data={**response.data, name: value},
        missing=[other for other in response.missing if other != name],
        degraded=[*response.degraded, name],
        level=max(response.level, Level.STATIC),
        sources={**response.sources, name: "default"},
    )
