"""The response that a fan-out will have."""

import asyncio
import threading
from collections.abc import Iterator, Sequence

from resilience.clock import Clock, SystemClock
from resilience.consistency import Token
from resilience.errors import StoreUnavailableError, text_of
from resilience.events import PublishFailed
from resilience.partial import PartAnswer, PartialResponse, assemble
from resilience.store import Record
from resilience.tasks.positions import token_here
from resilience.tasks.publishing import PublishTimeoutError, publish_within
from resilience.tasks.resilience import Resilience
from resilience.tasks.response import (
    announce_finished,
    came_in,
    part_answer,
    publish_callback,
    respond,
)

RESERVE_SHARE = 0.05
"""Share of the budget kept for assembling the response, so that it is not late."""
RESERVE_SECONDS_MAX = 0.05
AGAIN_SECONDS = 0.05
"""Pause before a store that broke off is asked again."""


class PendingResponse:
    """A handle on a running fan-out.

    `get`, `aget` and `stream` may be called in any number and from any thread; all see the
    same response, for five minutes after the fan-out has ended.

    Attributes:
        id: The fan-out's id.
    """

    def __init__(
        self,
        resilience: Resilience,
        fan: str,
        spec: Sequence[tuple[str, bool]],
        *,
        budget: float,
        clock: Clock | None = None,
    ) -> None:
        """Start the budget of *budget* seconds."""
        self.id = fan
        self._resilience = resilience
        self._spec = spec
        self._clock = clock or SystemClock()
        reserve = min(budget * RESERVE_SHARE, RESERVE_SECONDS_MAX)
        self._began = self._clock.monotonic()
        self._until = self._began + budget - reserve
        self._lost: PartialResponse | None = None

    def get(self) -> PartialResponse:
        """Return the response once it is final, at the latest when the budget is spent.

        Never raises for missing parts or a lost store: the response says what is missing.
        """
        while self._lost is None:
            left = self.left()
            try:
                if left <= 0:
                    self.finish("deadline")
                elif not self._resilience.fan_in.wait_done(self.id, left):
                    continue
                record = self._resilience.fan_in.collect(self.id)
            except StoreUnavailableError as error:
                if left <= 0:
                    self._lost = self._without_store(error)
                    break
                threading.Event().wait(min(AGAIN_SECONDS, left))
            else:
                return self._respond(record)
        return self._lost

    async def aget(self) -> PartialResponse:
        """Do the same as `get` without blocking the event loop."""
        while self._lost is None:
            left = self.left()
            try:
                if left <= 0:
                    await self._resilience.fan_in.finish_async(self.id, "deadline", lease_seconds=0)
                elif not await self._resilience.fan_in.wait_done_async(self.id, left):
                    continue
                record = await self._resilience.fan_in.collect_async(self.id)
            except StoreUnavailableError as error:
                if left <= 0:
                    self._lost = self._without_store(error)
                    break
                await asyncio.sleep(min(AGAIN_SECONDS, left))
            else:
                return self._respond(record)
        return self._lost

    def stream(self) -> Iterator[PartAnswer]:
        """Yield every part exactly once: those that come as they come, then the rest.

        A part that failed comes last too, as only the end tells whether a stale answer stands in.
        """
        seen: set[str] = set()
        required = dict(self._spec)
        mark, ended = "0", False
        while self._lost is None and not ended:
            left = self.left()
            if left <= 0:
                break
            try:
                mark, came, ended = self._resilience.fan_in.wait_news(self.id, mark, left)
                payloads = self._resilience.fan_in.payloads(self.id, came)
            except StoreUnavailableError:
                threading.Event().wait(min(AGAIN_SECONDS, left))
                continue
            for name, payload in payloads.items():
                if payload.startswith(b"+"):
                    seen.add(name)
                    yield came_in(name, payload, required=required[name])
        yield from self._rest(seen)

    def finish(self, why: str) -> None:
        """End the fan-out now, unless it has ended; what has not come in is missing then.

        Raises:
            StoreUnavailableError: Nobody knows whether it has ended.
        """
        # A worker publishes the callback: a broker that hangs must not make this caller late.
        self._resilience.fan_in.finish(self.id, why, lease_seconds=0)

    def finish_unpublished(self) -> None:
        """End the fan-out because its parts could not be published."""
        try:
            self.finish("unpublished")
        except StoreUnavailableError as error:
            self._lost = self._without_store(error)

    def spent(self) -> float:
        """Return the seconds since the fan-out began."""
        return self._clock.monotonic() - self._began

    def give_up(self, error: StoreUnavailableError, callback: str) -> None:
        """Answer without a store: every part is missing, and the callback hears it from here.

        Args:
            error: Why.
            callback: JSON of the signature to publish, or empty.
        """
        response = self._lost = self._without_store(error)
        if not callback:
            return

        # No part ran, and the callback sees what is seen here.
        seen = token_here() or Token()

        def publish(_: object) -> None:
            try:
                publish_callback(self._resilience, self.id, callback, response, seen)
            except Exception as also:  # noqa: BLE001 - nobody else would say it
                self._lose_callback(also)

        try:
            # Begun even if the budget is spent: it ends beside the caller.
            publish_within(self.left(), publish)
        except PublishTimeoutError as also:
            self._lose_callback(also)

    def left(self) -> float:
        """Return the seconds until the response must be put together."""
        return self._until - self._clock.monotonic()

    def _lose_callback(self, error: Exception) -> None:
        what = f"callback of fan-out {self.id}"
        self._resilience.announce(PublishFailed(what=what, error=text_of(error)))

    def _respond(self, record: Record | None) -> PartialResponse:
        if record is None:
            return self._missing("the response was kept for five minutes and is gone")
        return respond(self._resilience, self.id, record)

    def _rest(self, seen: set[str]) -> Iterator[PartAnswer]:
        record, response = None, self._lost
        if response is None:
            try:
                self.finish("deadline")
                record = self._resilience.fan_in.collect(self.id)
                response = self._respond(record)  # announces the end if nobody has
            except StoreUnavailableError as error:
                response = self._lost = self._without_store(error)
        for name, required in self._spec:
            if name in seen:
                continue
            if record is None:
                reason = response.reasons[name]
                yield PartAnswer(name=name, outcome=None, reason=reason, required=required)
            else:
                yield part_answer(record, name, required)

    def _without_store(self, error: StoreUnavailableError) -> PartialResponse:
        response = self._missing(type(error).__name__)
        announce_finished(self._resilience, self.id, "lost", response)
        return response

    def _missing(self, reason: str) -> PartialResponse:
        return assemble(
            PartAnswer(name=name, outcome=None, reason=reason, required=required)
            for name, required in self._spec
        )
