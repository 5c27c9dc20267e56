"""The state of a circuit: data and time in, data out.

The same functions decide for the fleet, on what the store has counted, and for a lone process
that has lost the store, on what it has counted itself.
"""

import json
import random
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Self

from resilience.breaker.policy import BreakerPolicy
from resilience.declared import AHEAD_SECONDS, ORDER_SECONDS_MAX
from resilience.store.fleet import Kept, Probes, Window

JITTER = 0.2
RETRY_AFTER_SECONDS_MAX = 300.0
"""A dependency cannot shut itself off for longer by its Retry-After."""
UNHEARD_SECONDS = 0.1
"""Failures in a row must outnumber the fleet's calls of so long. Failures are told at once, but
processes whose calls all end well tell of them after up to a quarter of a second; a host that
fails alone must not open the circuit meanwhile, unless two fifths of all calls are its own."""
DOUBLINGS_MAX = 60
"""More make no difference to any time, and too much for a float."""


class State(StrEnum):
    """What a circuit does with a call."""

    CLOSED = "closed"
    """Lets it through and counts how it ends."""
    OPEN = "open"
    """Refuses it."""
    HALF_OPEN = "half_open"
    """Lets a few through as probes and refuses the rest."""
    FORCED_OPEN = "forced_open"
    """Refuses it because somebody said so."""
    FORCED_CLOSED = "forced_closed"
    """Lets it through because somebody said so; counts, but never opens."""
    OBSERVED = "observed"
    """Lets it through, and announces when it would have opened."""


MANUAL = (State.FORCED_OPEN, State.FORCED_CLOSED, State.OBSERVED)
TIME_MAX = 1e12
"""No time in seconds is so late."""
BODY: tuple[Any, ...] = (int, str, (int, float), str, str)
"""Types of attempt, manual, manual_until, actor and reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Circuit:
    """What the fleet has agreed on about one dependency. All times are fleet time in seconds.

    Attributes:
        generation: When it changed last, in µs, or more: it grows with every change. Results of
            calls of an older one count for nothing. 0: it never changed, or the store has lost it.
        until: Refuses until then, if it is open.
        attempt: Times in a row that it has opened without closing; 0: it is closed.
        manual: What somebody ordered, until `manual_until`.
        actor: Who ordered it.
        reason: Why.
    """

    generation: int = 0
    until: float = 0.0
    attempt: int = 0
    manual: State | None = None
    manual_until: float = 0.0
    actor: str = ""
    reason: str = ""

    def kept(self) -> Kept:
        """Return the form in which the store keeps it."""
        manual = str(self.manual) if self.manual else ""
        body = json.dumps([self.attempt, manual, self.manual_until, self.actor, self.reason])
        return Kept(generation=self.generation, until_ms=round(self.until * 1000), body=body)

    @classmethod
    def of(cls, kept: Kept | None) -> Self:
        """Return the circuit that the store keeps; one that it does not know is closed.

        So is one that cannot be read, as another version of this library has written it.
        """
        if kept is None:
            return cls()
        if (read := cls._read(kept.body)) is None:
            return cls(generation=kept.generation)
        attempt, manual, manual_until, actor, reason = read
        return cls(
            generation=kept.generation,
            until=kept.until_ms / 1000,
            attempt=attempt,
            manual=State(manual) if manual else None,
            manual_until=manual_until,
            actor=actor,
            reason=reason,
        )

    @classmethod
    def can_read(cls, kept: Kept | None) -> bool:
        """Tell whether `of` understands what the store keeps."""
        return kept is None or cls._read(kept.body) is not None

    def is_plausible(self, policy: BreakerPolicy, now: float) -> bool:
        """Tell whether a process with *policy* can have made it by fleet time *now*."""
        longest = max(policy.open_seconds_max, RETRY_AFTER_SECONDS_MAX) + AHEAD_SECONDS
        ordered = now + ORDER_SECONDS_MAX + AHEAD_SECONDS
        return self.until <= now + longest and self.manual_until <= ordered

    @staticmethod
    def _read(body: str) -> Any | None:  # noqa: ANN401 - a list of what BODY names
        try:
            read = json.loads(body)
        except (ValueError, RecursionError):
            return None
        if not isinstance(read, list) or len(read) != len(BODY):
            return None
        if not all(isinstance(one, kind) for one, kind in zip(read, BODY, strict=True)):
            return None
        valid = read[0] >= 0 and read[1] in ("", *MANUAL) and 0 <= read[2] < TIME_MAX
        return read if valid else None


def state_at(circuit: Circuit, now: float) -> State:
    """Return the state that *circuit* is in at *now*, before any new call."""
    if circuit.manual is not None and now < circuit.manual_until:
        return circuit.manual
    if not circuit.attempt or circuit.manual is State.OBSERVED:  # which only would have opened
        return State.CLOSED
    return State.OPEN if now < circuit.until else State.HALF_OPEN


def why_open(window: Window, policy: BreakerPolicy) -> str | None:
    """Return why a circuit with this *window* must open, None if it need not."""
    if window.reporters < policy.min_reporters:
        return None
    if policy.consecutive_failures and window.consecutive >= max(
        policy.consecutive_failures, UNHEARD_SECONDS * window.calls / policy.window_seconds
    ):
        return f"{window.consecutive} failures in a row"
    if window.calls < policy.minimum_calls:
        return None
    failed, slow = window.failed / window.calls, window.slow / window.calls
    if policy.failure_ratio is not None and failed >= policy.failure_ratio:
        return f"{window.failed} of {window.calls} calls failed"
    if policy.slow_seconds is not None and slow >= policy.slow_ratio:
        return f"{window.slow} of {window.calls} calls took over {policy.slow_seconds:g} s"
    return None


def opened(
    circuit: Circuit,
    policy: BreakerPolicy,
    now: float,
    *,
    dice: random.Random,
    retry_after: float = 0.0,
) -> Circuit:
    """Return *circuit* once it has opened, for longer with every attempt.

    A *retry_after* from the dependency is never undercut.
    """
    attempt = 0 if circuit.manual is State.OBSERVED else circuit.attempt
    factor = 2.0 ** min(attempt, DOUBLINGS_MAX)
    seconds = min(policy.open_seconds * factor, policy.open_seconds_max)
    seconds *= 1.0 - JITTER * dice.random()
    return replace(
        circuit,
        generation=_next_generation(circuit, now),
        attempt=attempt + 1,
        until=now + max(seconds, retry_after),
        manual=circuit.manual if now < circuit.manual_until else None,
    )


def closed(circuit: Circuit, now: float) -> Circuit:
    """Return *circuit* once it has closed."""
    return replace(circuit, generation=_next_generation(circuit, now), attempt=0, until=0.0)


def _next_generation(circuit: Circuit, now: float) -> int:
    """Return a number that no circuit had before, also if the store has lost *circuit* and all."""
    at, after = round(now * 1e6), circuit.generation + 1
    # Further ahead than any clock it is no generation of ours, and would leave no room for more.
    return max(after, at) if after < at + ORDER_SECONDS_MAX * 1e6 else at


def passed(probes: Probes, policy: BreakerPolicy) -> bool | None:
    """Return whether the probes as a whole passed, None while some are still out."""
    calls = probes.ok + probes.failed
    if calls < policy.half_open_probes:
        return None
    return probes.failed / calls < (policy.failure_ratio or 0.5)
