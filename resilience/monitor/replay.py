"""Replaying dead letters: paced, and after a sample has shown that it helps."""

import threading
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

from celery.utils import uuid

from resilience.clock import SystemClock
from resilience.ledger import Letters, State, Which

RATE = 50.0
SAMPLE = 5
SAMPLE_SECONDS = 30.0
LOOK_SECONDS = 0.5


class Watched(NamedTuple):
    """What has become of replayed jobs.

    Attributes:
        done: How many are done.
        dead: How many are dead again.
        failed: How many have failed again and wait for another call.
        under_way: How many have not ended, and not failed so far.
    """

    done: int = 0
    dead: int = 0
    failed: int = 0
    under_way: int = 0

    def __str__(self) -> str:
        """Return the counts as a human reads them."""
        return (
            f"{self.done} done, {self.dead} dead again, {self.failed} failed again and waiting, "
            f"{self.under_way} under way"
        )


class Replay:
    """A replay of some letters; killed at any point, the same once more does the rest.

    Attributes:
        replayed: The new ids by the old ones, so far.
        sample: What has become of the sample; None: no sample was taken.
    """

    def __init__(
        self, letters: Letters, which: Which, *, actor: str, reason: str, rate: float
    ) -> None:
        """Prepare; nothing is replayed yet.

        Args:
            letters: Those of a ledger.
            which: Which of them.
            actor: Who replays them.
            reason: Why.
            rate: Jobs per second.
        """
        by: dict[str, Any] = {"actor": actor, "reason": reason, "interval_seconds": 1 / rate}
        self._replay = partial(letters.replay, which, new_id=uuid, **by)
        self._letters = letters
        self.replayed: dict[str, str] = {}
        self.sample: Watched | None = None

    @property
    def stopped(self) -> bool:
        """Whether a job of the sample has failed again, so that the others are not replayed."""
        return bool(self.sample and (self.sample.dead or self.sample.failed))

    def run(
        self, total: int, *, sample: int, seconds: float, watch_seconds: float = 0.0
    ) -> Iterator[Watched]:
        """Replay the oldest *total* letters: a *sample* first, the others unless one of it fails.

        Of no more letters than there were, none is touched that died meanwhile, of the sample or
        otherwise: the oldest come first.

        Args:
            total: How many letters.
            sample: How many of them come first; if these are all, there is no sample.
            seconds: Longest wait for the sample to end.
            watch_seconds: How long to watch the jobs after all were replayed.

        Yields:
            What has become of the jobs so far: at once, and after each look at them.
        """
        self.replayed |= self._replay(limit=min(sample, total))
        yield Watched(under_way=len(self.replayed))
        if sample < total:
            for watched in self._watch(seconds):
                self.sample = watched
                yield watched
            if self.stopped:
                return
            self.replayed |= self._replay(limit=total - len(self.replayed))
        if watch_seconds:
            yield from self._watch(watch_seconds)

    def _watch(self, seconds: float) -> Iterator[Watched]:
        """Look at the jobs until each has ended or failed, at most so many seconds."""
        waiting, done, dead = {*self.replayed.values()}, 0, 0
        until = SystemClock.monotonic() + seconds
        while True:
            jobs = self._letters.states(waiting)
            again = {name for name, (state, _) in jobs.items() if state == State.DEAD}
            done += len(waiting) - len(jobs)  # whoever finishes a job removes it
            dead += len(again)
            waiting = jobs.keys() - again
            failed = sum(jobs[name][1] > 0 for name in waiting)
            under_way = len(waiting) - failed
            yield Watched(done=done, dead=dead, failed=failed, under_way=under_way)
            if not under_way or SystemClock.monotonic() >= until:
                return
            threading.Event().wait(LOOK_SECONDS)
