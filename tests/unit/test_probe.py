"""What a worker's mark says of its event loop."""

from typing import Any

import pytest

from resilience.worker.probe import judge

LIMIT_SECONDS = 15.0


@pytest.mark.parametrize(
    ("answered_after_seconds", "healthy"),
    [
        pytest.param(-3.0, True, id="broker-gone-before"),
        pytest.param(0.5, True, id="broker-gone-at-once"),
        pytest.param(5.0, False, id="broker-answers"),
    ],
)
def test_loop_that_stopped_with_its_broker_is_no_reason_to_restart(
    answered_after_seconds: float, *, healthy: bool
) -> None:
    """A worker whose loop waits for a broker that is gone lives; one that hangs does not."""
    now, looped_at = 1_000.0, 1_000.0 - LIMIT_SECONDS - 0.1
    mark: dict[str, Any] = {
        "pid": 1,
        "limit_seconds": LIMIT_SECONDS,
        "written_at": now,
        "begun_at": 0.0,
        "looped_at": looped_at,
        "answered_at": looped_at + answered_after_seconds,
        "progressed_at": now,
        "blocked_by_job": False,
        "consumes": ["users"],
        "held": [],
        "stopping": False,
    }

    assert judge(mark, now=now, alive=True, live=True)[0] is healthy
