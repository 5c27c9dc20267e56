"""What somebody can order on the page: each order names the version that it is about."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from resilience.breaker import Breaker
from resilience.declared import check_known
from resilience.errors import ConfigurationError, OrderConflictError, ResilienceError, text_of
from resilience.ledger import Which
from resilience.levels import Level
from resilience.monitor.flower.letters import Edited, LetterActions
from resilience.monitor.rows import queues_named, queues_of
from resilience.tasks.resilience import Resilience

Name = Annotated[str, StringConstraints(min_length=1, max_length=255)]
Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)]


class Filter(BaseModel):
    """Which dead letters an order is about; a field that is None excludes nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ids: Annotated[tuple[Name, ...], Field(min_length=1, max_length=200)] | None = None
    dependency: Name | None = None
    task: Name | None = None
    fingerprint: Name | None = None


class Order(BaseModel):
    """An order of an operator.

    Attributes:
        action: What to do; see `act`.
        name: Of the dependency, queue or feature; a brownout has none.
        reason: Why; it is kept in the audit.
        version: What the operator saw, so that a later change is left alone: the generation of a
            circuit; the number of the last order about a feature or brownout; the end of a hold or
            trial, 0 if there is none; the time of the look at letters.
        seconds: How long the order is in force.
        level: Of a brownout: at which level features are shed.
        share: For a trial: the share of calls that take part.
        which: The dead letters that the order is about.
        jobs: How many letters the operator saw.
        edited: The new arguments of a letter.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: Name
    name: Name = "brownout"
    reason: Reason
    version: float = Field(allow_inf_nan=False)
    seconds: float = Field(default=1800.0, gt=0, le=30 * 86400)
    level: Level = Level.FULL
    share: float = Field(default=0.01, gt=0, le=0.5)
    which: Filter = Filter()
    jobs: int = Field(default=1, ge=1)
    edited: Edited | None = None


def act(adopted: Resilience, letters: LetterActions, order: Order, actor: str) -> dict[str, str]:
    """Carry out *order*; return what became of it.

    Raises:
        ConfigurationError: The name or the action is unknown, or the action does not apply to it.
        OrderConflictError: Something has changed since the version that it names.
        ResilienceError: The store or the ledger does not answer.
    """
    by = {"actor": actor, "reason": order.reason}
    held: dict[str, Any] = {**by, "seconds": order.seconds}
    seen, flags = int(order.version), adopted.flags
    match order.action.split():
        case [("replay" | "discard" | "edit") as what]:
            return {"done": _letters(letters, what, order, by)}
        case ["flag", ("on" | "off" | "auto") as state]:
            flags.order(order.name, state, seen=seen, **held)
            return {"done": f"{order.name} is {state}"}
        case ["brownout"]:
            made = flags.brownout(order.level, seen=seen, **held)
            return {"done": f"the brownout is {made.said}"}
        case ["breaker", ("open" | "close" | "observe" | "reset") as what]:
            done = _breaker(adopted, what, order, by)
        case ["hold"]:
            known = (*adopted.dependencies, *queues_of(adopted))
            check_known(order.name, known, "No dependency or queue is called")
            adopted.holds.hold(order.name, seen=order.version, **held)
            done = f"{order.name} is held"
        case ["release"]:
            done = _release(adopted, order, by)
        case ["trial"]:
            done = _trial(adopted, order, held)
        case _:
            msg = f"no order is called {order.action!r}"
            raise ConfigurationError(msg)
    try:  # orders about features and letters were noted where they were made
        adopted.ledger.letters.note(order.action, order.name, **by)
    except ResilienceError as error:  # the order is in force all the same
        done += f", but the audit does not know: {text_of(error)}"
    return {"done": done}


def _breaker(adopted: Resilience, what: str, order: Order, by: dict[str, Any]) -> str:
    breaker = adopted.breaker(order.name)
    if not isinstance(breaker, Breaker):
        msg = f"no breaker guards {order.name!r}"
        raise ConfigurationError(msg)
    change = {"open": "force_open", "close": "force_closed"}.get(what, what)
    until = {} if what == "reset" else {"seconds": order.seconds}
    getattr(breaker, change)(seen=int(order.version), **until, **by)
    return f"the circuit of {order.name} is {breaker.state}"


def _release(adopted: Resilience, order: Order, by: dict[str, Any]) -> str:
    """End the orders to hold a dependency or any of its queues, or to hold another queue."""
    orders, names = adopted.holds.all(), queues_named(adopted, order.name)
    held = {name: hold for name, hold in orders.items() if name in names}
    version = max((hold.until for hold in held.values()), default=0.0)
    _check(order, version, "it was held or released")
    for name, hold in held.items():
        adopted.holds.release(name, seen=hold.until, **by)
    return f"{', '.join(held) or 'nothing'} is released"


def _trial(adopted: Resilience, order: Order, held: dict[str, Any]) -> str:
    """Begin a trial, or end the one that runs."""
    adopted.pulse.refresh()
    running = adopted.flags.document.trials.get(order.name)
    _check(order, running.until if running else 0.0, "a trial has begun or ended")
    if running:
        adopted.flags.stop_trial(order.name)
        return f"the trial of {order.name} is over"
    adopted.flags.start_trial(order.name, share=order.share, **held)
    return f"a trial of {order.name} has begun"


def _check(order: Order, version: float, change: str) -> None:
    if order.version != version:
        msg = f"{order.name}: {change} since; look again"
        raise OrderConflictError(msg)


def _letters(letters: LetterActions, what: str, order: Order, by: dict[str, Any]) -> str:
    if order.which == Filter() or (what == "edit") == (order.edited is None):
        msg = "say which letters: ids, a dependency, a task, a fingerprint; and, to edit one, how"
        raise ConfigurationError(msg)
    which = Which(**order.which.model_dump(), died_by=order.version)
    if order.edited is not None:
        return letters.edit(which, order.edited, by)
    return (letters.discard if what == "discard" else letters.replay)(which, order.jobs, by)
