"""Celery jobs that degrade gracefully."""

from typing import TYPE_CHECKING

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
    FeatureShedError,
    LedgerUnavailableError,
    OrderConflictError,
    RejectedError,
    ResilienceError,
    StoreUnavailableError,
)
from resilience.flags import Feature, FollowProvider
from resilience.flags.policy import SheddingPolicy
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
    degradable,
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
    "Feature",
    "FeatureShedError",
    "FireAndForgetTask",
    "FollowProvider",
    "LedgerUnavailableError",
    "Level",
    "OrderConflictError",
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
    "SheddingPolicy",
    "StoreUnavailableError",
    "TaskPattern",
    "TimeoutBudget",
    "current_budget",
    "degradable",
    "fallback",
    "part",
]

if TYPE_CHECKING:
    __version__: str
else:  # a type checker would take every name for one of the module

    def __getattr__(name: str) -> str:
        """Return `__version__`, which is looked up only when somebody asks: it reads files."""
        if name != "__version__":
            msg = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(msg)
        from importlib.metadata import version  # noqa: PLC0415 - see above

        return version("celery-resilience")
