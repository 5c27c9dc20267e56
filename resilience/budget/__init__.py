"""Limits in time, and the budget that they are taken from."""

from resilience.budget.budget import (
    CONCLUSIVE_SHARE,
    TimeoutBudget,
    current_budget,
)
from resilience.budget.clients import (
    client_timeout,
    lacked_time,
    limit_requests,
    limit_statements,
)
from resilience.budget.commands import limit_commands
from resilience.budget.limits import (
    SECONDS_MAX,
    call_within,
    checked_seconds,
    synchronous,
    time_limit_async,
)

__all__ = [
    "CONCLUSIVE_SHARE",
    "SECONDS_MAX",
    "TimeoutBudget",
    "call_within",
    "checked_seconds",
    "client_timeout",
    "current_budget",
    "lacked_time",
    "limit_commands",
    "limit_requests",
    "limit_statements",
    "synchronous",
    "time_limit_async",
]
