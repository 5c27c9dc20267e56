"""Requests of the shop's users: an open loop, which asks on time however slow the answers are."""

import asyncio
import itertools
import math
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from time import perf_counter
from typing import Any, Final

import httpx

from jobs import budgets, catalogue, words
from jobs.confirmation import QUEUED, confirmation_id

RATES: Final[Mapping[str, int]] = {
    "recommendations": 3,
    "orders": 4,
    "search": 5,
    "profile": 2,
    "dashboard": 4,
}
"""Requests per second by endpoint: half of what two processors could serve."""
PROBING: Final = ("recommendations", "profile")
LOW_RATES: Final[Mapping[str, int]] = {
    name: rate if name in PROBING else math.ceil(rate / 2) for name, rate in RATES.items()
}
"""Half of it, but for those whose calls probe what was broken: recovery waits for five of them."""
CONTROL: Final = "ping"
"""The endpoint that calls no dependency; asked all the while, besides the others."""
CONTROL_RATE: Final = 8
BUDGETS: Final[Mapping[str, float]] = {
    "recommendations": budgets.RECOMMENDATIONS,
    "orders": budgets.PLACE_ORDER,
    "search": budgets.SEARCH,
    "profile": budgets.PROFILE,
    "dashboard": budgets.DASHBOARD,
    "order": budgets.LOOK_AT_ORDER,
    CONTROL: budgets.PING,
}
TOLERANCE: Final = 1.1
BEHIND_SECONDS: Final = 1.0
"""What was due so long ago that this process has had no time since is not sent any more."""
GIVE_UP_SECONDS: Final = 10.0
REGULARS: Final = 40
"""Users who come again and again, so that the shop has seen them; one in ten requests is not."""
FAILED_LEVEL: Final = 4
UNAVAILABLE: Final = 503
PROBLEM: Final = "application/problem+json"
SHED: Final = "FeatureShedError"
NOTHING: Final[Mapping[str, Any]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One request and what came of it.

    Attributes:
        endpoint: Which of the five, `order` for what is bought being looked at, or the control.
        sent: When it was due, on the clock of `perf_counter`.
        seconds: From then until the whole answer was there.
        status: Of the answer; 0 if there was none.
        meta: What the answer says of itself.
        error: What went wrong besides a level-4 answer, empty if nothing.
        held: How many of the seconds passed before it was sent: this process was late itself.
        mail: Message-ID of the mail that the answer promises, empty if none.
    """

    endpoint: str
    sent: float
    seconds: float
    status: int
    meta: Mapping[str, Any]
    error: str = ""
    held: float = 0.0
    mail: str = ""

    @property
    def level(self) -> int:
        """How good the answer says it is; a 503 that explains itself is level 4."""
        return FAILED_LEVEL if self.status == UNAVAILABLE else int(self.meta.get("level", 0))

    @property
    def shed(self) -> bool:
        """Whether it lacks nothing but what shed features would have brought."""
        reasons = set(self.meta.get("reasons", {}).values())
        return reasons == {SHED}

    @property
    def late(self) -> bool:
        """Whether it took more than the endpoint's budget and 10 %."""
        return self.seconds > TOLERANCE * BUDGETS[self.endpoint]


def percentile(samples: Iterable[Sample], share: float) -> float:
    """Return the seconds within which *share* of the samples were answered (nearest rank)."""
    return nearest_rank([sample.seconds for sample in samples], share)


def nearest_rank(values: Sequence[float], share: float) -> float:
    """Return what *share* of the values do not exceed; NaN if there are none."""
    return sorted(values)[math.ceil(share * len(values)) - 1] if values else math.nan


class Traffic:
    """A fixed rate of requests until it is told to stop."""

    def __init__(
        self, front: httpx.AsyncClient, rates: Mapping[str, int], hear: Callable[[Sample], None]
    ) -> None:
        """Send to *front*, by endpoint so many requests a second; *hear* is told of every one."""
        self._front = front
        self._rates = rates
        self._hear = hear
        self._dice = Random(7)  # noqa: S311 - shoppers, not secrets

    async def run(self, stop: asyncio.Event) -> None:
        """Send until *stop*, then wait for the answers that are due."""
        endpoints = self._endpoints()
        rate = sum(self._rates.values())
        await begin_on_time(rate, lambda due: self._ask(next(endpoints), due), stop)

    def _endpoints(self) -> Iterator[str]:
        """Yield endpoints for ever, each evenly spread over every second."""
        times = [(nth / rate, name) for name, rate in self._rates.items() for nth in range(rate)]
        return itertools.cycle(name for _, name in sorted(times))

    async def _ask(self, endpoint: str, due: float) -> None:
        sample, _ = await ask(self._front, endpoint, self._request(endpoint), due)
        self._hear(sample)

    def _request(self, endpoint: str) -> httpx.Request:
        dice = self._dice
        user_id = dice.randint(1, REGULARS if dice.randrange(10) else catalogue.USER_COUNT)
        if endpoint == "orders":
            return order_request(self._front, user_id, dice)
        if endpoint == "search":
            material, nouns = dice.choice(words.MATERIALS), dice.choice([*words.NOUNS.values()])
            text = f"{material} {dice.choice(nouns)}"
            return self._front.build_request("GET", "/search", params={"q": text})
        path = f"/{endpoint}" if endpoint in {"dashboard", CONTROL} else f"/{endpoint}/{user_id}"
        return self._front.build_request("GET", path)


async def begin_on_time(
    rate: int, begin: Callable[[float], Coroutine[Any, Any, None]], stop: asyncio.Event
) -> None:
    """Call *begin* with the time at which it is due, *rate* times a second.

    Returns once *stop* is set and all that was begun has ended.
    """
    due = perf_counter()
    async with asyncio.TaskGroup() as under_way:
        while not stop.is_set():
            await asyncio.sleep(due - perf_counter())
            # Else all of them would be sent at once, to a machine that is overloaded as it is.
            due = max(due, perf_counter() - BEHIND_SECONDS)
            under_way.create_task(begin(due))
            due += 1 / rate


def order_request(front: httpx.AsyncClient, user_id: int, dice: Random) -> httpx.Request:
    """Return a user's order of something."""
    product_id, quantity = dice.randint(1, catalogue.PRODUCT_COUNT), dice.randint(1, 3)
    order = {"user_id": user_id, "product_id": product_id, "quantity": quantity}
    return front.build_request("POST", "/orders", json=order)


async def ask(
    front: httpx.AsyncClient, endpoint: str, request: httpx.Request, due: float
) -> tuple[Sample, httpx.Response | None]:
    """Send *request*, which was *due* then, and return what came of it, and the answer if any."""
    status, held, mail = 0, perf_counter() - due, ""
    answer: httpx.Response | None = None
    try:
        answer = await front.send(request)
    except httpx.HTTPError as problem:
        meta, error = NOTHING, type(problem).__name__
    else:
        status = answer.status_code
        meta, error = _read(answer)
        mail = _promised_mail(answer) if endpoint == "orders" and answer.is_success else ""
    sample = Sample(
        endpoint=endpoint,
        sent=due,
        seconds=perf_counter() - due,
        status=status,
        meta=meta,
        error=error,
        held=held,
        mail=mail,
    )
    return sample, answer


def _read(answer: httpx.Response) -> tuple[Mapping[str, Any], str]:
    """Return what an answer says of itself, and what is wrong with it."""
    kind = answer.headers.get("Content-Type", "")
    if answer.is_success:
        return answer.json()["_meta"], ""
    if answer.status_code != UNAVAILABLE:
        return NOTHING, f"HTTP {answer.status_code}"
    if kind != PROBLEM or "Retry-After" not in answer.headers:
        return NOTHING, "503 without a reason"
    return NOTHING, ""


def _promised_mail(answer: httpx.Response) -> str:
    """Return the Message-ID of the mail that an order's answer promises, empty if it does not."""
    data = answer.json()["data"]
    queued = data.get("notification") == QUEUED
    return confirmation_id(data["order"]["order_id"]) if queued else ""
