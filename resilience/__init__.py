"""Celery jobs that degrade gracefully."""

from resilience import fallback
from resilience.breaker import BreakerPolicy
from resilience.budget import TimeoutBudget, current_budget
from resilience.dependency import Dependency
from resilience.errors import (
    AllFallbacksFailedError,
    AttemptTimeoutError,
    BudgetExceededError,
    CircuitOpenError,
    ConfigurationError,
    RejectedError,
    ResilienceError,
    StoreUnavailableError,
)
from resilience.levels import Level
from resilience.outcome import Outcome
from resilience.partial import PartAnswer, PartialResponse
from resilience.pipeline import Pipeline
from resilience.settings import Settings
from resilience.tasks import FanOut, PendingResponse, Resilience, ResilientTask, part

__all__ = [
    "AllFallbacksFailedError",
    "AttemptTimeoutError",
    "BreakerPolicy",
    "BudgetExceededError",
    "CircuitOpenError",
    "ConfigurationError",
    "Dependency",
    "FanOut",
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
    "Settings",
    "StoreUnavailableError",
    "TimeoutBudget",
    "current_budget",
    "fallback",
    "part",
]
