"""What somebody can order on the page: each order names the version that it is about."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from resilience.breaker import Breaker
from resilience.errors import ConfigurationError, OrderConflictError, ResilienceError, text_of
from resilience.flags.document import State
from resilience.ledger import Which
from resilience.levels import Level
from resilience.monitor.flower.letters import Desk, Edited
from resilience.monitor.rows import queues_of
from resilience.tasks.resilience import Resilience

Name = Annotated[str, StringConstraints(min_length=1, max_length=255)]
Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)]


class Letters(BaseModel):
    """A filter for dead letters; what is None does not matter."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ids: Annotated[tuple[Name, ...], Field(min_length=1, max_length=200)] | None = None
    dependency: Name | None = None
    task: Name | None = None
    fingerprint: Name | None = None


class Order(BaseModel):
    """An order of an operator.

    Attributes:
        action: What to do: a key of `ACTIONS`.
        name: Of the dependency, queue or feature.
        reason: Why; it is kept.
        version: Of what the operator saw; a newer one is left alone.
        seconds: How long it holds.
        level: Of a brownout.
        share: Of the calls, for a trial.
        which: Dead letters: a filter.
        jobs: How many letters the operator saw.
        edited: New arguments of a letter.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: Name
    name: Name | None = None
    reason: Reason
    version: float = Field(allow_inf_nan=False)
    seconds: float = Field(default=1800.0, gt=0, le=30 * 86400)
    level: Level = Level.FULL
    share: float = Field(default=0.01, gt=0, le=0.5)
    which: Letters = Letters()
    jobs: int = Field(default=1, ge=1)
    edited: Edited | None = None


def act(application: Any, order: Order, actor: str) -> dict[str, str]:  # noqa: ANN401 - Flower's
    """Carry out *order*; return what became of it.

    Raises:
        ConfigurationError: There is no such thing, or nothing of the kind can be done.
        OrderConflictError: Something has changed since the version that it names.
        ResilienceError: The store or the ledger does not answer.
    """
    if order.action not in ACTIONS:
        msg = f"there is no action {order.action!r}"
        raise ConfigurationError(msg)
    kind, do = ACTIONS[order.action]
    given = {"actor": actor, "reason": order.reason}
    if kind == "letters":
        return {"done": do(application.desk, order, given)}
    adopted = application.adopted
    done = do(adopted, order, given)
    if kind == "audited":
        return {"done": done}
    try:
        adopted.ledger.letters.note(order.action, str(order.name), **given)
    except ResilienceError as error:  # the order is in force all the same
        done += f", but the audit does not know: {text_of(error)}"
    return {"done": done}


def _breaker(give: Callable[[Breaker, Order, dict[str, Any]], None]) -> tuple[str, Any]:
    def do(adopted: Resilience, order: Order, given: dict[str, Any]) -> str:
        breaker = adopted.breaker(str(order.name))
        if not isinstance(breaker, Breaker):
            msg = f"no breaker guards {order.name!r}"
            raise ConfigurationError(msg)
        give(breaker, order, {**given, "seen": int(order.version)})
        return f"the circuit of {order.name} is {breaker.state}"

    return "order", do


def _hold(adopted: Resilience, order: Order, given: dict[str, Any]) -> str:
    names = [*adopted.dependencies, *queues_of(adopted)]
    if order.name not in names:
        msg = f"no dependency or queue is called {order.name!r}"
        raise ConfigurationError(msg)
    adopted.holds.hold(order.name, seen=order.version, **_for(order, given))
    return f"{order.name} is held"


def _release(adopted: Resilience, order: Order, given: dict[str, Any]) -> str:
    adopted.holds.release(str(order.name), seen=order.version, **given)
    return f"{order.name} is released"


def _flag(state: State) -> tuple[str, Any]:
    def do(adopted: Resilience, order: Order, given: dict[str, Any]) -> str:
        seen = int(order.version)
        adopted.flags.order(str(order.name), state, seen=seen, **_for(order, given))
        return f"{order.name} is {state}"

    return "audited", do


def _brownout(adopted: Resilience, order: Order, given: dict[str, Any]) -> str:
    made = adopted.flags.brownout(order.level, seen=int(order.version), **_for(order, given))
    return f"the brownout is {made.said}"


def _trial(adopted: Resilience, order: Order, given: dict[str, Any]) -> str:
    name, flags = str(order.name), adopted.flags
    adopted.pulse.refresh()
    running = flags.document.trials.get(name)
    if (running.until if running else 0.0) != order.version:
        msg = f"{name}: a trial has begun or ended since; look again"
        raise OrderConflictError(msg)
    if running:
        flags.stop_trial(name)
        return f"the trial of {name} is over"
    flags.start_trial(name, share=order.share, **_for(order, given))
    return f"a trial of {name} has begun"


def _letters(change: Callable[[Desk, Which, Order, dict[str, Any]], str]) -> tuple[str, Any]:
    def do(desk: Desk, order: Order, given: dict[str, Any]) -> str:
        chosen = order.which.model_dump()
        if not any(chosen.values()):
            msg = "say which letters: ids, a dependency, a task or a fingerprint"
            raise ConfigurationError(msg)
        return change(desk, Which(**chosen, died_by=order.version), order, given)

    return "letters", do


def _edit(desk: Desk, which: Which, order: Order, given: dict[str, Any]) -> str:
    if order.edited is None or len(which.ids or ()) != 1:
        msg = "one letter is edited, and its new arguments are named"
        raise ConfigurationError(msg)
    return desk.edit(which, order.edited, given)


def _for(order: Order, given: dict[str, Any]) -> dict[str, Any]:
    return {**given, "seconds": order.seconds}


ACTIONS: dict[str, tuple[str, Any]] = {
    "breaker open": _breaker(lambda one, order, given: one.force_open(**_for(order, given))),
    "breaker close": _breaker(lambda one, order, given: one.force_closed(**_for(order, given))),
    "breaker observe": _breaker(lambda one, order, given: one.observe(**_for(order, given))),
    "breaker reset": _breaker(lambda one, _order, given: one.reset(**given)),
    "hold": ("order", _hold),
    "release": ("order", _release),
    "flag on": _flag("on"),
    "flag off": _flag("off"),
    "flag auto": _flag("auto"),
    "trial": ("order", _trial),
    "brownout": ("audited", _brownout),
    "replay": _letters(lambda desk, which, order, given: desk.replay(which, order.jobs, given)),
    "discard": _letters(lambda desk, which, order, given: desk.discard(which, order.jobs, given)),
    "edit": _letters(_edit),
}
"""What can be ordered, and who audits it: this module (`order`), the flags, or the letters."""
