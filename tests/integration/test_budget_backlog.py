"""A backlog of late jobs is out of the way at once, and none of them is lost or run."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from celery import chord
from celery.exceptions import ChordError
from celery.result import AsyncResult
from kombu.message import Message

from resilience.broker import SafeConnection
from resilience.tasks.envelope import BUDGET_HEADER
from resilience.testing.waiting import wait_until
from resilience.worker.backlog import acknowledge, take_late
from tests.integration.apps import budget_jobs
from tests.integration.apps.parts import EVENTS
from tests.integration.apps.stage import SECONDS, Stage, new_key, running_stage

AT_ONCE = 100

LONG = 60.0
SHORT = 0.001
BACKLOG = AT_ONCE + 50
CONCURRENCY = 2
PRIORITIES = (0, 4, 9)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A worker of the app in apps/budget_jobs.py."""
    with running_stage(
        tmp_path_factory, app_path=budget_jobs.__name__, concurrency=CONCURRENCY
    ) as running:
        yield running


def publish(stage: Stage, queue: str, task: str = "tell", **options: Any) -> AsyncResult[Any]:  # noqa: ANN401
    """Publish a job that is late as soon as anybody could take it, unless *options* say else."""
    options = {"budget": SHORT, "kwargs": {"key": queue}, **options}
    sent: AsyncResult[Any] = stage.app.tasks[task].apply_async(queue=queue, **options)
    return sent


def await_acknowledged(stage: Stage) -> None:
    """Wait until the worker holds nothing."""
    wait_until(lambda: not stage.broker.held(), SECONDS, "all is acknowledged")


def states(results: list[AsyncResult[Any]]) -> set[str]:
    """Return the states of *results*, once they are final."""
    for result in results:
        result.get(timeout=SECONDS, propagate=False)
    return {result.state for result in results}


def test_backlog_is_dropped_and_what_is_fresh_in_it_runs(stage: Stage) -> None:
    """However many there are: each has its result and its event, and the worker holds none."""
    queue = new_key()
    late, fresh = [], []
    for number in range(BACKLOG):
        late.append(publish(stage, queue))
        if number % 50 == 0:
            fresh.append(publish(stage, queue, budget=LONG))

    stage.consume(queue)

    assert states(fresh) == {"SUCCESS"}
    assert states(late) == {"REVOKED"}
    await_acknowledged(stage)
    assert len(stage.noted(queue)) == len(fresh)
    dropped = {event["id"] for event in stage.noted(EVENTS) if event["name"] == "BudgetExceeded"}
    assert {result.id for result in late} <= dropped


def test_backlog_of_all_kinds_is_handled_job_by_job(stage: Stage) -> None:
    """What has no deadline, or none that can be read, or is of Celery's own class, runs."""
    queue = new_key()
    late = [
        publish(stage, queue),
        publish(stage, queue, "tell_unbound"),
        publish(stage, queue, priority=PRIORITIES[1]),
        publish(stage, queue, priority=PRIORITIES[1]),
        publish(stage, queue, priority=PRIORITIES[2]),
    ]
    told = stage.app.tasks["tell"].s(key=queue)
    part = told.clone().set(queue=queue, budget=SHORT)
    failed = chord([part.clone(), part.clone()], told).apply_async()
    header = {"deadline": 1.0, "total": 1.0, "sent": 1.0, "hops": "none"}
    runs = [
        publish(stage, queue, headers={BUDGET_HEADER: header}, budget=None)
        if malformed
        else publish(stage, queue, "tell_plain")
        for malformed in (True, False)
    ]
    runs.append(publish(stage, queue, budget=None))
    late.append(publish(stage, queue))

    stage.consume(queue)

    assert states(late) == {"REVOKED"}
    assert states(runs) == {"SUCCESS"}
    assert isinstance(failed.get(timeout=SECONDS, propagate=False), ChordError)
    await_acknowledged(stage)
    assert len(stage.noted(queue)) == len(runs)


