"""How orders change what is agreed: a document and fleet time in, the next document out."""

import math
from collections.abc import Callable, Iterable
from typing import Literal
from uuid import uuid4

from resilience.errors import ConfigurationError, OrderConflictError
from resilience.flags.document import BROWNOUT, BrownoutOrder, Document, Order, Shed, TrialPlan
from resilience.flags.feature import Feature
from resilience.levels import Level

SHARE_MAX = 0.5
"""As many calls again are the control of a trial."""
Edit = Callable[[Document, float], Document | None]
"""Makes the next document of one and fleet time; None: nothing is to be changed."""


def order_edit(
    name: str,
    state: Literal["on", "off", "auto"],
    seconds: float,
    actor: str,
    reason: str,
    seen: int | None,
) -> Edit:
    """Return what orders a feature on or off; the arguments are those of `Flags.order`.

    Raises:
        ConfigurationError: *seconds* is out of range, or nobody or no reason is named.
    """
    _check(name, actor, reason, seconds)

    def edit(now: Document, time: float) -> Document:
        before = now.orders.get(name)
        if before is not None and seen is not None and before.version != seen:
            raise OrderConflictError(name, before.actor, before.reason)
        order = Order(
            state=state,
            until=time + seconds,
            actor=actor,
            reason=reason,
            version=now.version + 1,
            at=time,
        )
        return now.model_copy(update={"orders": {**now.orders, name: order}})

    return edit


def brownout_edit(
    level: Level, features: Iterable[Feature], seconds: float, actor: str, reason: str
) -> Edit:
    """Return what sheds those of *features* that have *level* or a better one.

    Raises:
        ConfigurationError: *seconds* is out of range, or nobody or no reason is named.
    """
    _check(BROWNOUT, actor, reason, seconds)

    def edit(now: Document, time: float) -> Document:
        order = BrownoutOrder(
            level=level,
            until=time + seconds,
            actor=actor,
            reason=reason,
            version=now.version + 1,
            at=time,
        )
        return with_brownout(now, order, features, time)

    return edit


def with_brownout(
    now: Document, order: BrownoutOrder, features: Iterable[Feature], time: float
) -> Document:
    """Return *now* with a brownout, and with what it sheds of *features* unless it is over."""
    # Behind what is shed already: the controller restores from the end.
    new = Shed(rule=BROWNOUT, measured=order.level, threshold=order.level, since=time)
    level = order.level if time < order.until else Level.FULL
    affected = [one for one in by_cost(features, now) if one.level <= level]
    shed = {one.name: new for one in affected if one.name not in now.shed}
    return now.model_copy(update={"brownout": order, "shed": {**now.shed, **shed}})


def after_loss(known: Document, features: Iterable[str], time: float) -> Document:
    """Return what a store gets that has lost the document, from what one process has *known*.

    Others may have known more: no version of theirs is used again, and the controller leaves all
    *features* alone for a while, as if it had just switched them.
    """
    version = max(known.version, int(time * 1000))
    return known.model_copy(update={"version": version, "switched": dict.fromkeys(features, time)})


def trial_edit(name: str, share: float, seconds: float, actor: str, reason: str) -> Edit:
    """Return what begins a trial of a feature; the arguments are those of `Flags.start_trial`.

    Raises:
        ConfigurationError: A number is out of range, or nobody or no reason is named.
    """
    _check(f"trial of {name}", actor, reason, seconds)
    if not 0 < share <= SHARE_MAX:
        msg = f"trial of {name}: share must be more than 0 and at most {SHARE_MAX}, got {share!r}"
        raise ConfigurationError(msg)

    def edit(now: Document, time: float) -> Document:
        plan = TrialPlan(
            id=uuid4().hex,
            share=share,
            began=time,
            until=time + seconds,
            actor=actor,
            reason=reason,
        )
        return now.model_copy(update={"trials": {**now.trials, name: plan}})

    return edit


def end_trial(name: str, now: Document, time: float) -> Document | None:
    """End the trial of a feature now, if one runs."""
    plan = now.trials.get(name)
    if plan is None or plan.until <= time:
        return None
    plan = plan.model_copy(update={"until": time})
    return now.model_copy(update={"trials": {**now.trials, name: plan}})


def by_cost(features: Iterable[Feature], document: Document) -> list[Feature]:
    """Return *features*, the costliest first: by measured cost, else the given one, then none."""

    def cost(feature: Feature) -> float:
        measured = document.costs.get(feature.name)
        if measured is not None:
            return measured.seconds
        return -1.0 if feature.cost is None else feature.cost

    return sorted(features, key=lambda feature: (-cost(feature), feature.level, feature.name))


def _check(name: str, actor: str, reason: str, seconds: float) -> None:
    if not (math.isfinite(seconds) and seconds > 0):
        msg = f"order {name}: seconds must be more than 0, got {seconds!r}"
        raise ConfigurationError(msg)
    if not actor.strip() or not reason.strip():
        msg = f"order {name}: say who orders it and why, got {actor!r} and {reason!r}"
        raise ConfigurationError(msg)
