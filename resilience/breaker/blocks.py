"""The guarded blocks that this context is in."""

import contextvars

from resilience.breaker.keeper import Keeper, Pass

_entered: contextvars.ContextVar[tuple[tuple[Keeper, Pass], ...]] = contextvars.ContextVar(
    "entered-breakers", default=()
)


def push(breaker: Keeper, admitted: Pass) -> None:
    """Enter a block that *breaker* guards."""
    _entered.set((*_entered.get(), (breaker, admitted)))


def pop(breaker: Keeper) -> Pass | None:
    """Return what *breaker*'s innermost block was given; None if it began in another context.

    That may be, as may blocks that overlap: generators end wherever they are closed.
    """
    entered = _entered.get()
    for at in reversed(range(len(entered))):
        guard, admitted = entered[at]
        if guard is breaker:
            _entered.set(entered[:at] + entered[at + 1 :])
            return admitted
    return None
