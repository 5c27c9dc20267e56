"""Asks store, broker and ledger for what metrics show."""

import functools
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from enum import Enum
from typing import Any, Final

import redis

from resilience import events
from resilience.breaker.state import TIME_MAX, State
from resilience.clock import SystemClock
from resilience.monitor import metrics
from resilience.monitor.metrics import MINUTES, OTHER, Series
from resilience.monitor.objective import counts_until, minutes_below_full
from resilience.monitor.queues import read_queues, workers_by_queue
from resilience.monitor.rows import breakers_of, connected, held_queues, queues_of
from resilience.tasks.ledger_check import uses_ledger
from resilience.tasks.resilience import Resilience

BROKER_SECONDS: Final = 2.0
"""Longest wait for the depths of all queues."""
CONSUMERS_SECONDS: Final = 15.0
"""How often workers are asked what they consume."""
BURN_WINDOWS: Final = {"5m": 300.0, "1h": 3_600.0, "6h": 21_600.0, "3d": 259_200.0}

Values = Iterator[tuple[Series, float]]


class Readings:
    """What one process asks for, by source.

    Attributes:
        born: When the totals of the store began.
        exemplars: Trace and time of the last one of some series.
        sources: How often each source is asked, in seconds, and how.
    """

    def __init__(self, resilience: Resilience) -> None:
        """Ask for what *resilience* declares."""
        self._app = resilience
        self._consumers: Counter[str] | None = None
        self._inspected = float("-inf")
        self.born: object = None
        self.exemplars: dict[Series, tuple[str, float]] = {}
        self.sources: dict[str, tuple[float, Callable[[], Values]]] = {
            "store": (1.0, self._from_store),
            "broker": (2.0, self._from_broker),
        }
        if uses_ledger(resilience):
            self.sources["ledger"] = 5.0, self._from_ledger

    def _from_store(self) -> Values:
        app = connected(self._app)
        held = app.holds.all()
        yield ("level",), app.level
        for name, breaker in breakers_of(app).items():
            now = breaker.state
            yield from ((("breaker_state", name, state), now is state) for state in State)
        for name in {*app.dependencies, *(held.keys() & queues_of(app))}:
            yield ("held", name), name in held
        for name in app.features:
            yield ("feature_shed", name), not app.flags.enabled(name)
        yield from self._slots()
        yield from self._totals()
        yield from self._objectives()

    def _slots(self) -> Values:
        store, now = self._app.store, round(self._app.fleet_time() * 1000)
        for name, dependency in self._app.dependencies.items():
            if dependency.slots is not None:
                key = store.key("slots", name, "held")
                ask: Any = functools.partial(redis.Redis.zcount, name=key, min=now, max="inf")
                yield ("slots", name), dependency.slots
                yield ("slots_in_use", name), store.read(key, ask, 0)

    def _totals(self) -> Values:
        store, known = self._app.store, metrics.known_labels(self._app)

        def ask(kind: str) -> dict[bytes, bytes]:
            key, none = store.key(kind), dict[bytes, bytes]()
            return store.read(key, lambda client: client.hgetall(key), none)

        totals, answers, exemplars = map(ask, ("totals", "answers", "exemplars"))
        self.born = totals.pop(b"born", None)
        # A series that appears with its first count would hide that count from `increase`.
        for name in metrics.LABELS["event"]:
            kind = getattr(events, name)
            if kind.severity >= logging.ERROR:
                of = self._app.dependencies if hasattr(kind, "dependency") else [""]
                yield from ((("events", name, one), 0.0) for one in of)
        counts = metrics.read_counts({**totals, **answers}, known)
        yield from ((one, count) for one, count in counts.items() if one[0] != MINUTES)
        for series, text in exemplars.items():
            with suppress(ValueError, TypeError, KeyError, RecursionError, OverflowError):
                kept = json.loads(text)
                if (one := metrics.read_series(series, known)) and len(kept["trace_id"]) == 32:  # noqa: PLR2004 - W3C's
                    trace = f"{int(kept['trace_id'], 16):032x}"
                    if 0 <= (at := float(kept["at"])) <= TIME_MAX:
                        self.exemplars[one] = trace, at

    def _objectives(self) -> Values:
        for name, minutes in minutes_below_full(self._app).items():
            yield (MINUTES, name), minutes
        now, app = self._app.fleet_time(), self._app
        objectives: Any = [o for one in app.listeners for o in getattr(one, "objectives", ())]
        spans = {one.window.total_seconds() for one in objectives} | {*BURN_WINDOWS.values()}
        until, entries = counts_until(self._app, [now - span for span in spans])
        before = dict(zip(spans, entries, strict=True))
        for one in objectives:
            yield ("objective_full_ratio", one.name), one.full
            levels = one.levels(until, before[one.window.total_seconds()])
            total = sum(levels.values()) or 1.0
            for level, count in levels.items():
                yield ("objective_answers_ratio", one.name, level), count / total
            yield ("error_budget_left_ratio", one.name), 1 - one.burn_rate(levels)
            for window, span in BURN_WINDOWS.items():
                rate = one.burn_rate(one.levels(until, before[span]))
                yield ("burn_rate", one.name, window), rate

    def _from_broker(self) -> Values:
        now = self._app.fleet_time()
        answer = read_queues(self._app, BROKER_SECONDS, workers={})
        yield from ((("queue_jobs", name), depth) for name, depth in answer["queues"].items())
        for name, sent in answer["oldest"].items():
            yield ("queue_oldest_age_seconds", name), max(0.0, now - sent)
        if SystemClock.monotonic() - self._inspected > CONSUMERS_SECONDS:
            self._inspected = SystemClock.monotonic()
            self._consumers = workers_by_queue(self._app.app)
        if self._consumers is not None:
            served = answer["queues"].keys() - held_queues(self._app)
            yield from ((("queue_consumers", name), self._consumers[name]) for name in served)

    def _from_ledger(self) -> Values:
        known = {*self._app.dependencies, ""}
        jobs, overdue = Counter[Series](), dict[Series, float]()
        for one in self._app.ledger.counts():
            state = str(one.state) if isinstance(one.state, Enum) else OTHER
            labels = one.dependency if one.dependency in known else OTHER, state
            jobs["ledger_jobs", *labels] += one.jobs
            if one.overdue_seconds is not None:
                name = ("ledger_overdue_seconds", *labels)
                overdue[name] = max(overdue.get(name, 0.0), one.overdue_seconds)
        yield from jobs.items()
        yield from overdue.items()
