"""A budget of time for several calls, of which none can take another's share."""

import functools
from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from types import CoroutineType, TracebackType
from typing import Any, Final, Literal, NamedTuple, Self

from resilience.budget.limits import (
    call_within,
    checked_seconds,
    is_number,
    synchronous,
    time_limit_async,
)
from resilience.budget.replacing import announce_default, replaceable
from resilience.clock import SystemClock
from resilience.errors import BudgetExceededError, ConfigurationError
from resilience.events import Listener, log_event
from resilience.levels import Level
from resilience.outcome import Outcome

CONCLUSIVE_SHARE: Final = 0.1
"""A call that was cut after less than this share of the whole says nothing about who was called:
under load, work often begins with next to nothing left."""
REQUIRED: Final[Any] = object()
ROUNDING: Final = 1e-9

_monotonic = SystemClock.monotonic
_current: ContextVar["TimeoutBudget | None"] = ContextVar("timeout_budget", default=None)


def current_budget() -> "TimeoutBudget | None":
    """Return the innermost budget that this code runs under, None if there is none.

    Inside `budget.run(…)` that is the call's own share.
    """
    return _current.get()


class Spent(NamedTuple):
    """What one call of a budget took.

    Attributes:
        what: Name of the function.
        seconds: How long it ran.
        ended: `ok`, `failed`, `cut` at the end of its share, or `not begun` as nothing was left.
    """

    what: str
    seconds: float
    ended: Literal["ok", "failed", "cut", "not begun"]


# What its own constructor, which is Python code, does.
_spent: Callable[[tuple[str, float, str]], Spent] = functools.partial(tuple.__new__, Spent)


