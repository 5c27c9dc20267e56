"""Celery jobs that degrade gracefully."""

from resilience import fallback
from resilience.breaker import BreakerPolicy
from resilience.budget import TimeoutBudget, current_budget
from resilience.bulkhead import AdaptiveConcurrency
from resilience.dependency import Dependency, TaskPattern
from resilience.errors import (
    BUGS,
    UNREADABLE,
    AllFallbacksFailedError,
    AlreadyRunningError,
    AttemptTimeoutError,
    BudgetExceededError,
    BulkheadFullError,
    CircuitOpenError,
    ConfigurationError,
    LedgerUnavailableError,
    RejectedError,
    ResilienceError,
    StoreUnavailableError,
)
from resilience.levels import Level
from resilience.outcome import Outcome
from resilience.partial import PartAnswer, PartialResponse
from resilience.pipeline import Pipeline
from resilience.retry import RetryPolicy
from resilience.settings import Settings
from resilience.tasks import (
    FanOut,
    FireAndForgetTask,
    PendingResponse,
    Resilience,
    ResilientTask,
    part,
)

__all__ = [
    "BUGS",
    "UNREADABLE",
    "AdaptiveConcurrency",
    "AllFallbacksFailedError",
    "AlreadyRunningError",
    "AttemptTimeoutError",
    "BreakerPolicy",
    "BudgetExceededError",
    "BulkheadFullError",
    "CircuitOpenError",
    "ConfigurationError",
    "Dependency",
    "FanOut",
    "FireAndForgetTask",
    "LedgerUnavailableError",
    "Level",
    "Outcome",
    "PartAnswer",
    "PartialResponse",
    "PendingResponse",
    "Pipeline",
    "RejectedError",
    "Resilience",
    "ResilienceError",
    "ResilientTask",
    "RetryPolicy",
    "Settings",
    "StoreUnavailableError",
    "TaskPattern",
    "TimeoutBudget",
    "current_budget",
    "fallback",
    "part",
]
