"""How orders change what is agreed: a document and fleet time in, the next document out."""

from collections.abc import Callable, Iterable, Mapping
from uuid import uuid4

from resilience.declared import check_order
from resilience.errors import ConfigurationError, OrderConflictError
from resilience.flags.document import BROWNOUT, Document, Order, Shed, State, TrialPlan
from resilience.flags.feature import Feature
from resilience.levels import Level

SHARE_MAX = 0.5
"""As many calls again are the control of a trial."""
Edit = Callable[[Document, float], Document | None]
"""Makes the next document of one and fleet time; None: nothing is to be changed."""


def order_edit(
    name: str,
    state: State | Level,
    seconds: float,
    actor: str,
    reason: str,
    *,
    seen: int | None = None,
    features: Iterable[Feature] = (),
    kept: bool = True,
) -> Edit:
    """Return the edit that gives an order; the arguments are those of `Flags.order`.

    Args:
        name: Of a feature, or `brownout`.
        state: On, off or auto; the level of a brownout.
        seconds: How long; unused by `auto` and FULL, which only end another order.
        actor: Who orders it.
        reason: Why.
        seen: Version of the last order that *actor* has seen; None: whatever there is.
        features: What a brownout may shed.
        kept: Whether the ledger keeps the order.

    Raises:
        ConfigurationError: *seconds* is out of range, or nobody or no reason is named.
    """
    ends = state in ("auto", Level.FULL)
    check_order(f"order {name}", actor, reason, 1.0 if ends else seconds)

    def edit(now: Document, time: float) -> Document:
        before = now.orders.get(name)
        if before is not None and seen is not None and before.version != seen:
            msg = (
                f"{name}: {before.actor} has given another order since ({before.reason}); "
                "look again before you order"
            )
            raise OrderConflictError(msg)
        order = Order(
            state=state,
            until=time if ends else time + seconds,
            actor=actor,
            reason=reason,
            version=now.version + 1,
            at=time,
            kept=kept,
        )
        return with_orders(now, {name: order}, features, time)

    return edit


def with_orders(
    now: Document, orders: Mapping[str, Order], features: Iterable[Feature], time: float
) -> Document:
    """Return *now* with *orders*, and with what a brownout among all orders sheds of *features*.

    A feature that the brownout switches off is in `shed`, too, so that the controller restores it
    afterwards. A feature is left out while an order keeps it on for longer than the brownout lasts.
    """
    made = now.model_copy(update={"orders": {**now.orders, **orders}})
    brownout = made.orders.get(BROWNOUT)
    if brownout is None or not isinstance(brownout.state, Level):
        return made
    level = brownout.state if time < brownout.until else Level.FULL
    shed = {
        name: one
        for name, one in made.shed.items()
        if one.rule != BROWNOUT or not _outlasts(made.orders.get(name), brownout)
    }
    entry = Shed(rule=BROWNOUT, measured=level, threshold=level, since=time)
    # Behind what is shed already: the controller restores from the end.
    for one in by_cost(features, made):
        order = made.orders.get(one.name)
        if one.default and one.level <= level and not _outlasts(order, brownout):
            shed.setdefault(one.name, entry)
    return made.model_copy(update={"shed": shed})


def _outlasts(order: Order | None, brownout: Order) -> bool:
    """Tell whether *order* keeps its feature on until the brownout is over."""
    return order is not None and order.state == "on" and order.until >= brownout.until


def after_loss(known: Document, features: Iterable[str], time: float) -> Document:
    """Return the document to write into a store that lost its own.

    Other processes may hold newer versions, so the version jumps past all of them. All *features*
    count as just switched.
    """
    version = max(known.version, int(time * 1000))
    return known.model_copy(update={"version": version, "switched": dict.fromkeys(features, time)})


def trial_edit(name: str, share: float, seconds: float, actor: str, reason: str) -> Edit:
    """Return what begins a trial of a feature; the arguments are those of `Flags.start_trial`.

    Raises:
        ConfigurationError: A number is out of range, or nobody or no reason is named.
    """
    check_order(f"trial of {name}", actor, reason, seconds)
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
