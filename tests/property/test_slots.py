"""Slots while those who hold them are killed; tests/chaos has the same at full size."""

from pathlib import Path

from resilience.testing.valkey import ValkeyProcess
from tests.chaos.holders import hold_and_kill, seconds_until_all_are_back

LEASE_SECONDS = 5.0


def test_slots_are_never_exceeded(valkey: ValkeyProcess, tmp_path: Path) -> None:
    """Whoever is killed, there are never more holders than slots by the holders' own logs."""
    valkey.flush()

    verdict = hold_and_kill(
        valkey.url,
        tmp_path,
        processes=4,
        acquisitions=12,
        slots=2,
        hold_seconds=0.05,
        kills=2,
        kill_seconds=0.5,
        seconds=240,
    )

    assert verdict.peak == 2
    assert verdict.acquired >= 48


def test_slots_of_killed_processes_are_back_within_one_lease(
    valkey: ValkeyProcess, tmp_path: Path
) -> None:
    """All slots can be had again, and not before their leases have ended."""
    valkey.flush()

    back = seconds_until_all_are_back(valkey.url, tmp_path, slots=2)

    assert back <= LEASE_SECONDS + 0.5
