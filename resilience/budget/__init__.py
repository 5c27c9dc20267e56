"""Limits in time."""

from resilience.budget.timer import time_limit, time_limit_async

__all__ = ["time_limit", "time_limit_async"]
