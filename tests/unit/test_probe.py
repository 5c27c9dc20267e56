"""What a worker's mark says of its event loop and of its broker."""

from typing import Any

import pytest

from resilience.worker.probe import judge

LIMIT_SECONDS = 15.0
NOW = 1_000.0


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
    looped_at = NOW - LIMIT_SECONDS - 0.1
    mark = mark_of(looped_at=looped_at, answered_at=looped_at + answered_after_seconds)

    assert judge(mark, now=NOW, alive=True, live=True)[0] is healthy


def test_worker_that_waits_for_a_silent_broker_does_not_hang() -> None:
    """Its thread leaves no mark meanwhile; a worker that leaves none for much longer does hang."""
    for late_seconds, says in ((1.0, "the broker has not answered for 18 s"), (11.0, "hangs: ")):
        then = NOW - LIMIT_SECONDS - late_seconds
        mark = mark_of(asks=True, written_at=then, looped_at=then, answered_at=NOW - 18)
        healthy, said = judge(mark, now=NOW, alive=True)
        assert (healthy, said[: len(says)]) == (False, says)
        assert judge(mark, now=NOW, alive=True, live=True)[0] is (late_seconds == 1.0)


def test_worker_that_lost_its_broker_says_why_it_consumes_nothing() -> None:
    """Nobody has told it to: to restart it would not help."""
    nothing = {"consumes": [], "answered_at": NOW - 1}
    away = judge(mark_of(**nothing, broker_is_away=True), now=NOW, alive=True)
    assert away == (False, "consumes from none of its queues, as the broker does not answer")
    told = judge(mark_of(**nothing, broker_is_away=False), now=NOW, alive=True)
    assert told == (False, "consumes from none of its queues")


def mark_of(**changed: object) -> dict[str, Any]:
    """Return the mark of a worker that is well, but for what is *changed*."""
    times = dict.fromkeys(("written_at", "looped_at", "answered_at", "progressed_at"), NOW)
    return {
        "pid": 1,
        "limit_seconds": LIMIT_SECONDS,
        "begun_at": 0.0,
        **times,
        "consumes": ["users"],
        "held": [],
        "stopping": False,
        **changed,
    }