def test_result_of_a_job_that_ran_already_is_kept(stage: Stage) -> None:
    """A message that comes again after its job succeeded elsewhere does not undo that."""
    queue = new_key()
    ran = stage.app.tasks["tell"].apply_async(kwargs={"key": queue})
    assert ran.get(timeout=SECONDS) == "told"
    others = [publish(stage, queue), publish(stage, queue, task_id=ran.id), publish(stage, queue)]

    stage.consume(queue)

    assert states([others[0], others[2]]) == {"REVOKED"}
    await_acknowledged(stage)
    assert AsyncResult(ran.id, app=stage.app).state == "SUCCESS"


def test_job_that_wants_no_result_leaves_none(stage: Stage) -> None:
    """Also in a backlog."""
    queue = new_key()
    ignored = [publish(stage, queue, ignore_result=True) for _ in range(3)]

    stage.consume(queue)

    await_acknowledged(stage)
    wait_until(lambda: not stage.broker.kept(queue), SECONDS, "the queue is empty")
    assert not stage.desk.client().exists(*(f"celery-task-meta-{one.id}" for one in ignored))


TAKEN_AT_ONCE = pytest.mark.redis_broker("late jobs are taken a hundred at a time")


class Taker:
    """A consumer of *queue* in this process, with one message in hand."""

    def __init__(self, stage: Stage, queue: str) -> None:
        self.connection = SafeConnection(stage.broker.url)
        self.messages: list[Message] = []
        consumer = self.connection.Consumer(
            [stage.app.amqp.queues[queue]], on_message=self.messages.append, prefetch_count=1
        )
        consumer.consume()
        self.connection.drain_events(timeout=SECONDS)

    def take(self, now: float, tasks: tuple[str, ...] = ("tell",)) -> list[Message]:
        """Take what is late behind the message at *now*."""
        return list(take_late(self.messages[0], tasks, now))


@pytest.fixture
def taker(stage: Stage) -> Iterator[Taker]:
    """A consumer of a queue that holds more late jobs than are taken at once."""
    queue = uuid4().hex
    for _ in range(AT_ONCE + 5):
        publish(stage, queue, ignore_result=True)
    taker = Taker(stage, queue)
    yield taker
    taker.connection.close()
    stage.broker.client().delete(queue)


@TAKEN_AT_ONCE
def test_late_jobs_are_taken_as_the_transport_would_have(stage: Stage, taker: Taker) -> None:
    """So many at a time; the broker holds them until they are acknowledged, all at once."""
    now = stage.app.resilience.fleet_time()
    taken = taker.take(now)
    broker = stage.broker.client()

    assert len(taken) == AT_ONCE
    assert broker.hlen("unacked") == broker.zcard("unacked_index") == AT_ONCE + 1
    _, score = broker.zrange("unacked_index", 0, 0, withscores=True)[0]
    assert abs(score - now) < LONG
    for message in taken:
        raw, exchange, key = json.loads(broker.hget("unacked", message.delivery_tag))
        assert raw["headers"] == message.headers
        assert (exchange, key) == ("", message.delivery_info["routing_key"])

    acknowledge(taken)

    assert broker.hlen("unacked") == broker.zcard("unacked_index") == 1


@TAKEN_AT_ONCE
def test_late_jobs_come_again_when_the_connection_ends(stage: Stage, taker: Taker) -> None:
    """What was taken and not acknowledged is back in the queue."""
    taken = taker.take(stage.app.resilience.fleet_time())
    broker, queue = stage.broker.client(), taken[0].delivery_info["routing_key"]
    assert broker.llen(queue) == 4

    taker.connection.close()

    assert broker.hlen("unacked") == 0
    ids = {json.loads(raw)["headers"]["id"] for raw in broker.lrange(queue, 0, -1)}
    assert len(ids) == AT_ONCE + 5
    assert {message.headers["id"] for message in taken} <= ids


@TAKEN_AT_ONCE
def test_nothing_is_taken_that_is_not_late_or_not_ours(stage: Stage, taker: Taker) -> None:
    """Not before its deadline, and not a job of a task that runs late."""
    now = stage.app.resilience.fleet_time()

    assert taker.take(now - LONG) == []
    assert taker.take(now, ("tell_plain",)) == []
