"""Limits in time, and the budget that they are taken from."""

from resilience.budget.allowance import RESERVE_SECONDS_MAX, Allowance, Limit
from resilience.budget.budget import TimeoutBudget, current_budget
from resilience.budget.clients import (
    client_timeout,
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
from resilience.budget.threads import cleaners
from resilience.budget.timer import Cut

__all__ = [
    "RESERVE_SECONDS_MAX",
    "SECONDS_MAX",
    "Allowance",
    "Cut",
    "Limit",
    "TimeoutBudget",
    "call_within",
    "checked_seconds",
    "cleaners",
    "client_timeout",
    "current_budget",
    "limit_commands",
    "limit_requests",
    "limit_statements",
    "synchronous",
    "time_limit_async",
]
