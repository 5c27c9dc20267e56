"""Whether and when a failed job is tried again."""

from resilience.retry.policy import Dead, Reason, Retry, RetryPolicy

__all__ = ["Dead", "Reason", "Retry", "RetryPolicy"]
