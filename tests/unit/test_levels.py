"""The five stops of degradation."""

from resilience import Level


def test_levels_are_ordered_from_best_to_worst() -> None:
    """Comparing two levels tells which answer is worse; the numbers are what the wire carries."""
    order = [Level.FULL, Level.STALE, Level.REDUCED, Level.STATIC, Level.FAILED]

    assert list(Level) == order == sorted(order)
    assert [int(level) for level in order] == [0, 1, 2, 3, 4]
    assert max(Level.STALE, Level.STATIC) is Level.STATIC