class TimeoutBudget:
    """So many seconds for several calls together, from the moment it is made.

    As a context manager it is the current budget of the code inside: budgets made there never
    reach beyond it, calls through a pipeline take no longer, and jobs published there inherit
    what remains. Nothing but `run` and `arun` cuts: the block itself is not.

    Made for one piece of work, whose calls may run in several threads or coroutines.

    Attributes:
        total: Seconds of the whole budget.
        deadline: When it ends, in monotonic seconds of this host.
        spent: What its calls took, in the order that they ended.
        reasons: Why a default stands in or an answer is degraded, by function.
        listeners: Who hears of defaults: as of the outer budget, such as a job's; else the log.
    """

    __slots__ = (
        "_allocated",
        "_at_first",
        "_entered",
        "_outer",
        "deadline",
        "listeners",
        "reasons",
        "spent",
        "total",
    )

    total: float
    deadline: float

    def __init__(self, total: float) -> None:
        """Start to count.

        Args:
            total: Seconds, more than 0 and at most a year; less if the current budget ends sooner.

        Raises:
            ConfigurationError: *total* is no such number.
        """
        seconds, now = checked_seconds(total, "TimeoutBudget"), _monotonic()
        self._begin(seconds, now + seconds, now)

    @classmethod
    def until(cls, deadline: float, total: float) -> "TimeoutBudget":
        """Return a budget of *total* seconds that ends at *deadline*, in monotonic seconds."""
        made = TimeoutBudget.__new__(TimeoutBudget)
        made._begin(total, deadline, _monotonic())  # noqa: SLF001 - its own
        return made

    def _begin(self, total: float, deadline: float, now: float) -> None:
        outer = _current.get()
        if outer is not None and outer.deadline < deadline:
            deadline = outer.deadline
        self.total = total
        self.deadline = deadline
        self.spent: list[Spent] = []
        self.reasons: dict[str, str] = {}
        self._at_first = deadline - now  # less than the total if an outer budget ends sooner
        self._allocated = 0.0
        self._entered = False
        self._outer = outer
        self.listeners: Iterable[Listener] = (log_event,) if outer is None else outer.listeners

    def __repr__(self) -> str:
        """Return what is left of how much."""
        return f"<TimeoutBudget: {self.remaining():.3g} s of {self.total:g} s left>"

    def __enter__(self) -> Self:
        """Make it the current budget.

        Raises:
            RuntimeError: It was that before, here or elsewhere.
        """
        if self._entered:
            msg = f"{self!r} was entered already; make one for each block"
            raise RuntimeError(msg)
        self._outer = outer = _current.get()
        if outer is not None and outer.deadline < self.deadline:
            self.deadline = outer.deadline
            self._at_first = min(self._at_first, self.remaining())
        self._entered = True
        _current.set(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Make the one before it current again."""
        # A block inside may not have ended, as it was cut in its `__exit__`; and this one may not
        # be current: blocks in generators overlap, and some end in another context.
        current = _current.get()
        while current is not None and current is not self:
            current = current._outer  # noqa: SLF001 - of this class
        if current is self:
            _current.set(self._outer)

    async def __aenter__(self) -> Self:
        """Do the same as `with`."""
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Do the same as `with`."""
        self.__exit__(kind, error, trace)

    def remaining(self) -> float:
        """Return the seconds left, 0 if none are."""
        return max(0.0, self.deadline - _monotonic())

    def outcome(self, value: Any, *, level: Level = Level.REDUCED) -> Outcome[Any]:  # noqa: ANN401
        """Return *value* as an outcome: at *level* if any part of it is a default or degraded."""
        if not self.reasons:
            return Outcome(value=value)
        what, reason = next(iter(self.reasons.items()))
        return Outcome(value=value, level=level, reason=reason, source="default", dependency=what)

    def run(
        self,
        function: Callable[..., Any],
        /,
        *args: Any,  # noqa: ANN401 - handed on
        allocation: float | None = None,
        seconds: float | None = None,
        default: Any = REQUIRED,  # noqa: ANN401 - anything
        **kwargs: Any,  # noqa: ANN401 - handed on
    ) -> Any:  # noqa: ANN401 - what the function returns
        """Return `function(*args, **kwargs)`, cut when its share of the budget is used up.

        What a call leaves of its share is there for the calls after it.

        Args:
            function: What to call. `functools.partial` hands on arguments called like these.
            *args: Handed on.
            allocation: Share of the total, more than 0; those of one budget sum to 1 at most. Under
                an outer budget that ends sooner: share of what that one had left at first.
            seconds: Its share in seconds. Without both: all that remains.
            default: Returned if the call fails or is cut, and noted in `reasons`; without one the
                error is raised. Bugs, and what Celery raises to steer a job, are raised anyway.
            **kwargs: Handed on.

        Raises:
            BudgetExceededError: The call was cut, or nothing was left for it.
            ConfigurationError: *allocation* or *seconds* is out of range, or both are given.
            TypeError: *function* is a coroutine function, which is for `arun`.
        """
        share = _Share(self, function, allocation, seconds)
        try:
            with share:
                value = call_within(share.total, share.exceeded, function, args, kwargs)
                if isinstance(value, CoroutineType):
                    synchronous(value, share.what)
        except Exception as error:
            if default is REQUIRED or not replaceable(error, share.what, function, args, kwargs):
                raise
            self.reasons[share.what] = announce_default(error, share.what, self.listeners)
            return default
        if isinstance(value, Outcome) and value.degraded:
            self.reasons[share.what] = str(value.reason)
        return value

    async def arun(
        self,
        function: Callable[..., Awaitable[Any]],
        /,
        *args: Any,  # noqa: ANN401 - handed on
        allocation: float | None = None,
        seconds: float | None = None,
        default: Any = REQUIRED,  # noqa: ANN401 - anything
        **kwargs: Any,  # noqa: ANN401 - handed on
    ) -> Any:  # noqa: ANN401 - what the function returns
        """Do the same as `run` for a coroutine function."""
        share = _Share(self, function, allocation, seconds)
        try:
            with share:
                async with time_limit_async(share.total, share.exceeded):
                    value = await function(*args, **kwargs)
        except Exception as error:
            if default is REQUIRED or not replaceable(error, share.what, function, args, kwargs):
                raise
            self.reasons[share.what] = announce_default(error, share.what, self.listeners)
            return default
        if isinstance(value, Outcome) and value.degraded:
            self.reasons[share.what] = str(value.reason)
        return value

    def _allocate(
        self, function: Callable[..., Any], allocation: float, seconds: float | None
    ) -> float:
        if seconds is not None:
            msg = f"{_name_of(function)}: give it an allocation or seconds, not both"
            raise ConfigurationError(msg)
        if not is_number(allocation) or not 0 < allocation <= 1:
            msg = f"{_name_of(function)}: allocation must be in (0, 1], got {allocation!r}"
            raise ConfigurationError(msg)
        before = self._allocated
        if before + allocation > 1 + ROUNDING:
            msg = (
                f"{_name_of(function)}: an allocation of {allocation:g} is more than the "
                f"{max(0.0, 1 - before):g} that the calls before it left of the budget"
            )
            raise ConfigurationError(msg)
        self._allocated = before + allocation
        return allocation


class _Share(TimeoutBudget):
    """The budget of one call, taken from that of several."""

    __slots__ = ("_began", "_function", "_late", "_whole")

    def __init__(
        self,
        whole: TimeoutBudget,
        function: Callable[..., Any],
        allocation: float | None,
        seconds: float | None,
    ) -> None:
        self._whole = whole
        self._function = function
        self._began = began = _monotonic()
        self._late: BudgetExceededError | None = None
        self.listeners = whole.listeners
        until = whole.deadline
        if allocation is not None:
            share = whole._allocate(function, allocation, seconds)  # noqa: SLF001 - its own
            until = min(until, began + share * whole._at_first)  # noqa: SLF001
        elif seconds is not None:
            until = min(until, began + checked_seconds(seconds, _name_of(function)))
        # What `_begin` does, which would be a tenth of what `run` costs.
        self._outer = outer = _current.get()
        if outer is not None and outer.deadline < until:
            until = outer.deadline
        self.deadline = until
        self.total = self._at_first = until - began
        self.spent = []
        self.reasons = {}
        self._allocated = 0.0

    @property
    def what(self) -> str:
        return _name_of(self._function)

    def exceeded(self) -> BudgetExceededError:
        """Return what to raise when the share is used up."""
        ran = 0.0 if self.total <= 0 else _monotonic() - self._began
        whole = self._whole
        left, fair = whole.deadline - _monotonic(), self.total >= CONCLUSIVE_SHARE * whole.total
        self._late = BudgetExceededError(self.what, ran, left, whole.total, fair)
        return self._late

    def __enter__(self) -> Self:
        if self.total <= 0:
            self._whole.spent.append(Spent(self.what, 0.0, "not begun"))
            raise self.exceeded()
        _current.set(self)  # it was made just before: what blocks look out for cannot be
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if _current.get() is self:
            _current.set(self._outer)
        else:
            super().__exit__(kind, error, trace)
        ended: Literal["ok", "failed", "cut"] = "ok"
        if error is not None:
            ended = "cut" if error is self._late else "failed"
        took = _monotonic() - self._began
        self._whole.spent.append(_spent((_name_of(self._function), took, ended)))


def _name_of(function: Callable[..., Any]) -> str:
    name = getattr(function, "__qualname__", None) or getattr(function, "name", None)
    if isinstance(name, str):
        return name
    return str(name or _name_of(getattr(function, "func", type(function))))
