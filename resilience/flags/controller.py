"""Which feature is shed or restored next: data and time in, data out."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from resilience.events import Event, FeatureRestored, FeatureShed, FeatureShedLong
from resilience.flags.decision import Source, decide
from resilience.flags.document import Document, Shed
from resilience.flags.feature import Feature
from resilience.flags.orders import by_cost
from resilience.flags.policy import SheddingPolicy

LOAD = "load"
"""Rule of the load of the hosts."""
UNKNOWN_SECONDS = 3600.0
"""How long a feature stays shed that the leading worker does not know."""
JITTER = 0.2
"""A feature waits longer for its return by up to so much, each by its own amount."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one rule measures now.

    Attributes:
        rule: `load`, or its kind and a dependency, such as `open:search`.
        measured: The value, in the unit of the rule; NaN: not known, so that the rule neither sheds
            nor restores.
        threshold: The value from which on the rule sheds features; at half of it they come back.
    """

    rule: str
    measured: float
    threshold: float

    @property
    def in_trouble(self) -> bool:
        """Tell whether the rule sheds features."""
        return self.measured >= self.threshold

    @property
    def well(self) -> bool:
        """Tell whether what the rule has shed may come back."""
        return self.measured <= self.threshold / 2


def step(
    features: Mapping[str, Feature],
    document: Document,
    readings: Sequence[Reading],
    now: float,
    policy: SheddingPolicy,
) -> tuple[Document | None, list[Event]]:
    """Return what is agreed next, None if nothing changes, and what that announces.

    Each cause, which is a dependency or the load of the hosts, sheds one feature in a dwell: the
    costliest that depends on it. Each restores its features in reverse, and one comes back in a
    dwell. What a person has ordered stays as it is.

    Args:
        features: What is declared, by name.
        document: What is agreed.
        readings: What the rules measure. Of several for one cause the first in trouble sheds. A
            rule that is not among them exists no more, and what it has shed comes back.
        now: Fleet time.
        policy: When features are shed.
    """
    by_rule = {one.rule: one for one in readings}
    return _Step(features, document, by_rule, now, policy).run()


@dataclass(slots=True)
class _Step:
    features: Mapping[str, Feature]
    before: Document
    readings: Mapping[str, Reading]
    now: float
    policy: SheddingPolicy
    shed: dict[str, Shed] = field(default_factory=dict)
    switched: dict[str, float] = field(init=False)
    events: list[Event] = field(default_factory=list)

    def run(self) -> tuple[Document | None, list[Event]]:
        for name, one in self.before.shed.items():
            # Workers of another version may know it: in a rolling deployment both lead by turns.
            if name in self.features or self.now - one.since < UNKNOWN_SECONDS:
                self.shed[name] = one
        self.switched = dict(self.before.switched)
        for cause in dict.fromkeys(map(_cause_of, self.readings)):
            self.shed_for(cause)
        self.restore_one()
        self.escalate()
        if self.shed == self.before.shed:
            return None, []
        recent = {name: at for name, at in self.switched.items() if self.is_within(2.0, at)}
        changes = {"shed": self.shed, "switched": recent}
        return self.before.model_copy(update=changes), self.events

    def shed_for(self, cause: str) -> None:
        """Shed the costliest feature that helps, if the cause is in trouble and it is time."""
        steps = [one.since for one in self.shed.values() if _cause_of(one.rule) == cause]
        readings = [one for rule, one in self.readings.items() if _cause_of(rule) == cause]
        trouble = next((one for one in readings if one.in_trouble), None)
        if trouble is None or self.is_within(1.0, *steps):
            return
        for feature in by_cost(self.features.values(), self.before):
            decision, name = decide(feature, self.before, self.now), feature.name
            untouched = decision.enabled and decision.source is Source.DEFAULT
            useful = feature.automatic and untouched and _concerns(cause, feature)
            if useful and not self.is_within(1.0, self.switched.get(name, -math.inf)):
                why: dict[str, Any] = asdict(trouble)
                self.shed[name] = Shed(**why, since=self.now)
                self.switched[name] = self.now
                self.events.append(FeatureShed(feature=name, level=feature.level, **why))
                return

    def restore_one(self) -> None:
        """Restore one feature, if one may come back: of each cause only what it shed last."""
        sheds = {(name, one.since) for name, one in self.shed.items()}
        restored = [at for name, at in self.switched.items() if (name, at) not in sheds]
        seen = set()
        for name, entry in reversed(self.shed.items()):
            cause = _cause_of(entry.rule)
            if cause in seen or name not in self.features or self.is_ordered(name):
                continue
            seen.add(cause)
            dice = random.Random(f"{name} {entry.since}")  # noqa: S311 - the same for any leader
            wait = 1.0 + JITTER * dice.random()
            if not self.is_within(wait, entry.since, *restored) and self.is_well(name, entry):
                return self.restore(name, entry)
        return None

    def own(self, entry: Shed) -> Reading:
        gone = Reading(rule=entry.rule, measured=0.0, threshold=0.0)
        return self.readings.get(entry.rule, gone)

    def is_well(self, name: str, entry: Shed) -> bool:
        """Tell whether no rule would shed the feature, and its own is far from that."""
        troubles = [_cause_of(rule) for rule, one in self.readings.items() if one.in_trouble]
        feature = self.features[name]
        return self.own(entry).well and not any(_concerns(one, feature) for one in troubles)

    def restore(self, name: str, entry: Shed) -> None:
        del self.shed[name]
        self.switched[name] = self.now
        own, seconds = self.own(entry), self.now - entry.since
        why: dict[str, Any] = {**asdict(own), "threshold": own.threshold / 2}
        self.events.append(FeatureRestored(feature=name, seconds=seconds, **why))

    def escalate(self) -> None:
        """Announce once more what has been shed for long; an order's end is known anyway."""
        for name, entry in self.shed.items():
            seconds = self.now - entry.since
            late = seconds > self.policy.escalate_seconds and not entry.escalated
            if late and name in self.features and not self.is_ordered(name):
                self.shed[name] = entry.model_copy(update={"escalated": True})
                self.events.append(FeatureShedLong(feature=name, rule=entry.rule, seconds=seconds))

    def is_ordered(self, name: str) -> bool:
        """Tell whether an order or a brownout decides, which both have an end."""
        return decide(self.features[name], self.before, self.now).until is not None

    def is_within(self, dwells: float, *times: float) -> bool:
        """Tell whether one of *times* is less than so many dwells away, on either side.

        What lies far ahead was tampered with, or a clock was set.
        """
        return any(abs(self.now - at) < dwells * self.policy.dwell_seconds for at in times)


def _cause_of(rule: str) -> str:
    """Return `:` and the dependency, or the rule if it is of none."""
    return "".join(rule.partition(":")[1:]) or rule


def _concerns(cause: str, feature: Feature) -> bool:
    """Tell whether it would help to shed *feature*."""
    return cause == LOAD or cause.removeprefix(":") in feature.depends_on
