"""Whether a feature is on, and why: data and time in, data out."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from resilience.flags.document import BROWNOUT, OPEN, Document, Order, Shed
from resilience.flags.feature import Feature
from resilience.levels import Level


class Source(StrEnum):
    """Who decided about a feature, the one that wins first."""

    ORDER = "order"
    """A person, or the provider whose flags the app follows."""
    BROWNOUT = "brownout"
    """A person, for every feature whose level is at most the one ordered."""
    CONTROLLER = "controller"
    """The controller, as something was in trouble."""
    TRIAL = "trial"
    """A trial, for this one call."""
    DEFAULT = "default"
    """Nobody: the declaration holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Whether a feature is on.

    Attributes:
        feature: Its name.
        enabled: Whether it is on.
        level: How good an answer is now: FULL if it is on, else the feature's level.
        source: Who decided.
        reason: Why: the reason of the order, or the rule of the controller such as `load`.
        since: Fleet time at which that was decided; None: declared so.
        until: Fleet time at which that ends by itself; None: open end.
        version: Of the document that says so.
    """

    feature: str
    enabled: bool
    level: Level
    source: Source
    reason: str
    since: float | None
    until: float | None
    version: int


def decide(feature: Feature, document: Document, now: float) -> Decision:
    """Return whether *feature* is on at fleet time *now*. Manual orders win."""
    order = document.orders.get(feature.name)
    if order is not None and order.state in ("on", "off") and now < order.until:
        return _decision(feature, document, Source.ORDER, order, enabled=order.state == "on")
    brownout = document.orders.get(BROWNOUT)
    if (
        brownout is not None
        and now < brownout.until
        and isinstance(brownout.state, Level)
        and feature.level <= brownout.state
    ):
        return _decision(feature, document, Source.BROWNOUT, brownout)
    shed = document.shed.get(feature.name)
    if shed is not None:
        source = Source.BROWNOUT if shed.rule == BROWNOUT else Source.CONTROLLER
        return _decision(feature, document, source, shed)
    return _decision(feature, document, Source.DEFAULT, None, enabled=feature.default)


def let_probe(decision: Decision, half_open: Callable[[str], bool]) -> Decision:
    """Let calls probe a half-open circuit that had their feature shed.

    The circuit refuses all calls but its probes; without those it would never close.
    """
    if decision.source is not Source.CONTROLLER or not decision.reason.startswith(OPEN):
        return decision
    probing = half_open(decision.reason.removeprefix(OPEN))
    return replace(decision, enabled=True, level=Level.FULL) if probing else decision


def _decision(
    feature: Feature,
    document: Document,
    source: Source,
    why: Order | Shed | None,
    *,
    enabled: bool = False,
) -> Decision:
    reason, since, until = "declared so", None, None
    if isinstance(why, Shed):
        reason, since = why.rule, why.since
    elif why is not None:
        reason, since, until = why.reason, why.at, why.until
    return Decision(
        feature=feature.name,
        enabled=enabled,
        level=Level.FULL if enabled else feature.level,
        source=source,
        reason=reason,
        since=since,
        until=until,
        version=document.version,
    )
