"""Reads and writes of a key-value source in which users see their own writes."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from resilience.consistency.session import ConsistentSession, current_session
from resilience.consistency.sources import AsyncPrimary, AsyncReplica, Primary, Replica
from resilience.consistency.steps import Reader, Steps
from resilience.outcome import Outcome
from resilience.store.writes import WriteStore

T = TypeVar("T")


class ConsistentReader(Reader[Primary, Replica]):
    """Reads and writes a key-value source so that users see their own writes.

    A user, told apart by the key of the session, reads what they wrote in the last 30 seconds, in
    whatever process; else what the primary says; and if that does not answer, what a replica says,
    marked STALE with its lag. Unless it is marked, a read never shows less than any write of its
    session that has returned:

    - As long as a write runs, if its outcome is unknown, or if it overlapped with another one of
      the session to the same key, only the primary answers for that key, for 30 seconds.
    - A write that was not done leaves no record.
    - When the store is down, other processes do not know what was written. The session's token
      tells them that much: they ask the primary, or mark their answer.

    A recent write is shown although others may have written to the key since, for at most 30
    seconds. Without a session, or in one without a key, there are no own writes.

    The session's `token()` should travel with the user or job. In a session that comes without one,
    the first read asks the store what the user has written.

    Attributes:
        name: Which source.
    """

    def read(self, key: str, *, session: ConsistentSession | None = None) -> Outcome[Any]:
        """Return the value of *key*, None if there is none, and how good it is.

        Args:
            key: What to read.
            session: On whose behalf; the current session if left out.

        Raises:
            OwnWriteUnavailableError: The session wrote it, and nobody who knows what answers.
            DatabaseUnavailableError: Nobody answers.
        """
        if session is None:
            session = current_session()
        hit = self._hit(key, session)
        return self._run(self._reading(key, session)) if hit is None else hit

    def write(
        self, key: str, value: object, *, session: ConsistentSession | None = None
    ) -> int | None:
        """Set the value of *key* at the primary, and return the version that it says.

        Raises:
            Exception: What the primary or its breaker raises; see `not_done`.
        """
        write = partial(self._primary.write, key, value)
        steps = self._writing(key, session or current_session(), self._told(value), write)
        version: int | None = self._guard.call(self._run, steps)
        return version

    def delete(self, key: str, *, session: ConsistentSession | None = None) -> int | None:
        """Leave *key* without a value at the primary; as `write`."""
        delete = partial(self._primary.delete, key)
        steps = self._writing(key, session or current_session(), self._deleted(), delete)
        version: int | None = self._guard.call(self._run, steps)
        return version

    def _call(self, function: Callable[..., Any], *args: object) -> Any:  # noqa: ANN401 - as it does
        return self._guard.call(function, *args)

    def _exchange(self, writes: WriteStore, *question: Any) -> Any:  # noqa: ANN401 - as it answers
        return writes.run(*question)

    def _run(self, steps: Steps[T]) -> T:
        try:
            asked = next(steps)
            while True:
                try:
                    answer = asked()
                except Exception as error:  # noqa: BLE001 - the steps say what it means
                    asked = steps.throw(error)
                else:
                    asked = steps.send(answer)
        except StopIteration as done:
            result: T = done.value
            return result


class AsyncConsistentReader(Reader[AsyncPrimary, AsyncReplica]):
    """Does the same as `ConsistentReader` with sources of an event loop, which it never blocks."""

    async def read(self, key: str, *, session: ConsistentSession | None = None) -> Outcome[Any]:
        """Do the same as `ConsistentReader.read`."""
        if session is None:
            session = current_session()
        hit = self._hit(key, session)
        return await self._run(self._reading(key, session)) if hit is None else hit

    async def write(
        self, key: str, value: object, *, session: ConsistentSession | None = None
    ) -> int | None:
        """Do the same as `ConsistentReader.write`."""
        write = partial(self._primary.write, key, value)
        steps = self._writing(key, session or current_session(), self._told(value), write)
        version: int | None = await self._guard.acall(self._run, steps)
        return version

    async def delete(self, key: str, *, session: ConsistentSession | None = None) -> int | None:
        """Do the same as `ConsistentReader.delete`."""
        delete = partial(self._primary.delete, key)
        steps = self._writing(key, session or current_session(), self._deleted(), delete)
        version: int | None = await self._guard.acall(self._run, steps)
        return version

    def _call(self, function: Callable[..., Any], *args: object) -> Any:  # noqa: ANN401 - as it does
        return self._guard.acall(function, *args)

    def _exchange(self, writes: WriteStore, *question: Any) -> Any:  # noqa: ANN401 - as it answers
        return writes.run_async(*question)

    async def _run(self, steps: Steps[T]) -> T:
        try:
            asked = next(steps)
            while True:
                try:
                    answer = await asked()
                except Exception as error:  # noqa: BLE001 - the steps say what it means
                    asked = steps.throw(error)
                else:
                    asked = steps.send(answer)
        except StopIteration as done:
            result: T = done.value
            return result
