"""The shop's front: endpoints that answer inside their budgets, whatever happens behind them.

Nothing here calls a dependency or blocks the event loop: workers do the work, each dependency's
in a bulkhead of its own.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final

from fastapi import FastAPI, HTTPException, Path, Query
from kombu.exceptions import OperationalError

from jobs import budgets
from jobs.asking import require
from jobs.dashboard import DASHBOARD
from jobs.orders import ID_MAX, NewOrder, order_of, place
from jobs.ping import PING
from jobs.problems import explain_errors
from jobs.profile import profile_of
from jobs.recommendations import RENEW_SECONDS, Recommender, remember_popular
from jobs.search import Search
from resilience import Resilience, TimeoutBudget

PUBLISHERS: Final = 32
"""Threads that publish: a broker that hangs holds each for a second or two."""
QUERY_LENGTH_MAX: Final = 200
ANSWER_SECONDS: Final = 0.2
"""What is kept of a budget for everything but waiting, also on a busy machine."""
MOMENT_SECONDS: Final = 0.001
"""A budget that is used up is still a budget: what it asks for is refused, with a reason."""

logger = logging.getLogger(__name__)

UserId = Annotated[int, Path(ge=1, le=ID_MAX)]
Asking = Annotated[int | None, Query(ge=1, le=ID_MAX)]
"""The user who asks: there is nobody to log in with in this shop."""
OrderId = Annotated[str, Path(pattern=r"^[0-9a-f-]{36}$")]
SearchText = Annotated[
    str, Query(max_length=QUERY_LENGTH_MAX, pattern=r"^[^\x00]*[^\x00\s][^\x00]*$")
]


def create_front(resilience: Resilience) -> FastAPI:
    """Return the web service of the shop whose tasks *resilience* has adopted."""
    front = FastAPI(title="Shop", lifespan=_lifespan)
    explain_errors(front)
    recommender, search = Recommender(resilience), Search(resilience)
    session = resilience.consistent_session

    @front.get("/recommendations/{user_id}")
    async def recommendations(user_id: UserId) -> dict[str, Any]:
        outcome = await recommender.recommend(user_id)
        _found(outcome.value, user_id)
        return outcome.to_json()

    @front.post("/orders", status_code=201)
    async def orders(order: NewOrder) -> dict[str, Any]:
        budget = TimeoutBudget(budgets.PLACE_ORDER - ANSWER_SECONDS)
        async with session(order.user_id):
            taken = await place(order, budget=_left(budget))
        return taken.to_json()

    @front.get("/orders/{order_id}")
    async def order(order_id: OrderId, user_id: Asking = None) -> dict[str, Any]:
        budget = TimeoutBudget(budgets.LOOK_AT_ORDER - ANSWER_SECONDS)
        async with session(user_id):
            found = await order_of(order_id, budget=_left(budget))
        if found.value is None:
            raise HTTPException(404, f"there is no order {order_id}")
        return found.to_json()

    @front.get("/search")
    async def products(q: SearchText) -> dict[str, Any]:
        found = await search.find(q.strip(), budget=budgets.SEARCH - ANSWER_SECONDS)
        return found.to_json()

    @front.get("/profile/{user_id}")
    async def profile(user_id: UserId) -> dict[str, Any]:
        budget = TimeoutBudget(budgets.PROFILE - ANSWER_SECONDS)
        async with session(user_id):
            composed = await profile_of(user_id, budget=_left(budget))
        _found(composed.data["user"], user_id)
        return composed.to_json()

    @front.get("/dashboard")
    async def dashboard() -> dict[str, Any]:
        shown = await require(DASHBOARD, budgets.DASHBOARD - ANSWER_SECONDS)
        return shown.to_json()

    @front.get("/ping")
    async def ping() -> dict[str, Any]:
        answered = await require(PING, budgets.PING - ANSWER_SECONDS)
        return answered.to_json()

    @front.get("/health", include_in_schema=False)
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    return front


def _left(budget: TimeoutBudget) -> float:
    """Return the seconds left, once the session of the user is open; that takes time, too."""
    return max(budget.remaining(), MOMENT_SECONDS)


def _found(value: object, user_id: int) -> None:
    if value is None:
        raise HTTPException(404, f"there is no user {user_id}")


@asynccontextmanager
async def _lifespan(_front: FastAPI) -> AsyncIterator[None]:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(PUBLISHERS))
    warming = asyncio.create_task(_keep_popular_warm())
    try:
        yield
    finally:
        warming.cancel()


async def _keep_popular_warm() -> None:
    while True:
        try:
            await asyncio.to_thread(remember_popular.apply_async)
        except (OperationalError, OSError) as error:
            logger.warning("the list of what is popular is not renewed: %s", error)
        await asyncio.sleep(RENEW_SECONDS)
