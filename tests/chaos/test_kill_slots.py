"""Slots while those who hold them are killed, at full size."""

from pathlib import Path

import pytest

from resilience.testing.valkey import ValkeyProcess
from tests.chaos.holders import hold_and_kill, seconds_until_all_are_back

LEASE_SECONDS = 5.0


@pytest.mark.long
@pytest.mark.timeout(900)
def test_slots_are_never_exceeded_at_full_size(valkey: ValkeyProcess, tmp_path: Path) -> None:
    """16 processes take 1,000 slots each under SIGKILLs: never more holders than slots."""
    valkey.flush()

    verdict = hold_and_kill(
        valkey.url,
        tmp_path,
        processes=16,
        acquisitions=1000,
        slots=4,
        hold_seconds=0.01,
        kills=40,
        kill_seconds=2.0,
        seconds=800,
    )

    print(verdict)  # noqa: T201 - the figures
    assert verdict.peak == 4
    assert verdict.acquired >= 16_000
    assert verdict.killed_holding > 0
    assert seconds_until_all_are_back(valkey.url, tmp_path, slots=4) <= LEASE_SECONDS + 0.5
