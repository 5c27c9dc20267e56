"""What an adopted app offers for its users to read their own writes."""

import asyncio
import dataclasses
import functools
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from resilience.consistency import ConsistentSession, Token, current_session
from resilience.consistency.session import enter
from resilience.consistency.shared import SharedPositions
from resilience.consistency.token import TOKEN_SECONDS
from resilience.errors import ConfigurationError, StoreUnavailableError
from resilience.events import Listener
from resilience.store.joins import Joins
from resilience.tasks.envelope import lost_token
from resilience.tasks.positions import watch_jobs
from resilience.tasks.sharing import Sharing

if TYPE_CHECKING:
    from resilience.databases import Databases

DEFAULT: Final = "default"


class UserSession(ConsistentSession):
    """A session that can learn what was read and written for the same user elsewhere."""

    __slots__ = ("_shared", "_told")

    def __init__(
        self, key: str | None = None, *, token: Token | None = None, shared: SharedPositions
    ) -> None:
        """Begin with *token*; sessions of the same user meet in *shared*."""
        super().__init__(key, token=token)
        self._shared = shared
        self._told = self._known()

    def refresh(self) -> None:
        """See also what was read and written for the same user elsewhere, in the last 30 s.

        As by a job whose result the caller has got. Without the store, nobody knows; then only a
        primary can answer, or the answer is marked.

        Raises:
            ConfigurationError: The session has no key.
        """
        if self.key is None:
            msg = "a session without a key has no user; write consistent_session(user_id)"
            raise ConfigurationError(msg)
        try:
            token = self._shared.load(f"user:{self.key}")
        except StoreUnavailableError:
            token = lost_token()
        self.join(token)
        self._told = self._known()

    def tell(self) -> None:
        """Let other sessions of the same user see what this one has, from now on for 30 s."""
        token = None if self.key is None else self.token()
        if token is None or token == self._told:
            return
        with suppress(StoreUnavailableError):  # the store has announced that it is lost
            self._shared.merge(f"user:{self.key}", token, TOKEN_SECONDS)
            self._told = token

    def open(self, before: ConsistentSession | None) -> None:
        """See what the same user, and the session *before* it, have seen, if there are any."""
        if self.key is not None:
            self.refresh()
        if before is not None:
            self.join(before.token())

    def close(self, before: ConsistentSession | None) -> None:
        """Let the others of the same user, and the session *before* it, see what this one has."""
        self.tell()
        if before is not None:
            before.join(dataclasses.replace(self.token(), session=None))
            for mark in self.marks:
                before.mark(mark)


class SessionBlock:
    """A block of code, `with` or `async with`, that runs in a session."""

    def __init__(self, session: UserSession) -> None:
        """Prepare for *session*."""
        self._session = session
        self._before: ConsistentSession | None = None

    def __enter__(self) -> UserSession:
        self._before = current_session()
        self._session.open(self._before)
        enter(self._session)
        return self._session

    def __exit__(self, *_: object) -> None:
        enter(self._before)
        self._session.close(self._before)

    async def __aenter__(self) -> UserSession:
        self._before = current_session()
        await asyncio.to_thread(self._session.open, self._before)
        enter(self._session)
        return self._session

    async def __aexit__(self, *_: object) -> None:
        enter(self._before)
        await asyncio.to_thread(self._session.close, self._before)


class Consistent(Sharing):
    """The part of `Resilience` that has to do with databases, and with who reads from them."""

    listeners: tuple[Listener, ...]

    @functools.cached_property
    def sources(self) -> "dict[str, Databases]":
        """The app's databases, by name."""
        return {}

    @functools.cached_property
    def joins(self) -> Joins:
        """Where the members of a chord leave what they have seen."""
        return Joins(self._share().store)

    def databases(self, *, name: str = DEFAULT, **options: Any) -> "Databases":  # noqa: ANN401 - as of Databases
        """Return SQLAlchemy sessions that read from replicas and see their user's writes.

        From now on each job of the app runs in a session of its own. Call it where the app is made.

        Args:
            name: What tells several of them apart.
            **options: As of `resilience.databases.Databases`: `primary`, `replicas`, ….

        Raises:
            ConfigurationError: There are databases of this *name*, or an option makes no sense.
        """
        from resilience.databases import Databases  # noqa: PLC0415 - only who has some pays for it

        if name in self.sources:
            msg = f"databases {name!r} are declared twice; give the others another name"
            raise ConfigurationError(msg)
        made = Databases(
            name=name,
            pulse=self.pulse,
            positions=self.positions,
            listeners=self.listeners,
            **options,
        )
        self.sources[name] = made
        watch_jobs()
        return made

    def consistent_session(self, key: object = None, *, token: Token | None = None) -> SessionBlock:
        """Let a block of code, `with` or `async with`, read what its user has written.

        Reads of the block see what the block, and jobs that it publishes, have written and seen.

        Args:
            key: What tells users apart, such as a user's id. What was written for the same user
                elsewhere in the last 30 s is seen, too; without the store only a primary can then
                answer, or the answer is marked. None: a block of nobody in particular.
            token: What else is to be seen, as from a cookie.
        """
        user = None if key is None else str(key)
        return SessionBlock(UserSession(user, token=token, shared=self.positions))

    def session_of(self, token: Token | None) -> UserSession:
        """Return the session of a job that was published with *token*."""
        return UserSession(token=token, shared=self.positions)
