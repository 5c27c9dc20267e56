"""A client of the store that never waits long and never asks twice in a row in vain."""

import asyncio
import math
import os
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any, TypeVar

import redis
import redis.asyncio
from redis.exceptions import NoPermissionError

from resilience.clock import Clock, SystemClock
from resilience.errors import StoreUnavailableError
from resilience.events import (
    Event,
    Listener,
    StoreFound,
    StoreLost,
    StoreValueUnreadable,
    announce,
)
from resilience.store.clients import Clients

RETRY_SECONDS = 1.0
"""How long a store that did not answer is left alone."""

LOST = (redis.ConnectionError, redis.TimeoutError, redis.InvalidResponse, OSError)
"""What an exchange ends in if there is no store at the other end, or none to talk to."""
UNREADABLE_SECONDS = 3600.0
"""A value that cannot be read is announced again after so long."""
UNREADABLE_MAX = 1000
"""So many are announced in that time: the keys of jobs have no end."""
EXCHANGES_PER_LOOP = 8
"""More at once on one event loop take turns: a burst that all connects at once would be too slow
for the timeout, and pass for a lost store."""

T = TypeVar("T")


class Store:
    """One Redis or Valkey, or one slot of a cluster: every key is under one hash tag.

    Safe before and after fork, with threads, gevent and any number of event loops.

    When the store is down a caller waits at most `timeout_seconds` for it and then gets
    `StoreUnavailableError` at once, until the store is back. Whether it is, a thread that lives no
    longer than that finds out beside the calls, once a second. A store that answers but refuses
    (full, read-only after a failover) is up; the call it refused gets the same error.
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
            url: Where it is, in one of the forms of `Clients`: one server, Sentinels, a cluster.
            namespace: Prefix of every key.
            timeout_seconds: Longest wait to connect and for an answer, of each server that must be
                asked.
            clock: Where time comes from.
            listeners: Who hears of `StoreLost` and `StoreFound`.

        Raises:
            ConfigurationError: *url* is not of that form.
        """
        self._namespace = namespace
        self._clock = clock or SystemClock()
        self._listeners = listeners
        self._down_until: float | None = None
        self._unreadable: set[tuple[str, str]] = set()
        self._forget_at = float("-inf")
        self._turn = threading.Lock()
        self._here = _Here()
        self._clients = Clients(url, key=self.key(), timeout_seconds=timeout_seconds)
        self.client = self._clients.make()
        this = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _restart(this))

    def restart(self) -> None:
        """Begin again in a forked child: a thread of the parent may have held any lock."""
        self._turn = threading.Lock()
        # redis-py asks for the lock of its pool before it makes another pool for the child.
        self.client.connection_pool = self._clients.make().connection_pool

    def key(self, *parts: str) -> str:
        """Return the key of *parts*; all keys of a namespace live in one cluster slot."""
        return ":".join(("{" + self._namespace + "}", *parts))

    def run(self, exchange: Callable[[redis.Redis], T]) -> T:
        """Return `exchange(client)`.

        Raises:
            StoreUnavailableError: The store does not answer, did not within the last second, or
                refuses.
        """
        self._refuse_while_down()
        try:
            result = exchange(self.client)
        except LOST as error:
            raise self._lost(error) from error
        except redis.ResponseError as error:
            raise self._refused(error) from error
        except BaseException:
            # Cut between question and answer, a connection would give the answer to the next one.
            self.client.connection_pool.disconnect(inuse_connections=False)
            raise
        self._found()
        return result

    async def run_async(self, exchange: Callable[[redis.asyncio.Redis], Awaitable[T]]) -> T:
        """Do the same as `run` on the running event loop, without blocking it."""
        client, turns = await self._on_this_loop()
        async with turns:
            self._refuse_while_down()
            try:
                result = await exchange(client)
            except LOST as error:
                raise self._lost(error) from error
            except redis.ResponseError as error:
                raise self._refused(error) from error
            self._found()
            return result

    def wait(self, *command: str, seconds: float) -> Any:  # noqa: ANN401 - whatever the server says
        """Send a blocking *command* and return its raw answer, None after *seconds*.

        The answer is waited for as long as the command may block, whatever the store's timeout,
        and not a moment longer: a store that hangs cannot make its caller late.

        Raises:
            StoreUnavailableError: The connection is refused or breaks, or the store refuses.
        """
        until = self._clock.monotonic() + seconds
        self._refuse_while_down()
        pool = self.client.connection_pool
        answer, answered = None, False
        try:
            connection = pool.get_connection()
            try:
                connection.send_command(*command)  # type: ignore[no-untyped-call]
                if connection.can_read(timeout=max(0.0, until - self._clock.monotonic())):
                    answer, answered = connection.read_response(), True
            finally:
                if not answered:  # it may still come: the connection cannot be used again
                    connection.disconnect()  # type: ignore[no-untyped-call]
                pool.release(connection)
        except LOST as error:
            raise self._lost(error) from error
        except redis.ResponseError as error:
            raise self._refused(error) from error
        if answered:
            self._found()
        return answer

    async def wait_async(self, *command: str, seconds: float) -> Any:  # noqa: ANN401 - as above
        """Do the same as `wait` without blocking the event loop."""
        until = asyncio.get_running_loop().time() + seconds
        client, turns = await self._on_this_loop()
        pool = client.connection_pool
        answer, answered = None, False
        limit = asyncio.timeout_at(until)
        try:
            async with turns:
                self._refuse_while_down()
                connection = await pool.get_connection()  # type: ignore[no-untyped-call]
            try:
                await connection.send_command(*command)
                async with limit:
                    # None would mean the store's own timeout, which is far too short here.
                    answer = await connection.read_response(timeout=math.inf)
                answered = True
            finally:
                if not answered:
                    await connection.disconnect(nowait=True)
                await pool.release(connection)
        except LOST as error:
            if limit.expired():
                return None
            raise self._lost(error) from error
        except redis.ResponseError as error:
            raise self._refused(error) from error
        if answered:
            self._found()
        return answer

    async def _on_this_loop(self) -> tuple[redis.asyncio.Redis, asyncio.Semaphore]:
        loop, here = asyncio.get_running_loop(), self._here
        if here.loop is not loop:
            here.client = self._clients.make_async()
            here.turns = asyncio.Semaphore(EXCHANGES_PER_LOOP)
            here.loop, here.closing = loop, _close_with_loop(here.client)
            await anext(here.closing)
        return here.client, here.turns

    def _refuse_while_down(self) -> None:
        if self._down_until is None:
            return
        with self._turn:
            now, until = self._clock.monotonic(), self._down_until
            if until is None:
                return
            look = now >= until
            if look:
                self._down_until = now + RETRY_SECONDS
        if look:
            with suppress(RuntimeError):  # there may be no thread to be had; the call goes on
                threading.Thread(target=self._look, name="store-look", daemon=True).start()
        then = "it is asked again now" if look else f"next try in {until - now:.1f} s"
        msg = f"the store did not answer; {then}"
        raise StoreUnavailableError(msg)

    def _look(self) -> None:
        """Find out beside the calls whether the store is back, as no call shall wait for that."""
        try:
            self.client.time()  # which the scripts ask for as well: who may do work may do this
        except NoPermissionError:
            pass  # an answer, too
        except (*LOST, redis.ResponseError):
            return
        self._found()

    def _lost(self, error: Exception) -> StoreUnavailableError:
        with self._turn:
            news = self._down_until is None
            self._down_until = self._clock.monotonic() + RETRY_SECONDS
        if news:
            self._announce(StoreLost(error=f"{type(error).__name__}: {error}"))
        return StoreUnavailableError(f"the store did not answer: {error}")

    def _found(self) -> None:
        if self._down_until is None:
            return
        with self._turn:
            news = self._down_until is not None
            self._down_until = None
        if news:
            self._announce(StoreFound())

    def _refused(self, error: redis.ResponseError) -> StoreUnavailableError:
        self._found()
        if "WRONGTYPE" in str(error):
            self.unreadable("", error)
        return StoreUnavailableError(f"the store refused: {error}")

    def unreadable(self, key: str, error: object, *, name: str = "") -> None:
        """Announce once an hour that what the store holds is none of ours, and counts as absent.

        Args:
            key: Its key, with or without the namespace; empty: not known.
            error: What is wrong with it.
            name: Of the value within that key; empty: all of it.
        """
        now, one = self._clock.monotonic(), (key.removeprefix(self.key("")), name)
        if now >= self._forget_at:
            self._unreadable, self._forget_at = set(), now + UNREADABLE_SECONDS
        if one not in self._unreadable and len(self._unreadable) < UNREADABLE_MAX:
            self._unreadable.add(one)
            said = StoreValueUnreadable(key=one[0][:200], name=name[:200], error=str(error)[:200])
            self._announce(said)

    def read(self, key: str, exchange: Callable[[redis.Redis], Any], absent: T) -> T:
        """Do the same as `run` for a command that reads *key*; of another type it is *absent*."""

        def reading(client: redis.Redis) -> T:
            try:
                found: T = exchange(client)
            except redis.ResponseError as error:
                if "WRONGTYPE" not in str(error):
                    raise
                self.unreadable(key, error)
                return absent
            return found

        return self.run(reading)

    def _announce(self, event: Event) -> None:
        announce(event, self._listeners)


def _restart(this: "weakref.ref[Store]") -> None:
    store = this()
    if store is not None:
        store.restart()


class _Here(threading.local):
    """What belongs to the event loop that this thread ran last."""

    loop: asyncio.AbstractEventLoop | None = None
    client: redis.asyncio.Redis
    turns: asyncio.Semaphore
    closing: AsyncIterator[None]


async def _close_with_loop(client: redis.asyncio.Redis) -> AsyncIterator[None]:
    """Close *client* when its event loop ends, which shuts down asynchronous generators."""
    try:
        yield
    finally:
        await client.aclose()
