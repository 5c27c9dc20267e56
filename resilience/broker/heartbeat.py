"""Renews what a worker holds of a Redis broker, and gives what dead workers held to others."""

import threading
import weakref
from collections.abc import Sequence
from typing import Protocol

import redis
from redis.exceptions import ResponseError

from resilience.broker.beside import Beside, Outage
from resilience.broker.eviction import warn_of_eviction
from resilience.broker.peers import GONE_SECONDS, LOOK_SECONDS, Peer, Peers
from resilience.broker.unacked import Held, Unacked
from resilience.clock import Clock, SystemClock
from resilience.text import get_logger

logger = get_logger("resilience")

BEAT_SECONDS = 1.0
GRACE_SECONDS = 2.5
"""For this long after it has connected a worker declares no other one dead. Others may still be
reconnecting, which takes a beat and an attempt to connect: a second each at most."""
JUMP_SECONDS = 1.0
"""A server's clock that deviates this much between two beats has jumped."""
SOON_SECONDS = 2.5
"""For this long after it has lost its broker a worker tries to reconnect more often."""
LOG_SECONDS = 60.0
"""How often it is logged that the broker keeps refusing something."""


class Holder(Protocol):
    """A channel that holds messages.

    Attributes:
        owes: Whether the broker must still be told what became of some messages.
    """

    closed: bool
    owes: bool
    unacked: Unacked
    silent_seconds: float

    def plain_client(self) -> "redis.Redis":
        """Return a client that adds no prefix to keys."""
        ...

    def held_tags(self) -> list[str]:
        """Return the delivery tags of what it holds."""
        ...

    def settle(self) -> list[Exception]:
        """Tell the broker what became of messages while it was away; return what it refuses."""
        ...

    def give_back(self, held: Held) -> None:
        """Put a message that a dead worker held back into its queue."""
        ...

    def set_held_aside(self, held: Held, error: Exception) -> None:
        """Set aside what a dead worker held and *error* is about: it cannot be given back."""
        ...


