"""How many reads may go to the primary because no replica can answer them."""

from typing import Final

from resilience.clock import Clock
from resilience.errors import ConfigurationError

WINDOW_SECONDS: Final = 10.0
READS_MIN: Final = 20
"""Below so many reads in the window none is refused: a share of few says nothing."""


class FallbackShare:
    """Counts the reads of this process over a window that turns in two halves."""

    def __init__(self, share: float, clock: Clock, *, where: str = "") -> None:
        """Let *share* of the reads fall back; *where* it was declared is for the error.

        Raises:
            ConfigurationError: *share* is not in (0, 1].
        """
        if not 0 < share <= 1:
            msg = (
                f"{where}: primary_fallback_share must be more than 0 and at most 1, got {share!r}"
            )
            raise ConfigurationError(msg)
        self._share = share
        self._clock = clock
        self._began = clock.monotonic()
        self._reads, self._back = [0, 0], [0, 0]

    def read(self) -> None:
        """Count a read."""
        now = self._clock.monotonic()
        if now - self._began >= WINDOW_SECONDS / 2:
            gone = now - self._began >= WINDOW_SECONDS
            self._reads = [0, 0 if gone else self._reads[0]]
            self._back = [0, 0 if gone else self._back[0]]
            self._began = now
        self._reads[0] += 1

    def allows(self) -> bool:
        """Tell whether one more may fall back."""
        reads = sum(self._reads)
        return reads < READS_MIN or sum(self._back) + 1 <= self._share * reads

    def fell_back(self) -> None:
        """Count one that did."""
        self._back[0] += 1
