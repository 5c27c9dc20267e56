"""What became of features."""

import logging
from dataclasses import dataclass

from resilience.events.base import Event
from resilience.levels import Level


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureOrdered(Event, severity=logging.WARNING):
    """Somebody gave an order: about a feature, or a brownout.

    Attributes:
        feature: Its name; `brownout` for a brownout.
        order: `on`, `off`, `auto` or `trial`; the level of a brownout, `off` if it is over.
        until: Fleet time at which the order ends by itself.
        actor: Who ordered it.
        reason: Why.
    """

    feature: str
    order: str
    until: float
    actor: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderNotRecorded(Event, severity=logging.ERROR):
    """An order is in force but is not in the ledger. It is lost if the store is flushed.

    The leading worker retries.

    Attributes:
        feature: Whose order it is; `brownout` for a brownout.
        error: Why it is not there, and the mend.
    """

    feature: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureShed(Event, severity=logging.WARNING):
    """The controller switched a feature off.

    Attributes:
        feature: Its name.
        level: How good answers are without it.
        rule: Which rule said so, such as `open:search` or `load`.
        measured: What was measured, in the unit of the rule.
        threshold: What that reached.
    """

    feature: str
    level: Level
    rule: str
    measured: float
    threshold: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureRestored(Event, severity=logging.WARNING):
    """The controller switched a feature on again.

    Attributes:
        feature: Its name.
        rule: Which rule had it shed.
        measured: What was measured now, in the unit of the rule; 0 if it measures nothing any more,
            such as a brownout that is over.
        threshold: What that had to come down to; 0 likewise.
        seconds: How long the feature was shed.
    """

    feature: str
    rule: str
    measured: float
    threshold: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureShedLong(Event, severity=logging.ERROR):
    """A feature has been shed for so long that somebody should look; announced once each time.

    Attributes:
        feature: Its name.
        rule: Which rule has it shed.
        seconds: How long that has been.
    """

    feature: str
    rule: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagsLost(Event, severity=logging.WARNING):
    """This process does not know any more what is ordered and shed.

    Its last known state applies for five minutes, and then the defaults; each is announced once.

    Attributes:
        error: Why.
        defaults: Whether the defaults apply now; else the last known state does.
    """

    error: str
    defaults: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagProviderFailed(Event, severity=logging.WARNING):
    """The flag provider that the app follows does not answer; its last orders end by themselves.

    Announced once, until the provider has answered in time again.

    Attributes:
        provider: Its domain at OpenFeature.
        error: Why.
    """

    provider: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagMisused(Event, severity=logging.WARNING):
    """A flag was asked for that is not declared, and was answered with the caller's default.

    Announced once for each of the first 100 names in each process.

    Attributes:
        feature: What was asked for.
        answer: The default.
    """

    feature: str
    answer: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialEnded(Event, severity=logging.WARNING):
    """A trial of what a feature costs is over.

    Attributes:
        feature: Its name.
        conclusion: What it found, or why it found nothing.
        calls: Calls on both sides.
        actor: Who ordered it.
        reason: Why.
        seconds: Worker-seconds that a call takes less without the feature; None: not known.
        low: Lower end of the 99 % confidence interval.
        high: Upper end.
    """

    feature: str
    conclusion: str
    calls: int
    actor: str
    reason: str
    seconds: float | None = None
    low: float | None = None
    high: float | None = None
