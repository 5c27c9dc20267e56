"""Reads and writes of a key-value source in which users see their own writes."""

from typing import Any, ClassVar, TypeVar

from resilience.consistency.session import ConsistentSession, current_session
from resilience.consistency.steps import Reader, Steps
from resilience.outcome import Outcome

T = TypeVar("T")


class ConsistentReader(Reader):
    """Reads and writes a key-value source so that users see their own writes.

    A user, told apart by the key of the session, reads what they wrote in the last 30 seconds, in
    whatever process; else what the primary says; and if that does not answer, what a replica says,
    marked STALE with its lag. Unless it is marked, a read never shows less than any write of its
    session that has returned:

    - As long as a write runs, if its outcome is unknown, or if it overlapped with another one of
      the session to the same key, only the primary answers for that key, for 30 seconds.
    - A write that was not done leaves no record.
    - What is written while the store is down no process can tell from what was written before.
      The session's token says so: for 30 seconds all ask the primary, or mark their answer.

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
        session = session or current_session()
        hit = self._hit(key, session)
        return self._run(self._reading(key, session)) if hit is None else hit

    def write(
        self, key: str, value: object, *, session: ConsistentSession | None = None
    ) -> int | None:
        """Set the value of *key* at the primary, and return the version that it says.

        Raises:
            Exception: What the primary or its breaker raises; see `not_done`.
        """
        return self._guard.call(self._run, self._setting(key, value, session))

    def delete(self, key: str, *, session: ConsistentSession | None = None) -> int | None:
        """Leave *key* without a value at the primary; as `write`."""
        return self._guard.call(self._run, self._deleting(key, session))

    def _run(self, steps: Steps[T]) -> T:
        go_on, argument = steps.send, None
        try:
            while True:
                step = go_on(argument)
                try:
                    go_on, argument = steps.send, step()
                except Exception as error:  # noqa: BLE001 - the steps say what it means
                    go_on, argument = steps.throw, error
        except StopIteration as done:
            result: T = done.value
            return result


class AsyncConsistentReader(Reader):
    """Does the same as `ConsistentReader` with sources of an event loop, which it never blocks."""

    _asynchronous: ClassVar = True

    async def read(self, key: str, *, session: ConsistentSession | None = None) -> Outcome[Any]:
        """Do the same as `ConsistentReader.read`."""
        session = session or current_session()
        hit = self._hit(key, session)
        return await self._run(self._reading(key, session)) if hit is None else hit

    async def write(
        self, key: str, value: object, *, session: ConsistentSession | None = None
    ) -> int | None:
        """Do the same as `ConsistentReader.write`."""
        return await self._guard.acall(self._run, self._setting(key, value, session))

    async def delete(self, key: str, *, session: ConsistentSession | None = None) -> int | None:
        """Do the same as `ConsistentReader.delete`."""
        return await self._guard.acall(self._run, self._deleting(key, session))

    async def _run(self, steps: Steps[T]) -> T:
        go_on, argument = steps.send, None
        try:
            while True:
                step = go_on(argument)
                try:
                    go_on, argument = steps.send, await step()
                except Exception as error:  # noqa: BLE001 - the steps say what it means
                    go_on, argument = steps.throw, error
        except StopIteration as done:
            result: T = done.value
            return result
