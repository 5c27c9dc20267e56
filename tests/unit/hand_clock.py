"""Time that stands still until a test moves it: the clock that users get as well."""

from resilience.testing.clock import FakeClock as HandClock

__all__ = ["HandClock"]
