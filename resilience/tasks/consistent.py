"""What an adopted app offers for its users to read their own writes."""

import asyncio
import dataclasses
import functools
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Self

from resilience.consistency import ConsistentSession, Token, current_session
from resilience.consistency.session import enter
from resilience.consistency.shared import SharedPositions
from resilience.consistency.token import TOKEN_SECONDS
from resilience.errors import ConfigurationError, StoreUnavailableError
from resilience.events import Listener
from resilience.store.chords import Chords
from resilience.tasks.envelope import lost_token
from resilience.tasks.positions import watch_jobs
from resilience.tasks.sharing import Sharing

if TYPE_CHECKING:
    from resilience.databases import Databases

DEFAULT: Final = "default"


class UserSession(ConsistentSession):
    """A session that can learn what was read and written for the same user elsewhere.

    A block of code, `with` or `async with`, runs in it.

    Attributes:
        outer: The session around this one, which sees in the end what this one has; None: none is.
    """

    def __init__(
        self,
        key: str | None = None,
        *,
        token: Token | None = None,
        shared: SharedPositions,
        fleet_time: Callable[[], float],
    ) -> None:
        """Begin with *token*; sessions of the same user meet in *shared*."""
        super().__init__(key, token=token)
        self._shared = shared
        self._fleet_time = fleet_time
        self._shared_token = self._known()
        self.outer: ConsistentSession | None = None

    def __enter__(self) -> Self:
        self.outer = current_session()
        self._open()
        enter(self)
        return self

    def __exit__(self, *_: object) -> None:
        enter(self.outer)
        self.close()

    async def __aenter__(self) -> Self:
        self.outer = current_session()
        await asyncio.to_thread(self._open)
        enter(self)
        return self

    async def __aexit__(self, *_: object) -> None:
        enter(self.outer)
        await asyncio.to_thread(self.close)

    def refresh(self) -> None:
        """See also what was read and written for the same user elsewhere, in the last 30 s.

        For example by a job whose result the caller holds. While the store is down, only a primary
        can answer, or the answer is marked.

        Raises:
            ConfigurationError: The session has no key.
        """
        if self.key is None:
            msg = "a session without a key has no user; write consistent_session(user_id)"
            raise ConfigurationError(msg)
        try:
            token = self._shared.load(f"user:{self.key}")
        except StoreUnavailableError:
            token = lost_token(self._fleet_time())
        self.join(token)
        self._shared_token = self._known()

    def share(self) -> None:
        """Let other sessions of the same user see what this one has, from now on for 30 s."""
        token = None if self.key is None else self.token()
        if token is None or token == self._shared_token:
            return
        with suppress(StoreUnavailableError):  # the store has announced that it is lost
            self._shared.merge(f"user:{self.key}", token, TOKEN_SECONDS)
            self._shared_token = token

    def written(self) -> None:
        """Let other sessions of the same user see a commit as soon as it is one."""
        self.share()

    def close(self) -> None:
        """Let other sessions of the same user, and the one around it, see what this one has."""
        self.share()
        if self.outer is not None:
            self.outer.join(dataclasses.replace(self.token(), session=None))
            for mark in self.marks:
                self.outer.mark(mark)

    def _open(self) -> None:
        if self.key is not None:
            self.refresh()
        if self.outer is not None:
            self.join(self.outer.token())


class Consistent(Sharing):
    """The part of `Resilience` that has to do with databases, and with who reads from them."""

    listeners: list[Listener]

    @functools.cached_property
    def sources(self) -> "dict[str, Databases]":
        """The app's databases, by name."""
        return {}

    @functools.cached_property
    def chords(self) -> Chords:
        """Where the members of a chord leave what they have seen."""
        return Chords(self._share().store)

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
            msg = f"databases {name!r} are declared twice; give one of them another name="
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

    def consistent_session(self, key: object = None, *, token: Token | None = None) -> UserSession:
        """Let a block of code, `with` or `async with`, read what its user has written.

        Reads of the block see what the block, and jobs that it publishes, have written and seen.

        Args:
            key: What tells users apart, such as a user's id. What was written for the same user
                elsewhere in the last 30 s is seen, too; without the store only a primary can then
                answer, or the answer is marked. None: a block of nobody in particular.
            token: What else is to be seen, as from a cookie.
        """
        user = None if key is None else str(key)
        return UserSession(user, token=token, shared=self.positions, fleet_time=self.fleet_time)
