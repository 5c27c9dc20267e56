"""The breakers whose `with` blocks this context is in."""

from contextvars import ContextVar

from resilience.breaker.keeper import Keeper, Pass

_Entered = tuple[Keeper, Pass, "_Entered | None"]
"""The breaker of a block, what it admitted, and the block around it."""

_innermost: ContextVar[_Entered | None] = ContextVar("entered-breakers", default=None)


def push(breaker: Keeper, admitted: Pass) -> None:
    """Note that a block of *breaker* begins."""
    _innermost.set((breaker, admitted, _innermost.get()))


def pop(breaker: Keeper) -> Pass | None:
    """End *breaker*'s innermost block; return what it was given, None if not in this context.

    A block in a generator ends wherever the generator is closed. That may be in another context, or
    inside of another block.
    """
    innermost = _innermost.get()
    if innermost is not None and innermost[0] is breaker:
        _innermost.set(innermost[2])
        return innermost[1]
    return _pop_from_within(breaker)


def _pop_from_within(breaker: Keeper) -> Pass | None:
    """Do the same for a block with other blocks inside of it, which stay."""
    block, inside = _innermost.get(), []
    while block is not None and block[0] is not breaker:
        inside.append(block)
        block = block[2]
    if block is None:
        return None
    _, admitted, around = block
    for inner, inner_admitted, _ in reversed(inside):
        around = inner, inner_admitted, around
    _innermost.set(around)
    return admitted
