"""Limits in time, and the budget that they are taken from."""

from resilience.budget.budget import (
    CONCLUSIVE_SHARE,
    TimeoutBudget,
    checked_seconds,
    current_budget,
)
from resilience.budget.limits import (
    SECONDS_MAX,
    call_within,
    synchronous,
    time_limit_async,
)

__all__ = [
    "CONCLUSIVE_SHARE",
    "SECONDS_MAX",
    "TimeoutBudget",
    "call_within",
    "checked_seconds",
    "current_budget",
    "synchronous",
    "time_limit_async",
]
