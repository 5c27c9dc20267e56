"""Celery's result backends on Redis, but for the results that they miss."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from celery.backends import redis
from celery.states import READY_STATES

from resilience.clock import SystemClock

READ_AGAIN_SECONDS = 1.0


class ReadingConsumer(redis.ResultConsumer):  # type: ignore[name-defined, misc] # not in the stubs
    """Waits for the message about a result, and reads the result itself every second, too.

    Celery subscribes on one connection and looks the result up on another, without waiting until
    the server has the subscription. A server that is short of time may do both, and what a worker
    stores, in another order: the result is stored after the lookup, and before the subscription.
    Nobody then gets the message, and who waits would wait for ever. The same holds for a result
    that is stored while the subscription moves to a new connection.
    """

    def _wait_for_pending(
        self,
        result: Any,  # noqa: ANN401 - any class of results
        timeout: float | None = None,
        on_interval: Callable[[], object] | None = None,
        **options: Any,  # noqa: ANN401 - as Celery's
    ) -> Iterator[None]:
        now = SystemClock.monotonic()
        due = now + READ_AGAIN_SECONDS
        # A store that hangs takes a second to fail: the caller's timeout must not wait for that.
        last = float("inf") if timeout is None else now + timeout - READ_AGAIN_SECONDS

        def read_again() -> None:
            nonlocal due
            if on_interval:
                on_interval()
            if due <= SystemClock.monotonic() <= last:
                self._read(result)
                due = SystemClock.monotonic() + READ_AGAIN_SECONDS

        found: Iterator[None] = super()._wait_for_pending(
            result, timeout=timeout, on_interval=read_again, **options
        )
        return found

    def _read(self, result: Any) -> None:  # noqa: ANN401 - as above
        """Take the results that are there and still waited for."""
        ids = [one.id for one in getattr(result, "results", (result,))]
        keys = [key for key in map(self._get_key_for_task, ids) if key in self.subscribed_to]
        with suppress(*self._connection_errors):  # whoever reads the messages notices that, too
            for value in self.backend.client.mget(keys) if keys else ():
                state = self._decode_result(value) if value else {}
                if state.get("status") in READY_STATES:
                    self.on_state_change(state, None)


class RedisResults(redis.RedisBackend):
    """Results on one server."""

    ResultConsumer = ReadingConsumer


class SentinelResults(redis.SentinelBackend):
    """Results on the server that sentinels name."""

    ResultConsumer = ReadingConsumer
