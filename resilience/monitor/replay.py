"""Replaying dead letters: paced, and after a sample has shown that it helps."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace

from celery.utils import uuid

from resilience.clock import SystemClock
from resilience.ledger import Letters, State, Which

RATE = 50.0
SAMPLE = 5
SAMPLE_SECONDS = 30.0
LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
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
    """A replay of some letters; killed at any point, the same once more does the rest."""

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
        self._letters = letters
        self._which = which
        self._actor = actor
        self._reason = reason
        self._interval_seconds = 1 / rate

    def count(self, limit: int) -> int:
        """Return how many letters there are, at most *limit*.

        Who replays no more than that touches no letter that dies meanwhile, its own among them:
        the oldest come first.
        """
        return len(self._replay(limit, dry_run=True))

    def start(self, limit: int) -> dict[str, str | None]:
        """Replay the oldest *limit* letters; return the new ids by the old ones."""
        return self._replay(limit, dry_run=False)

    def watch(self, replayed: Mapping[str, str | None], *, seconds: float) -> Watched:
        """Wait until the jobs that letters became have ended, at most so many seconds."""
        waiting = {name for name in replayed.values() if name is not None}
        seen = Watched()
        until = SystemClock.monotonic() + seconds
        pause = threading.Event()
        while True:
            jobs, failed = self._letters.states(waiting), 0
            for name in sorted(waiting):
                state, attempts = jobs.get(name, (None, 0))
                if state is None:  # whoever finishes a job removes it
                    seen = replace(seen, done=seen.done + 1)
                    waiting.discard(name)
                elif state == State.DEAD:
                    seen = replace(seen, dead=seen.dead + 1)
                    waiting.discard(name)
                elif attempts:
                    failed += 1
            if not waiting or SystemClock.monotonic() >= until:
                return replace(seen, failed=failed, under_way=len(waiting) - failed)
            pause.wait(LOOK_SECONDS)

    def _replay(self, limit: int, *, dry_run: bool) -> dict[str, str | None]:
        return self._letters.replay(
            self._which,
            actor=self._actor,
            reason=self._reason,
            new_id=uuid,
            limit=limit,
            interval_seconds=self._interval_seconds,
            dry_run=dry_run,
        )
