"""Time that stands still until a test moves it."""


class HandClock:
    """A clock whose hands the test moves."""

    def __init__(self) -> None:
        """Start at an arbitrary moment."""
        self._seconds = 1_000.0

    def now(self) -> float:
        """Return the seconds shown."""
        return self._seconds

    def monotonic(self) -> float:
        """Return the seconds shown."""
        return self._seconds

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass."""
        self._seconds += seconds
