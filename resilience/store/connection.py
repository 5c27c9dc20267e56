"""A client of the store that never waits long and never asks twice in a row in vain."""

import asyncio
import math
import weakref
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from resilience.clock import Clock, SystemClock
from resilience.errors import ConfigurationError, StoreUnavailableError
from resilience.events import Event, Listener, StoreFound, StoreLost, announce

RETRY_SECONDS = 1.0
"""How long a store that did not answer is left alone."""

T = TypeVar("T")


class Store:
    """One Redis or Valkey, with every key under one hash tag.

    Safe before and after fork, with threads, gevent and any number of event loops.

    When the store is down a caller waits at most `timeout_seconds` for it and then gets
    `StoreUnavailableError` at once for one second, until one call tries again.
    """

    def __init__(
        self,
        url: str,
        *,
        namespace: str,
        timeout_seconds: float = 0.1,
        clock: Clock | None = None,
        listeners: Iterable[Listener] = (),
    ) -> None:
        """Prepare; nothing is connected before the first exchange.

        Args:
            url: `redis://`, `rediss://`, `unix://`, or the same with `valkey`.
            namespace: Prefix of every key.
            timeout_seconds: Longest wait to connect and for an answer.
            clock: Where time comes from.
            listeners: Who hears of `StoreLost` and `StoreFound`.

        Raises:
            ConfigurationError: *url* is not of that form.
        """
        self._namespace = namespace
        self._clock = clock or SystemClock()
        self._listeners = listeners
        self._down_until: float | None = None
        self._url = url.replace("valkey", "redis", 1) if url.startswith("valkey") else url
        self._options: dict[str, Any] = {
            "socket_timeout": timeout_seconds,
            "socket_connect_timeout": timeout_seconds,
            "protocol": 2,
        }
        try:
            self.client = redis.Redis.from_url(
                self._url, retry=Retry(NoBackoff(), 0), **self._options
            )
        except ValueError as error:
            msg = f"store URL {url!r}: {error}"
            raise ConfigurationError(msg) from error
        self._async_clients: weakref.WeakKeyDictionary[
            asyncio.AbstractEventLoop, redis.asyncio.Redis
        ] = weakref.WeakKeyDictionary()

    def key(self, *parts: str) -> str:
        """Return the key of *parts*; all keys of a namespace live in one cluster slot."""
        return ":".join(("{" + self._namespace + "}", *parts))

    def run(self, exchange: Callable[[redis.Redis], T]) -> T:
        """Return `exchange(client)`.

        Raises:
            StoreUnavailableError: The store does not answer, or did not within the last second.
        """
        self._refuse_while_down()
        try:
            result = exchange(self.client)
        except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
            raise self._lost(error) from error
        self._found()
        return result

    async def run_async(self, exchange: Callable[[redis.asyncio.Redis], Awaitable[T]]) -> T:
        """Do the same as `run` on the running event loop, without blocking it."""
        self._refuse_while_down()
        try:
            result = await exchange(self._async_client())
        except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
            raise self._lost(error) from error
        self._found()
        return result

    def wait(self, *command: str, seconds: float) -> Any:  # noqa: ANN401 - whatever the server says
        """Send a blocking *command* and return its raw answer, None after *seconds*.

        The answer is waited for as long as the command may block, whatever the store's timeout,
        and not a moment longer: a store that hangs cannot make its caller late.

        Raises:
            StoreUnavailableError: The connection is refused or breaks.
        """
        self._refuse_while_down()
        pool = self.client.connection_pool
        try:
            connection = pool.get_connection()
            try:
                connection.send_command(*command)  # type: ignore[no-untyped-call]
                if connection.can_read(timeout=seconds):
                    return connection.read_response()
                connection.disconnect()  # type: ignore[no-untyped-call]
                return None
            finally:
                pool.release(connection)
        except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
            raise self._lost(error) from error

    async def wait_async(self, *command: str, seconds: float) -> Any:  # noqa: ANN401 - as above
        """Do the same as `wait` without blocking the event loop."""
        self._refuse_while_down()
        pool = self._async_client().connection_pool
        try:
            connection = await pool.get_connection()  # type: ignore[no-untyped-call]
            try:
                await connection.send_command(*command)
                async with asyncio.timeout(seconds):
                    # None would mean the store's own timeout, which is far too short here.
                    return await connection.read_response(timeout=math.inf)
            except BaseException as error:
                # Its answer may still come: the connection cannot be used again.
                await connection.disconnect(nowait=True)
                if isinstance(error, TimeoutError):
                    return None
                raise
            finally:
                await pool.release(connection)
        except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
            raise self._lost(error) from error

    def _async_client(self) -> redis.asyncio.Redis:
        loop = asyncio.get_running_loop()
        client = self._async_clients.get(loop)
        if client is None:
            client = self._async_clients[loop] = redis.asyncio.Redis.from_url(
                self._url, retry=AsyncRetry(NoBackoff(), 0), **self._options
            )
        return client

    def _refuse_while_down(self) -> None:
        until = self._down_until
        if until is None:
            return
        now = self._clock.monotonic()
        if now < until:
            msg = f"the store did not answer; next try in {until - now:.1f} s"
            raise StoreUnavailableError(msg)
        # This call tries; the others keep being refused until it knows.
        self._down_until = now + RETRY_SECONDS

    def _lost(self, error: Exception) -> StoreUnavailableError:
        first = self._down_until is None
        self._down_until = self._clock.monotonic() + RETRY_SECONDS
        if first:
            self._announce(StoreLost(error=f"{type(error).__name__}: {error}"))
        return StoreUnavailableError(f"the store did not answer: {error}")

    def _found(self) -> None:
        if self._down_until is not None:
            self._down_until = None
            self._announce(StoreFound())

    def _announce(self, event: Event) -> None:
        announce(event, self._listeners)
