"""A fleet of one: the same answers as the store's, from this process's own memory."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from resilience.clock import Clock, SystemClock
from resilience.store.fleet import (
    EndProbe,
    Evidence,
    Exchange,
    Kept,
    Probes,
    Question,
    Reply,
    Swap,
    TakeProbe,
    Window,
)


@dataclass(slots=True)
class _Counts:
    """A window by second, as in pulse.lua."""

    generation: int
    expires: float = float("inf")
    ok: dict[int, int] = field(default_factory=dict)
    failed: dict[int, int] = field(default_factory=dict)
    slow: dict[int, int] = field(default_factory=dict)
    reporters: dict[str, int] = field(default_factory=dict)
    consecutive: int = 0

    def add(self, process: str, one: Evidence, second: int) -> None:
        length = one.window_seconds
        slow_age = 0.0 if one.ok else one.failed_age
        for counts, count, age in (
            (self.ok, one.ok, 0.0),
            (self.failed, one.failed, one.failed_age),
            (self.slow, one.slow, slow_age),
        ):
            if count and int(age) < length:
                at = second - int(age)
                counts[at] = counts.get(at, 0) + count
        bad_age = int(slow_age if one.slow else one.failed_age)
        if one.failed + one.slow and bad_age < length:
            self.reporters[process] = second - bad_age
        if one.ok:
            self.consecutive = one.tail
        elif one.failed:
            self.consecutive += one.failed

    def window(self, oldest: int) -> Window:
        for counts in (self.ok, self.failed, self.slow):
            for at in [at for at in counts if at <= oldest]:
                del counts[at]
        self.reporters = {name: at for name, at in self.reporters.items() if at > oldest}
        failed = sum(self.failed.values())
        return Window(
            calls=sum(self.ok.values()) + failed,
            failed=failed,
            slow=sum(self.slow.values()),
            reporters=len(self.reporters),
            consecutive=self.consecutive,
        )


@dataclass(slots=True)
class _Permits:
    """The probes of one generation, as in probe.lua."""

    generation: int
    leases: dict[str, float] = field(default_factory=dict)
    ok: int = 0
    failed: int = 0


class MemoryFleet:
    """What a process meets that has lost the store, or never had one. Safe with threads."""

    def __init__(self, *, clock: Clock | None = None) -> None:
        """Count from nothing; until `adopt`, fleet time is *clock*'s monotonic time."""
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._circuits: dict[str, Kept] = {}
        self._version = uuid4().hex
        self._counts: dict[str, _Counts] = {}
        self._permits: dict[str, _Permits] = {}
        self._offset = 0.0

    def adopt(self, circuits: Mapping[str, Kept], offset: float) -> None:
        """Go on from what the store last said; fleet time is monotonic time plus *offset*.

        What was counted for the circuits as they are is kept: the store may have been back for no
        more than a moment.
        """
        with self._lock:
            self._circuits = dict(circuits)
            self._version = uuid4().hex
            self._offset = offset

    def restart(self) -> None:
        """Go on in a forked child, where nobody holds the lock."""
        self._lock = threading.Lock()

    def ask(self, question: Question) -> Any:  # noqa: ANN401 - by question
        """Answer at once."""
        with self._lock:
            match question:
                case Exchange():
                    return self._exchange(question)
                case Swap():
                    return self._swap(question)
                case TakeProbe():
                    return self._take(question)
                case EndProbe():
                    return self._end(question)

    def _now(self) -> float:
        return self._clock.monotonic() + self._offset

    def _generation(self, name: str) -> int:
        kept = self._circuits.get(name)
        return kept.generation if kept else 0

    def _exchange(self, question: Exchange) -> Reply:
        now = self._now()
        windows = {}
        for one in question.evidence:
            current = self._generation(one.name)
            counts = self._counts.get(one.name)
            if counts is None or counts.generation != current or now >= counts.expires:
                counts = self._counts[one.name] = _Counts(generation=current)
            if one.generation == current:
                counts.add(question.process, one, int(now))
                counts.expires = now + one.window_seconds + 1
            windows[one.name] = counts.window(int(now) - one.window_seconds)
        known = question.version == self._version
        circuits = None if known else dict(self._circuits)
        return Reply(now=now, version=self._version, circuits=circuits, windows=windows)

    def _swap(self, question: Swap) -> bool:
        if self._circuits.get(question.name) != question.expected:
            return False
        self._circuits[question.name] = question.new
        self._version = uuid4().hex
        self._counts.pop(question.name, None)
        self._permits.pop(question.name, None)
        return True

    def _take(self, question: TakeProbe) -> Probes | None:
        now, kept = self._now(), self._circuits.get(question.name)
        if self._generation(question.name) != question.generation or (
            kept and now * 1000 < kept.until_ms
        ):
            return None
        permits = self._permits.get(question.name)
        first = permits is None or permits.generation != question.generation
        if permits is None or first:
            permits = self._permits[question.name] = _Permits(question.generation)
        permits.leases = {who: end for who, end in permits.leases.items() if end > now}
        ended = permits.ok + permits.failed
        if len(permits.leases) + ended >= question.most:
            return Probes(ok=permits.ok, failed=permits.failed)
        permits.leases[question.owner] = now + question.seconds
        return Probes(granted=True, first=first, ok=permits.ok, failed=permits.failed)

    def _end(self, question: EndProbe) -> Probes | None:
        permits = self._permits.get(question.name)
        if permits is None or permits.generation != question.generation:
            return None
        if permits.leases.pop(question.owner, 0.0) <= self._now():
            return None
        permits.ok += question.result == "ok"
        permits.failed += question.result == "failed"
        return Probes(ok=permits.ok, failed=permits.failed)
