"""Time that stands still until a test moves it."""

START_SECONDS = 1_000.0


class FakeClock:
    """A clock whose hands the test moves, for whatever takes `clock=`."""

    def __init__(self, seconds: float = START_SECONDS) -> None:
        """Show *seconds*."""
        self._seconds = seconds

    def now(self) -> float:
        """Return the seconds shown."""
        return self._seconds

    def monotonic(self) -> float:
        """Return the seconds shown."""
        return self._seconds

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass.

        Raises:
            ValueError: They are less than 0: time never goes back.
        """
        if seconds < 0:
            msg = f"time never goes back: advance() takes 0 or more seconds, got {seconds!r}"
            raise ValueError(msg)
        self._seconds += seconds
