"""Where a cut would leave a lock taken.

`with lock:` is safe where the lock is written in C: Python raises nothing between the lock's call
and the block. A lock written in Python is not: `logging.Handler.acquire` and `Condition.__enter__`
can be cut when they have taken the lock and before they return, `release` and `__exit__` before
they give it back. Every later call that needs the lock would then wait for ever.
"""

import dis
from types import CodeType

_TAKING = frozenset({"acquire", "acquire_lock", "__enter__"})
_GIVING_BACK = frozenset({"release", "release_lock", "_releaseLock", "__exit__"})
_IMPORT = "<frozen importlib._bootstrap>"
"""The file that takes the locks of modules. It waits for nothing else."""


def lock_at_stake(code: CodeType, at: int) -> bool:
    """Tell whether a cut could leave a lock taken if it came at the instruction *at* of *code*.

    That is where a function begins that gives a lock back, and after a call such as
    `lock.acquire()`. One with arguments does not count: it may be tried again and again, and a
    thread that is seen nowhere else would never be cut.
    """
    if code.co_filename == _IMPORT:
        return True
    gives_back = code.co_name in _GIVING_BACK
    if not gives_back and _TAKING.isdisjoint(code.co_names):
        return False
    before = [one for one in dis.get_instructions(code) if one.offset <= at]
    if not before or before[-1].opname == "RESUME":
        return gives_back
    return "CALL" in before[-1].opname and not before[-1].arg and _takes(before)


def _takes(before: list[dis.Instruction]) -> bool:
    """Tell whether the line of the last instruction names what takes a lock."""
    line = before[-1].positions and before[-1].positions.lineno
    names = [one.argval for one in before if one.positions and one.positions.lineno == line]
    return any(name in _TAKING for name in names if isinstance(name, str))
