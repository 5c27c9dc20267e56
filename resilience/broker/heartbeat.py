"""Tells a Redis broker that a worker lives, and gives others what the dead held."""

import logging
import threading
import weakref
from collections.abc import Sequence
from typing import Protocol

import redis
from redis.exceptions import ResponseError

from resilience.broker.beside import Beside, Outage
from resilience.broker.eviction import warn_of_eviction
from resilience.broker.unacked import Held, Unacked
from resilience.clock import Clock, SystemClock

logger = logging.getLogger("resilience")

BEAT_SECONDS = 1.0
GRACE_SECONDS = 2.5
"""So long after it has (again) a broker a worker declares none dead: others may be on their way
back, too, and a beat takes a second at most, and an attempt to connect another one."""
JUMP_SECONDS = 1.0
"""A server's clock that goes so far wrong between two beats has jumped."""
SAY_SECONDS = 60.0
"""What a broker refuses again and again is said so often."""


class Holder(Protocol):
    """A channel that holds messages.

    Attributes:
        owes: Whether the broker is still to be told what became of some.
    """

    closed: bool
    owes: bool
    unacked: Unacked
    silent_seconds: float

    def plain_client(self) -> "redis.Redis":
        """Return a client whose keys are as the server knows them."""
        ...

    def held_tags(self) -> list[str]:
        """Return the delivery tags of what it holds."""
        ...

    def settle(self) -> list[Exception]:
        """Tell the broker what became of messages while it was away; return what it refuses."""
        ...

    def give_back(self, held: Held) -> None:
        """Put what a dead worker held back into its queue."""
        ...


class Heartbeat:
    """Renews what the channels of one connection hold, once a second, in a thread of its own.

    A worker that is busy, or whose loop is blocked, is no dead one. What it holds it keeps until
    it acknowledges it, also when the connection is closed and the job still runs: the thread ends
    when nothing is held any more.
    """

    def __init__(self, *, clock: Clock | None = None) -> None:
        """Prepare; the thread starts with the first channel."""
        self._clock = clock or SystemClock()
        self._channels: weakref.WeakSet[Holder] = weakref.WeakSet()
        self._owing: set[Holder] = set()
        self._beside: Beside | None = None
        self._heard = float("-inf")
        self._met = float("inf")
        self._ahead: float | None = None
        self._outage = Outage(
            logger,
            "the broker does not hear of this worker",
            "the broker hears of this worker again",
        )
        self._say_at = float("-inf")
        self._warned = False
        self._missing: set[str] = set()
        self._told: set[str] = set()
        self._lock = threading.Lock()

    def watch(self, channel: Holder) -> None:
        """Renew also what *channel* holds."""
        with self._lock:
            self._channels.add(channel)
            if self._beside is None:
                # It keeps itself alive: channels whose connection is gone may still hold messages.
                self._beside = Beside("broker-heartbeat", self.beat)
                self._beside.start()

    def keep(self, channel: Holder) -> None:
        """Keep *channel* until it owes nothing: if it is closed, nobody else may know of it."""
        with self._lock:
            self._owing.add(channel)

    def beat(self) -> float | None:
        """Renew, and restore what is overdue; return the seconds until the next beat."""
        with self._lock:
            self._owing = {one for one in self._owing if one.owes}
            channels = list(self._channels)
            holders = [one for one in channels if not one.closed or one.owes or one.held_tags()]
            if not holders:
                self._beside = None
                return None
        is_open = any(not channel.closed for channel in channels)
        refused: list[Exception] = []
        try:
            self._tell({tag for channel in holders for tag in self._renew(channel)})
            for channel in holders:
                refused += channel.settle()
            if is_open:
                channel = next(one for one in channels if not one.closed)
                refused += self._restore(channel)
                self._warn(channel)
        except (redis.RedisError, OSError) as error:
            self._miss(error)
        else:
            self._outage.note(None)
        self._say(refused)
        return BEAT_SECONDS

    def _warn(self, channel: Holder) -> None:
        if not self._warned:
            warn_of_eviction(channel.plain_client())
            self._warned = True

    def _renew(self, channel: Holder) -> list[str]:
        """Renew what *channel* holds; return what others have meanwhile."""
        now, gone = channel.unacked.renew(channel.plain_client(), channel.held_tags())
        self._hear(now)
        held = set(channel.held_tags())
        return [tag for tag in gone if tag in held]

    def _tell(self, gone: set[str]) -> None:
        # In two beats: one may have been acknowledged in the middle of one.
        lost = (gone & self._missing) - self._told
        self._told = (self._told | lost) & gone
        self._missing = gone
        if lost:
            logger.warning(
                "%d jobs that this worker holds were given to others, as nobody heard of it for "
                "too long: they may run twice",
                len(lost),
            )

    def _hear(self, server_now: float) -> None:
        """Note that the server answered, and whether its clock goes as ours."""
        now = self._clock.monotonic()
        ahead = server_now - now
        jumped = self._ahead is not None and abs(ahead - self._ahead) > JUMP_SECONDS
        if jumped or now - self._heard > GRACE_SECONDS:
            self._met = now
        self._heard, self._ahead = now, ahead

    def _restore(self, channel: Holder) -> list[Exception]:
        """Give others what dead workers held; return what the broker refuses."""
        refused: list[Exception] = []
        if self._clock.monotonic() - self._met < GRACE_SECONDS:
            return refused
        began = self._clock.monotonic()
        overdue = channel.unacked.overdue(channel.plain_client(), channel.silent_seconds)
        if self._clock.monotonic() - began > JUMP_SECONDS:
            # The server was silent, too: others could not be heard. What is claimed waits.
            self._met = self._clock.monotonic()
            return refused
        for held in overdue:
            try:
                channel.give_back(held)
            except ResponseError as error:
                refused.append(error)
            except (TypeError, AttributeError, LookupError):
                # Whatever it is, those behind it must not wait for it.
                logger.exception("cannot give back what is noted as %r", held.tag)
        return refused

    def _say(self, refused: Sequence[Exception]) -> None:
        now = self._clock.monotonic()
        if refused and now >= self._say_at:
            logger.error(
                "the broker refuses what it is told of %d messages, again and again; the first: %s",
                len(refused),
                refused[0],
            )
            self._say_at = now + SAY_SECONDS

    def _miss(self, error: Exception) -> None:
        self._met = float("inf")
        self._heard = float("-inf")
        self._outage.note(error)
