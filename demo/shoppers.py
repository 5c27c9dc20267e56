"""Users who buy something and look at it at once, while others look at it, too."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from time import perf_counter
from typing import Any, Final

import httpx

from demo.traffic import PROBLEM, REGULARS, Sample, ask, begin_on_time, order_request
from jobs import catalogue

NOT_FOUND: Final = 404
PLACED: Final = 201
OLD_ORDERS: Final = 200
"""So many of the orders that were there from the beginning are looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderRead:
    """One look at an order that the shop had confirmed before.

    Attributes:
        order_id: Which one.
        own: Whether the user looked who placed it.
        page: Where: `order`, or `profile`, which lists a user's orders.
        sent: When, on the clock of `perf_counter`.
        seconds: From then until the whole answer was there.
        status: Of the answer; 0 if there was none.
        level: How good the answer says that this part of it is; 4: it is not served.
        shown: Whether the order is in it.
        reason: Why the request was refused, as the answer says; empty if it was not.
    """

    order_id: str
    own: bool
    page: str
    sent: float
    seconds: float
    status: int
    level: int
    shown: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Bought:
    """An order that was confirmed to its user."""

    order_id: str
    user_id: int


class Shoppers:
    """Users who buy, all with one memory of what was bought."""

    def __init__(
        self,
        front: httpx.AsyncClient,
        hear: Callable[[Sample], None],
        hear_read: Callable[[OrderRead], None],
    ) -> None:
        """Prepare.

        Args:
            front: Where they buy.
            hear: Told of every request.
            hear_read: Told what became of every look at an order.
        """
        self._front = front
        self._hear = hear
        self._hear_read = hear_read
        self._bought: list[Bought] = []
        self._dice = Random(11)  # noqa: S311 - shoppers, not secrets

    async def run(self, rate: int, stop: asyncio.Event) -> None:
        """Let *rate* users a second come until *stop*, then wait for the last."""
        await begin_on_time(rate, lambda _due: self._visit(), stop)

    async def _visit(self) -> None:
        """Buy; then look at that or, if it was not taken, at something bought before."""
        dice, user_id = self._dice, self._dice.randint(1, REGULARS)
        request = order_request(self._front, user_id, dice)
        sample, answer = await ask(self._front, "orders", request, perf_counter())
        self._hear(sample)
        if answer is not None and answer.status_code == PLACED:
            own = Bought(answer.json()["data"]["order"]["order_id"], user_id)
            self._bought.append(own)
        elif self._bought:
            own = dice.choice(self._bought)
        else:
            return
        others = dice.choice(self._bought)
        old = catalogue.order(dice.randint(1, OLD_ORDERS))
        await asyncio.gather(
            self._look(own.order_id, own.user_id, own=True),
            self._look(others.order_id, others.user_id % REGULARS + 1, own=False),
            self._look(old.id, user_id, own=old.user_id == user_id),
            self._look_at_profile(own),
        )

    async def _look(self, order_id: str, user_id: int, *, own: bool) -> None:
        params = {"user_id": user_id}
        request = self._front.build_request("GET", f"/orders/{order_id}", params=params)
        sample, answer = await self._ask("order", request)
        shown = sample.status == httpx.codes.OK and _body(answer)["data"]["order_id"] == order_id
        seen = {"own": own, "shown": shown, "level": sample.level, "reason": _reason(answer)}
        self._note(sample, order_id, page="order", **seen)

    async def _look_at_profile(self, own: Bought) -> None:
        request = self._front.build_request("GET", f"/profile/{own.user_id}")
        sample, answer = await self._ask("profile", request)
        meta, shown, level = sample.meta, False, sample.level
        if sample.status == httpx.codes.OK:
            orders = _body(answer)["data"].get("orders", [])
            shown = any(one["order_id"] == own.order_id for one in orders)
            level = int("orders" in {*meta.get("degraded", ()), *meta.get("missing", ())})
        seen = {"own": True, "shown": shown, "level": level, "reason": _reason(answer)}
        self._note(sample, own.order_id, page="profile", **seen)

    async def _ask(
        self, endpoint: str, request: httpx.Request
    ) -> tuple[Sample, httpx.Response | None]:
        sample, answer = await ask(self._front, endpoint, request, perf_counter())
        if endpoint != "order" or sample.status != NOT_FOUND:
            self._hear(sample)  # an order that is not found is judged by what is known of it
        return sample, answer

    def _note(self, sample: Sample, order_id: str, *, page: str, **seen: Any) -> None:  # noqa: ANN401 - fields
        self._hear_read(
            OrderRead(
                order_id=order_id,
                page=page,
                sent=sample.sent,
                seconds=sample.seconds,
                status=sample.status,
                **seen,
            )
        )


def _body(answer: httpx.Response | None) -> Any:  # noqa: ANN401 - any JSON
    return {} if answer is None else answer.json()


def _reason(answer: httpx.Response | None) -> str:
    explained = answer is not None and answer.headers.get("Content-Type") == PROBLEM
    return str(_body(answer)["detail"]) if explained else ""