class Heartbeat:
    """Renews what the channels of one connection hold, once a second, in a thread of its own.

    So a worker that is busy, or whose event loop is blocked, does not count as dead. It keeps a
    message until it acknowledges it, even if the connection is closed while the job runs. The
    thread ends when nothing is held any more.
    """

    def __init__(self, *, clock: Clock | None = None) -> None:
        """Prepare; the thread starts with the first channel."""
        self._clock = clock or SystemClock()
        self._peers = Peers(self._clock)
        self._beat_at = float("-inf")  # when the next beat is due
        self._away_at: float | None = None  # when the broker was lost
        self._any_held = True  # until the server says otherwise
        self._channels: weakref.WeakSet[Holder] = weakref.WeakSet()
        self._owing: set[Holder] = set()
        self._beside: Beside | None = None
        self._answered_at = float("-inf")  # when the broker answered last
        self._connected_at = float("inf")  # since when the broker has answered without a gap
        self._server_ahead: float | None = None  # the server's clock, less ours
        self._outage = Outage(
            logger,
            "this worker's heartbeat does not reach the broker",
            "this worker's heartbeat reaches the broker again",
        )
        self._log_at = float("-inf")  # when a refusal may be logged again
        self._warned = False
        self._gone_before: set[str] = set()
        self._lost: set[str] = set()
        self._lock = threading.Lock()

    @property
    def worker(self) -> str:
        """Number by which others recognise what this worker holds."""
        return self._peers.worker

    def watch(self, channel: Holder) -> None:
        """Renew what *channel* holds, too."""
        with self._lock:
            self._channels.add(channel)
            if self._beside is None:
                # A running thread keeps itself alive: a channel whose connection is closed may
                # still hold messages.
                self._beside = Beside("broker-heartbeat", self.look, wait=self._peers.wait)
                self._beside.start()

    def keep(self, channel: Holder) -> None:
        """Keep a reference to *channel* until it owes nothing; a closed one may have no other."""
        with self._lock:
            self._owing.add(channel)

    def look(self) -> float | None:
        """Beat if it is time or the connection was lost; watch others while any message is held.

        Returns:
            Seconds until the next look; None: nothing is held any more.
        """
        now = self._clock.monotonic()
        if self._peers.lost:
            self._answered_at = self._beat_at = float("-inf")
        if now >= self._beat_at:
            if (wait := self.beat()) is None:
                return None
            self._beat_at = self._clock.monotonic() + wait
        if self._any_held:
            self._watch_peers()
        left = max(0.0, self._beat_at - self._clock.monotonic())
        return min(left, self._peers.look_seconds) if self._any_held else left

    def beat(self) -> float | None:
        """Renew messages, and give back those of dead workers.

        Returns:
            Seconds until the next beat; None: nothing is held any more.
        """
        with self._lock:
            self._owing = {channel for channel in self._owing if channel.owes}
            channels = list(self._channels)
            holders = [one for one in channels if not one.closed or one.owes or one.held_tags()]
            if not holders:
                self._beside = None
                self._peers.close()
                self._beat_at = float("-inf")
                return None
        opened = [channel for channel in channels if not channel.closed]
        refused: list[Exception] = []
        try:
            client = self._peers.connect(holders[0].plain_client())
            self._peers.meet(holders[0].unacked, again=self._any_held)
            gone = {tag for channel in holders for tag in self._renew(client, channel)}
            self._warn_of_lost(gone)
            for channel in holders:
                refused += channel.settle()
            if opened:
                refused += self._restore(client, opened[0])
                self._warn_of_eviction(opened[0])
        except (redis.RedisError, OSError) as error:
            return self._note_outage(error)
        self._outage.note(None)
        self._away_at = None
        self._log_refusals(refused)
        return BEAT_SECONDS

    def _watch_peers(self) -> None:
        """Give back what those workers held whose connections were closed."""
        with self._lock:
            channel = next((one for one in self._channels if not one.closed), None)
        if channel is None:
            return
        try:
            gone = self._peers.gone()
            if gone:
                client = self._peers.connect(channel.plain_client())
                self._log_refusals(self._restore(client, channel, gone))
        except (redis.RedisError, OSError) as error:
            self._beat_at = self._clock.monotonic() + self._note_outage(error)

    def _warn_of_eviction(self, channel: Holder) -> None:
        if not self._warned:
            warn_of_eviction(channel.plain_client())
            self._warned = True

    def _renew(self, client: "redis.Redis", channel: Holder) -> list[str]:
        """Renew what *channel* holds; return the tags of what others have got meanwhile."""
        tags = channel.held_tags()
        if not tags and not channel.closed and not self._is_new():
            return []  # there is nothing to renew, and `_restore` gets the server's time as well
        now, gone = channel.unacked.renew(client, tags)
        self._note_answer(now)
        held = set(channel.held_tags())
        return [tag for tag in gone if tag in held]

    def _warn_of_lost(self, gone: set[str]) -> None:
        """Warn once of each message that is gone in two beats on end.

        In a single beat it may have been acknowledged just then.
        """
        lost = (gone & self._gone_before) - self._lost
        self._lost = (self._lost | lost) & gone
        self._gone_before = gone
        if lost:
            logger.warning(
                "%d jobs of this worker were given to others, as its heartbeat did not reach the "
                "broker for too long: they may run twice",
                len(lost),
            )

    def _note_answer(self, server_now: float) -> None:
        """Note when the server answered; begin the grace time again if its clock has jumped."""
        now = self._clock.monotonic()
        ahead = server_now - now
        jumped = self._server_ahead is not None and abs(ahead - self._server_ahead) > JUMP_SECONDS
        if jumped or now - self._answered_at > GRACE_SECONDS:
            self._connected_at = now
        self._answered_at, self._server_ahead = now, ahead

    def _is_new(self) -> bool:
        """Tell whether this worker connected too recently to declare others dead."""
        return self._clock.monotonic() - self._connected_at < GRACE_SECONDS

    def _restore(
        self, client: "redis.Redis", channel: Holder, gone: Sequence[Peer] = ()
    ) -> list[Exception]:
        """Give back what dead workers held; return the broker's refusals.

        Args:
            client: A client of the broker.
            channel: An open channel.
            gone: Workers whose connections were closed; by default only silent workers are dead.
        """
        refused: list[Exception] = []
        if self._is_new():
            return refused
        began = self._clock.monotonic()
        now, self._any_held, overdue = channel.unacked.overdue(
            client, channel.silent_seconds, gone, GONE_SECONDS
        )
        self._note_answer(now)
        if self._clock.monotonic() - began > JUMP_SECONDS:
            self._connected_at = self._clock.monotonic()
        if self._is_new():
            # The server did not answer for a while, or its clock jumped: others may have been
            # unable to renew. What was claimed is not given back now.
            return refused
        for held in overdue:
            try:
                channel.give_back(held)
            except ResponseError as error:
                refused.append(error)
            except Exception as error:  # those after this message must not wait
                if isinstance(error, (redis.RedisError, OSError)):
                    raise
                channel.set_held_aside(held, error)
        return refused

    def _log_refusals(self, refused: Sequence[Exception]) -> None:
        now = self._clock.monotonic()
        if refused and now >= self._log_at:
            logger.error(
                "the broker keeps refusing commands for %d messages; the first error: %s",
                len(refused),
                refused[0],
            )
            self._log_at = now + LOG_SECONDS

    def _note_outage(self, error: Exception) -> float:
        """Note that the server is away; return the seconds until the next attempt.

        The first attempts follow quickly: others take a worker that comes back late for dead.
        """
        now = self._clock.monotonic()
        self._away_at = now if self._away_at is None else self._away_at
        self._connected_at = float("inf")
        self._answered_at = float("-inf")
        if not isinstance(error, ResponseError):
            self._peers.leave()
        self._outage.note(error)
        return LOOK_SECONDS if now - self._away_at < SOON_SECONDS else BEAT_SECONDS
