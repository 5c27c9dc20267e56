"""Jobs of a dependency that holds them wait in the broker while its circuit is open."""

import pytest

from resilience.clock import SystemClock
from resilience.testing.waiting import wait_until
from tests.integration.held_stage import HeldStage, servers, stage

__all__ = ["servers", "stage"]

RAMP_FACTOR = 1.5


def most_allowed(began: float, now: float, full: int) -> int:
    """Return the jobs at once that a ramp which began at *began*, or later, allows at *now*."""
    return min(full, max(1, int(RAMP_FACTOR ** (now - began))))


def test_jobs_wait_in_the_broker_and_run_once_when_the_dependency_is_back(
    stage: HeldStage,
) -> None:
    """No attempt is spent, no message moved, each runs once, and the ramp is never exceeded."""
    stage.break_down()
    with stage.worker("mail", "mail.retry") as worker:
        keys = stage.publish("note", 30) + stage.publish("send", 30)
        stage.await_event("QueueHeld", worker=worker.hostname, actor="breaker")
        wait_until(lambda: len(stage.calls()) >= 4, 20, "two rounds of probes have failed")
        assert stage.waiting() >= len(keys) - stage.held.CONCURRENCY
        assert stage.waiting("mail.retry") == 0
        probes = {key for _, _, key in stage.calls()}
        stage.recover()
        stage.await_done(keys)
        assert not stage.events("JobParked")
        assert stage.done(keys) == [1] * len(keys)
        calls = [one for one in stage.calls() if one[2] not in probes]
        began = min(one[0] for one in calls)
        over = [one for one in calls if one[1] > most_allowed(began, one[0], 8)]
        assert not over
        assert max(at_once for _, at_once, _ in calls) > 1
        worker.kill()


@pytest.mark.parametrize("pool", ["threads", pytest.param("prefork", marks=pytest.mark.long)])
def test_ramp_is_not_exceeded_by_jobs_that_outlast_its_steps(stage: HeldStage, pool: str) -> None:
    """A job that was taken earlier in the ramp, and still runs, counts."""
    breaker = stage.resilience.breaker("mail")
    with stage.worker("mail", "mail.retry", pool=pool) as worker:
        breaker.force_open(seconds=60, actor="ann", reason="test")
        stage.await_event("QueueHeld", worker=worker.hostname)
        keys = stage.publish("linger", 14)
        # The first call may begin late, long after the ramp and nearer to the second call.
        began = SystemClock.monotonic()
        breaker.reset(actor="ann", reason="test")
        stage.await_done(keys)
        calls = stage.calls()
        assert not [one for one in calls if one[1] > most_allowed(began, one[0], 8)]
        assert max(at_once for _, at_once, _ in calls) == 8
        assert stage.done(keys) == [1] * len(keys)
        worker.kill()


@pytest.mark.parametrize(
    "pool", ["threads", pytest.param("gevent", marks=pytest.mark.long), "solo"]
)
def test_jobs_wait_and_run_once_with_every_pool(stage: HeldStage, pool: str) -> None:
    """Threads, greenlets and a lone process hold and go on as prefork does."""
    breaker = stage.resilience.breaker("mail")
    with stage.worker("mail", "mail.retry", concurrency=8, pool=pool) as worker:
        breaker.force_open(seconds=60, actor="ann", reason="test")
        stage.await_event("QueueHeld", worker=worker.hostname)
        keys = stage.publish("note", 6)
        assert stage.waiting() == len(keys)
        breaker.reset(actor="ann", reason="test")
        stage.await_done(keys)
        assert stage.done(keys) == [1] * len(keys)
        assert not stage.events("JobParked")
        worker.kill()


def test_refused_job_waits_though_it_has_a_fallback(stage: HeldStage) -> None:
    """To hold means to wait: a fallback answers failures, not refusals."""
    stage.break_down()
    with stage.worker("mail", "mail.retry", concurrency=2) as worker:
        results = [stage.held.send_or.delay(f"k{number}") for number in range(4)]
        stage.await_event("QueueHeld", worker=worker.hostname)
        stage.recover()
        answers = [stage.held.value(one.get(timeout=20)) for one in results]
        assert answers == [f"k{number}" for number in range(4)]
        worker.kill()


def test_failing_fast_goes_on_as_before(stage: HeldStage) -> None:
    """Without `on_open="hold"` an open circuit still lets fallbacks answer at once."""
    breaker = stage.resilience.breaker("quick")
    breaker.force_open(seconds=60, actor="ann", reason="test")
    with stage.worker("quick", concurrency=2) as worker:
        answer = stage.held.quick.delay("k").get(timeout=20)
        assert stage.held.value(answer) == "at once"
        assert not stage.events("QueueHeld", worker=worker.hostname)
        worker.kill()


def test_prefetched_job_goes_back_when_the_circuit_opens_before_it_runs(stage: HeldStage) -> None:
    """Jobs that the worker had already taken are neither failed nor parked, and do not spin."""
    breaker = stage.resilience.breaker("mail")
    # There before the worker is: a busy machine publishes them no faster than they run.
    keys = stage.publish("note", 80)
    with stage.worker("mail", "mail.retry", concurrency=2, prefetch=8) as worker:
        wait_until(stage.calls, 20, "the first has begun")
        breaker.force_open(seconds=60, actor="ann", reason="test")
        stage.await_event("QueueHeld", worker=worker.hostname)
        wait_until(
            lambda: stage.waiting() + sum(stage.done(keys)) == len(keys), 20, "all others are back"
        )
        refused = worker.log.count("reject requeue=True")
        assert 1 <= refused <= 2 * 2 * 8
        assert stage.waiting() >= refused
        breaker.reset(actor="ann", reason="test")
        stage.await_done(keys)
        assert stage.done(keys) == [1] * len(keys)
        assert not stage.events("JobParked")
        worker.kill()


def test_two_workers_hold_and_share_the_jobs(stage: HeldStage) -> None:
    """Both stop, both go on, and no job runs twice."""
    stage.break_down()
    with (
        stage.worker("mail", "mail.retry", concurrency=4, pool="threads") as one,
        stage.worker("mail", "mail.retry", concurrency=4, pool="threads") as other,
    ):
        keys = stage.publish("note", 30)
        for worker in (one, other):
            stage.await_event("QueueHeld", worker=worker.hostname)
        stage.recover()
        stage.await_done(keys)
        assert stage.done(keys) == [1] * len(keys)
        assert not stage.events("JobParked")
        for worker in (one, other):
            worker.kill()
