"""Let no command of redis-py wait longer than the current budget."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from resilience.budget.budget import CONCLUSIVE_SHARE, current_budget
from resilience.budget.clients import CLIENT, LEAST_SECONDS, seconds_of
from resilience.clock import SystemClock
from resilience.errors import BudgetExceededError

if TYPE_CHECKING:  # not loaded here, but by who has a client
    import redis

_monotonic = SystemClock.monotonic


def limit_commands(client: "redis.Redis") -> None:
    """Let the commands of *client*, retries and pauses between them included, keep the budget.

    A connection is dropped whose answer did not come in time. Call it before the first command: it
    closes the connections that are open.
    """
    pool = client.connection_pool
    kind = pool.connection_class
    pool.connection_class = type(f"Budgeted{kind.__name__}", (_BudgetedConnection, kind), {})
    retry = copy.copy(pool.connection_kwargs.get("retry"))
    if retry is not None:
        retry._backoff = _BudgetedPause(retry._backoff)  # noqa: SLF001 - it has no other name
        pool.connection_kwargs["retry"] = retry
    pool.disconnect()
    pool.reset()


class _BudgetedPause:
    """A pause between two attempts that is not begun if it outlasts the budget."""

    def __init__(self, own: Any) -> None:  # noqa: ANN401 - a backoff of redis-py
        self._own = own

    def reset(self) -> None:
        self._own.reset()

    def compute(self, failures: int) -> float:
        seconds, budget = float(self._own.compute(failures)), current_budget()
        if budget is not None and seconds >= seconds_of(budget):
            raise BudgetExceededError(CLIENT, 0.0, budget.remaining(), budget.total)
        return seconds


class _BudgetedConnection:
    """In front of a connection class of redis-py."""

    def _connect(self: Any) -> Any:  # noqa: ANN401 - the other class's
        own = self.socket_connect_timeout
        with _spending(own) as seconds:
            self.socket_connect_timeout = seconds
            try:
                return super()._connect()  # type: ignore[misc]
            finally:
                self.socket_connect_timeout = own

    def send_packed_command(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        with _spending(self.socket_timeout) as seconds:
            self._set_timeout(seconds)
            super().send_packed_command(*args, **kwargs)  # type: ignore[misc]

    def read_response(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        if "timeout" in kwargs:  # the caller, pub/sub, says how long
            return super().read_response(*args, **kwargs)  # type: ignore[misc]
        try:
            with _spending(self.socket_timeout) as seconds:
                self._set_timeout(seconds)
                return super().read_response(*args, **kwargs)  # type: ignore[misc]
        except BudgetExceededError:
            self.disconnect()  # the answer may still come, and would pass for the next one's
            raise

    def _set_timeout(self: Any, seconds: float | None) -> None:
        if self._sock is not None:
            self._sock.settimeout(seconds)


@contextmanager
def _spending(own: float | None) -> Iterator[float | None]:
    """Yield the seconds that the block may wait.

    Raises:
        BudgetExceededError: The budget left less than *own*, and that was too little.
    """
    budget = current_budget()
    seconds = None if budget is None else seconds_of(budget)
    if budget is None or seconds is None or (own is not None and own <= seconds):
        yield own
        return
    began = _monotonic()
    try:
        yield seconds
    except Exception as error:
        ran = _monotonic() - began
        if ran < seconds - LEAST_SECONDS or isinstance(error, BudgetExceededError):
            raise
        conclusive = ran >= CONCLUSIVE_SHARE * budget.total
        left = budget.remaining()
        raise BudgetExceededError(CLIENT, ran, left, budget.total, conclusive) from error
