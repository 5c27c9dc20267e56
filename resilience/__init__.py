"""Celery jobs that degrade gracefully.

A name is imported when it is asked for: what an app does not use costs it nothing, nor do other
commands of Celery pay for this one.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from resilience.exports import exported_from

if TYPE_CHECKING:
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
    from resilience.monitor.checking.check import check
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
    from resilience.tasks.degradable import degradable

    __version__: str
else:
    _exported = exported_from(
        __name__,
        {
            "resilience.fallback": (),
            "resilience.breaker": ("BreakerPolicy",),
            "resilience.budget": ("TimeoutBudget", "current_budget"),
            "resilience.bulkhead": ("AdaptiveConcurrency",),
            "resilience.dependency": ("Dependency", "TaskPattern"),
            "resilience.errors": (
                "BUGS",
                "UNREADABLE",
                "AllFallbacksFailedError",
                "AlreadyRunningError",
                "AttemptTimeoutError",
                "BudgetExceededError",
                "BulkheadFullError",
                "CircuitOpenError",
                "ConfigurationError",
                "FeatureShedError",
                "LedgerUnavailableError",
                "OrderConflictError",
                "RejectedError",
                "ResilienceError",
                "StoreUnavailableError",
            ),
            "resilience.flags": ("Feature", "FollowProvider"),
            "resilience.flags.policy": ("SheddingPolicy",),
            "resilience.levels": ("Level",),
            "resilience.monitor.checking.check": ("check",),
            "resilience.outcome": ("Outcome",),
            "resilience.partial": ("PartAnswer", "PartialResponse"),
            "resilience.pipeline": ("Pipeline",),
            "resilience.retry": ("RetryPolicy",),
            "resilience.settings": ("Settings",),
            "resilience.tasks": (
                "FanOut",
                "FireAndForgetTask",
                "PendingResponse",
                "Resilience",
                "ResilientTask",
                "degradable",
                "part",
            ),
        },
    )

    def __getattr__(name: str) -> object:
        """Return what the package exports, or its version, which is read from files."""
        if name == "FireAndForgetTask":  # the first job is published in less time than this takes
            import_module("resilience.ledger.ledger")
        if name != "__version__":
            return _exported(name)
        from importlib.metadata import version  # noqa: PLC0415 - see above

        return version("celery-resilience")


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
    "check",
    "current_budget",
    "degradable",
    "fallback",
    "part",
]


def __dir__() -> list[str]:
    return __all__
