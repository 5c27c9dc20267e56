"""The five stops of degradation."""

from enum import IntEnum


class Level(IntEnum):
    """How good an answer is, from best to worst.

    The order counts: the level of a composed answer is the highest of its parts'.
    """

    FULL = 0
    """Everything works."""
    STALE = 1
    """Reduced freshness: right once, not necessarily now."""
    REDUCED = 2
    """Reduced features: the core is served, something is left out."""
    STATIC = 3
    """Pre-computed or constant, the same for everybody."""
    FAILED = 4
    """Not served, but it says why and when to come back."""
