"""What to show to whom: the longest fallback chain of the shop.

| level | source | where it comes from |
|---|---|---|
| FULL | the service | a list made for the user |
| STALE | `stale` | the last list made for the user |
| REDUCED | `for_segment` | what sells best in the user's segment, from our own database |
| STATIC | `cached:…` | the service's last list of what is popular |
| STATIC | `static` | a constant |
"""

from typing import Any, Final

from celery import shared_task
from sqlalchemy import select

from jobs.asking import ask_one, workers_pipeline
from jobs.catalogue import POPULAR
from jobs.clients import fetch
from jobs.models import Product, User
from jobs.storage import open_session
from jobs.words import SEGMENTS
from resilience import FanOut, Level, Outcome, Resilience, ResilientTask, fallback, part
from resilience.errors import NoStoredAnswerError

POPULAR_NAME: Final = "recommendations:popular"
POPULAR_SECONDS: Final = 7 * 86_400.0
RENEW_SECONDS: Final = 60.0
STALE_SECONDS: Final = 3_600.0
LIST_LENGTH: Final = 10
WORKER_SECONDS: Final = 0.75
"""How long the front waits for a worker, before it answers without one."""


def for_segment(user_id: int) -> list[int]:
    """Return what sells best in the segment of a user.

    Raises:
        NoStoredAnswerError: The database does not know the user.
    """
    with open_session() as session:
        segment = session.scalar(select(User.segment).where(User.id == user_id))
        if segment is None:
            msg = f"no user {user_id}"
            raise NoStoredAnswerError(msg)
        liked = select(Product.id).where(Product.category.in_(SEGMENTS[segment]))
        best = liked.order_by(Product.popularity.desc(), Product.id).limit(LIST_LENGTH)
        return list(session.scalars(best))


@shared_task(
    base=ResilientTask,
    dependency="recommendations",
    fallbacks=[
        fallback.stale(max_age=STALE_SECONDS),
        fallback.call(for_segment, level=Level.REDUCED),
        fallback.cached(POPULAR_NAME),
        fallback.static(POPULAR),
    ],
)
def personalised(user_id: int) -> list[int] | None:
    """Return product ids for a user, the best first; None: there is no such user."""
    ids: list[int] | None = fetch("recommendations", f"/personalised/{user_id}")
    return ids


@shared_task(
    base=ResilientTask,
    dependency="recommendations",
    bind=True,
    ignore_result=True,
    expires=RENEW_SECONDS,  # then the next one is published; this one may be lost
)
def remember_popular(self: ResilientTask) -> None:
    """Keep the service's list of what is popular, for the day when it does not answer."""
    popular = fetch("recommendations", "/popular")
    self.resilience.answers.remember(POPULAR_NAME, popular, max_age=POPULAR_SECONDS)


class Recommender:
    """Recommendations for the front, which has an answer also when no worker has."""

    def __init__(self, resilience: Resilience) -> None:
        """Prepare the chain of the caller's side."""
        self._pipeline = workers_pipeline(
            resilience,
            "recommendations",
            fallbacks=[fallback.cached(POPULAR_NAME), fallback.static(POPULAR)],
        )

    async def recommend(self, user_id: int) -> Outcome[Any]:
        """Return product ids for a user within a second; the value None: there is no such user."""
        outcome: Outcome[Any] = await self._pipeline.call_async(_ask_worker, user_id)
        return outcome


async def _ask_worker(user_id: int) -> Outcome[Any]:
    # What was the last full answer is known to the fan-out, too: it needs no worker to tell.
    wanted = FanOut(recommendations=part(personalised.s(user_id), stale=STALE_SECONDS))
    return await ask_one(wanted, WORKER_SECONDS)
