"""Holds, ramps and remote control of a worker whose connection knows limits of consumers only."""

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from resilience.testing.proxy import TcpProxy
from resilience.testing.stack import run_worker
from resilience.testing.waiting import wait_until
from tests.integration.held_stage import APP_PATH, HeldStage, servers, stage

__all__ = ["servers", "stage"]

pytestmark = pytest.mark.long  # `make chaos` runs these on RabbitMQ, where they can fail

QUEUES = ("mail", "mail.retry")


@pytest.fixture
def proxy(stage: HeldStage) -> Iterator[TcpProxy]:
    """What lies between the worker and its broker."""
    proxy = TcpProxy(urlsplit(stage.broker.url).port or 0)
    yield proxy
    proxy.close()


def hold(stage: HeldStage) -> None:
    """Order it."""
    stage.resilience.holds.hold("mail", seconds=60, actor="ann", reason="test")


def release(stage: HeldStage) -> None:
    """End the order."""
    stage.resilience.holds.release("mail", actor="ann", reason="test")


def test_busy_worker_takes_no_more_jobs_once_it_is_held(stage: HeldStage) -> None:
    """Those that it runs end; all others stay in the broker."""
    with stage.worker(*QUEUES) as worker:
        keys = stage.publish("linger", 20)
        wait_until(lambda: len(stage.calls()) == stage.held.CONCURRENCY, 20, "all are busy")
        hold(stage)
        stage.await_event("QueueHeld", worker=worker.hostname)
        wait_until(lambda: not stage.broker.held(), 20, "what it runs has ended")
        assert sum(stage.done(keys)) == stage.held.CONCURRENCY
        assert stage.waiting() == len(keys) - stage.held.CONCURRENCY
        worker.kill()


def test_queue_that_remote_control_cancels_is_consumed_no_more_after_a_ramp(
    stage: HeldStage,
) -> None:
    """All that the ramp has added goes as well; another queue goes on, and both once it is back."""
    with stage.worker(*QUEUES) as worker:
        hold(stage)
        stage.await_event("QueueHeld", worker=worker.hostname)
        keys = stage.publish("linger", 20)
        release(stage)
        stage.await_done(keys)
        control, here = stage.held.app.control, [worker.hostname]
        with stage.held.app.connection_for_write() as connection:
            control.cancel_consumer("mail", destination=here, reply=True, connection=connection)
        stage.held.linger.apply_async(("first",), queue="mail.retry")
        stage.await_done(["first"])
        keys = stage.publish("note", 5)
        stage.held.note.apply_async(("second",), queue="mail.retry")
        stage.await_done(["second"])
        assert stage.waiting("mail") == len(keys)
        with stage.held.app.connection_for_write() as connection:
            control.add_consumer("mail", destination=here, reply=True, connection=connection)
        stage.await_done(keys)
        worker.kill()


def test_worker_that_loses_its_broker_while_it_stops_consuming_goes_on_when_both_are_back(
    stage: HeldStage, proxy: TcpProxy
) -> None:
    """A network that is away fails calls and connections alike; no queue is left out after it."""
    url = stage.broker.url.replace(f":{urlsplit(stage.broker.url).port}", f":{proxy.port}")
    env = {**stage.env, "BROKER_URL": url}
    with run_worker(APP_PATH, queues=QUEUES, concurrency=8, env=env) as worker:
        stage.await_done(stage.publish("note", 1))
        proxy.swallow()
        hold(stage)
        wait_until(lambda: "Canceling queue mail" in worker.log, 20, "it stops consuming")
        release(stage)
        proxy.heal()
        stage.await_done(stage.publish("note", 5))
        assert stage.waiting("mail") == 0
        worker.kill()
