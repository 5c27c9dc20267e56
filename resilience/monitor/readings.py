"""Asks store, broker and ledger for what metrics show."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

from resilience.breaker import Breaker
from resilience.breaker.state import State
from resilience.broker.lengths import oldest_of
from resilience.clock import SystemClock
from resilience.errors import StoreUnavailableError
from resilience.levels import Level
from resilience.monitor.metrics import ANSWERS, COUNTED, OTHER
from resilience.monitor.objective import (
    BURN_WINDOWS,
    LEVELS,
    Objective,
    answers_since,
    minutes_between,
    month_of,
    number_of,
)
from resilience.monitor.prometheus import ENDED, EVENTS, KINDS, PrometheusListener
from resilience.tasks.admission import depth_of
from resilience.tasks.publishing import publish_within
from resilience.tasks.resilience import Resilience

BROKER_SECONDS: Final = 2.0
"""Longest wait for the depths of all queues."""
CONSUMERS_SECONDS: Final = 15.0
"""How often workers are asked what they consume."""
REPLY_SECONDS: Final = 1.0
NAMES_MAX: Final = 2_000
"""Longest name of a series that is read."""


class Reading(NamedTuple):
    """A value of a metric."""

    metric: str
    labels: tuple[str, ...]
    value: float


class Readings:
    """What one process asks for, by source."""

    def __init__(self, resilience: Resilience) -> None:
        """Ask for what *resilience* declares."""
        self._app = resilience
        self._consumers: dict[str, int] = {}
        self._inspected = float("-inf")
        self._known: dict[str, set[str]] = {}
        self.exemplars: Mapping[tuple[str, ...], tuple[str, float]] = {}
        self.born: Any = None

    def from_store(self) -> Iterator[Reading]:
        """Yield what the fleet agrees on, has counted and owes to its objectives.

        Raises:
            StoreUnavailableError: The store does not answer, or refuses.
            ConfigurationError: The app has no store.
        """
        app = self._app
        app.store.run(lambda client: client.ping())
        app.pulse.refresh()
        if app.pulse.scope == "local":
            msg = "the store answers, but refuses a pulse: is it full, read-only or without EVAL?"
            raise StoreUnavailableError(msg)
        held = app.holds.all()
        yield Reading("level", (), app.level)
        for name in app.dependencies:
            if isinstance(breaker := app.breaker(name), Breaker):
                now = breaker.state
                yield from (Reading("breaker_state", (name, one), now is one) for one in State)
        for name in dict.fromkeys([*app.dependencies, *app.app.amqp.queues]):
            yield Reading("held", (name,), name in held)
        for name in app.features:
            yield Reading("feature_shed", (name,), not app.flags.enabled(name))
        yield from self._slots()
        yield from self._totals()
        yield from self._objectives()

    def _slots(self) -> Iterator[Reading]:
        app, now = self._app, self._app.fleet_time() * 1000
        for one in app.dependencies.values():
            if one.slots is not None:
                key = app.store.key("slots", one.name, "held")
                used = app.store.run(lambda client, key=key: client.zcount(key, now, "+inf"))
                yield Reading("slots", (one.name,), one.slots)
                yield Reading("slots_in_use", (one.name,), float(used))  # type: ignore[arg-type]

    def _totals(self) -> Iterator[Reading]:
        store = self._app.store
        self._known = known_labels(self._app)
        totals, exemplars = store.run(
            lambda client: (
                client.hgetall(store.key("totals")),
                client.hgetall(store.key("exemplars")),
            )
        )
        self.born = totals.pop(b"born", None)  # type: ignore[union-attr] # redis-py's types are vague
        counts: Counter[tuple[str, ...]] = Counter()
        for name, value in totals.items():  # type: ignore[union-attr] # redis-py's types are vague
            with suppress(ValueError):
                if parts := self._parsed(name):
                    counts[parts] += number_of(value)  # type: ignore[assignment] # no whole number
        for (metric, *labels), value in counts.items():
            yield Reading(metric, tuple(labels), value)
        found = {}
        for name, value in exemplars.items():  # type: ignore[union-attr] # as above
            with suppress(ValueError, TypeError, KeyError, RecursionError):
                fields = json.loads(value)
                if (parts := self._parsed(name)) and len(fields["trace_id"]) == 32:  # noqa: PLR2004 - as W3C has it
                    found[parts] = f"{int(fields['trace_id'], 16):032x}", number_of(fields["at"])
        self.exemplars = found

    def _parsed(self, name: bytes) -> tuple[str, ...] | None:
        """Return metric and labels of the series *name*; None: no process of ours wrote it."""
        parts: Any = None
        with suppress(ValueError, RecursionError):
            parts = json.loads(name) if len(name) <= NAMES_MAX else None
        if not isinstance(parts, list) or not all(isinstance(one, str) for one in parts):
            return None
        metric = COUNTED.get(parts[0]) if parts else None
        if metric is None or len(parts) != len(metric.labels) + 1 + bool(metric.buckets):
            return None
        bounds = {*map(str, metric.buckets), "+Inf", "sum"}
        if metric.buckets and parts[-1] not in bounds:
            return None
        folded = (
            one if one in self._known[label] else OTHER
            for label, one in zip(metric.labels, parts[1:], strict=False)
        )
        return parts[0], *folded, *parts[len(metric.labels) + 1 :]

    def _objectives(self) -> Iterator[Reading]:
        app, now = self._app, self._app.fleet_time()
        objectives = objectives_of(app)
        spans = {one.window.total_seconds() for one in objectives} | {*BURN_WINDOWS.values()}
        moments = {span: now - span for span in spans} | {0: month_of(now)}
        until, entries = answers_since(app.store, moments.values())
        before = dict(zip(moments, entries, strict=True))
        for name, minutes in minutes_between(until, before[0]).items():
            if name in self._known["dependency"]:
                yield Reading("minutes_below_full", (name,), minutes)
        answers: Counter[tuple[str, ...]] = Counter()
        for (task, dependency, level), count in until.counts.items():
            folded = task if task in self._known["task"] else OTHER
            owner = dependency if dependency in self._known["dependency"] else OTHER
            answers[folded, owner, level] += count  # type: ignore[assignment] # as above
        yield from (Reading(ANSWERS, labels, count) for labels, count in answers.items())
        for one in objectives:
            yield Reading("objective_full_ratio", (one.name,), one.full)
            levels = until.levels(one, before[one.window.total_seconds()])
            total = sum(levels.values()) or 1.0
            for level, count in levels.items():
                yield Reading("objective_answers_ratio", (one.name, level), count / total)
            yield Reading("error_budget_left_ratio", (one.name,), 1 - one.burn_rate(levels))
            for window, span in BURN_WINDOWS.items():
                rate = one.burn_rate(until.levels(one, before[span]))
                yield Reading("burn_rate", (one.name, window), rate)

    def from_broker(self) -> Iterator[Reading]:
        """Yield depth, age and consumers of every queue.

        Raises:
            TimeoutError: The broker does not answer.
        """
        app, found = self._app.app, list[Reading]()

        def ask(given_up: threading.Event) -> None:
            now = self._app.fleet_time()
            with app.producer_or_acquire(None) as producer:  # type: ignore[attr-defined]
                for name in list(app.amqp.queues):
                    if given_up.is_set():
                        return
                    depth = depth_of(app, producer, name)
                    found.append(Reading("queue_jobs", (name,), depth))
                    sent = oldest_of(producer.channel, name) if depth else None
                    if sent is not None:
                        age = max(0.0, now - sent)
                        found.append(Reading("queue_oldest_age_seconds", (name,), age))

        if not publish_within(BROKER_SECONDS, ask):
            msg = f"the broker did not answer within {BROKER_SECONDS:g} s"
            raise TimeoutError(msg)
        yield from found
        if SystemClock.monotonic() - self._inspected > CONSUMERS_SECONDS:
            self._inspected = SystemClock.monotonic()
            replies = app.control.inspect(timeout=REPLY_SECONDS).active_queues() or {}
            self._consumers = Counter(_names(replies.values()))
        for name in list(app.amqp.queues):
            yield Reading("queue_consumers", (name,), self._consumers.get(name, 0))

    def from_ledger(self) -> Iterator[Reading]:
        """Yield what the ledger holds.

        Raises:
            LedgerUnavailableError: The ledger does not answer.
        """
        for one in self._app.ledger.counts():
            known = self._app.dependencies
            labels = (one.dependency if one.dependency in known else OTHER, str(one.state))
            yield Reading("ledger_jobs", labels, one.jobs)
            if one.overdue_seconds is not None:
                yield Reading("ledger_overdue_seconds", labels, max(0.0, one.overdue_seconds))

    @property
    def sources(self) -> dict[str, tuple[float, Callable[[], Iterator[Reading]]]]:
        """How often each source is asked, in seconds, and how."""
        return {
            "store": (1.0, self.from_store),
            "broker": (2.0, self.from_broker),
            "ledger": (5.0, self.from_ledger),
        }


def known_labels(resilience: Resilience) -> dict[str, set[str]]:
    """Return the values of each label of what processes count; others become `OTHER`."""
    return {
        "dependency": {*resilience.dependencies, ""},
        "task": {*resilience.app.tasks},
        "level": LEVELS,
        "kind": {*KINDS.values(), "error"},
        "event": EVENTS,
        "ended": ENDED,
        "result": {"ok", "failed", "slow"},
    }


def objectives_of(resilience: Resilience) -> tuple[Objective, ...]:
    """Return the objectives that the app declares."""
    listeners = resilience.listeners
    return tuple(
        o for one in listeners if isinstance(one, PrometheusListener) for o in one.objectives
    )


def _names(replies: Iterable[Any]) -> Iterator[str]:
    """Yield the queues that workers say they consume from; anybody may answer."""
    for queues in replies:
        for one in queues if isinstance(queues, list) else ():
            if isinstance(one, dict):
                yield str(one.get("name"))
