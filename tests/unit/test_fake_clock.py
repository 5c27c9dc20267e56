"""The clock that stands until a test moves it."""

import pytest

from resilience.testing.clock import FakeClock


def test_clock_stands_until_it_is_moved(fake_clock: FakeClock) -> None:
    """Both hands move by the same, and never back."""
    began = fake_clock.now(), fake_clock.monotonic()

    fake_clock.advance(2.5)

    assert (fake_clock.now() - began[0], fake_clock.monotonic() - began[1]) == (2.5, 2.5)
    with pytest.raises(ValueError, match="0 or more seconds, got -1"):
        fake_clock.advance(-1)
