"""What becomes of jobs that RabbitMQ has set aside, and of whoever waits for them."""

import sqlite3
from contextlib import closing
from typing import Any

import pytest
from celery import chord
from celery.exceptions import ChordError, WorkerLostError
from kombu import Queue

from resilience import FanOut, part
from resilience.broker.quorum import dead_queue
from resilience.ledger import Which
from resilience.testing.ports import free_port
from resilience.testing.proxy import TcpProxy
from resilience.testing.rabbitmq import Count
from resilience.testing.waiting import wait_until
from resilience.worker.undertaker import Undertaker
from tests.integration.test_rabbitmq import SECONDS, Post, post

pytestmark = pytest.mark.filterwarnings("default:Call to deprecated setex:DeprecationWarning")
__all__ = ["post"]

SET_ASIDE: Any = dead_queue("mail")
UNDERTAKER = Undertaker.__module__
NOT_JOBS = ("no job", [1], {"args": []})


@pytest.fixture
def undertaker(post: Post) -> Undertaker:
    """One that looks when it is told to, as that of a worker of all queues."""
    dependencies = post.resilience.dependencies.values()
    post.app.amqp.queues.select([name for one in dependencies for name in one.queues])
    return Undertaker(None)


def set_aside(post: Post, *bodies: object) -> None:
    """Put messages that are no jobs where RabbitMQ sets jobs aside."""
    with post.app.connection_for_write() as connection, connection.Producer() as producer:
        for body in bodies:
            producer.publish(body, routing_key=SET_ASIDE.name, declare=[SET_ASIDE])


def letters(post: Post) -> set[str]:
    """Return the ids of all dead letters."""
    return {one.id for one in post.resilience.ledger.letters.find(Which(), limit=100)}


def said(caplog: pytest.LogCaptureFixture, part: str) -> list[str]:
    """Return the levels of what the undertaker logged with this *part* in it."""
    own = [one for one in caplog.records if one.name == UNDERTAKER]
    return [one.levelname for one in own if part in one.getMessage()]


def test_what_is_no_job_keeps_no_job_waiting_and_is_said_once(
    post: Post, undertaker: Undertaker, caplog: pytest.LogCaptureFixture
) -> None:
    """One look makes letters of all jobs; the rest stays where it is, for a human."""
    set_aside(post, *NOT_JOBS)
    jobs = {post.app.tasks["echo"].apply_async((n,), queue=SET_ASIDE).id for n in range(3)}

    undertaker.look(post.resilience)

    assert letters(post) == jobs
    for _ in range(3):
        undertaker.look(post.resilience)
    assert len(said(caplog, "is no job")) == len(NOT_JOBS)
    assert post.rabbitmq.depths(post.url)[SET_ASIDE.name] == len(NOT_JOBS)


def test_nothing_is_kept_in_hand_while_the_ledger_is_away(
    post: Post, undertaker: Undertaker, caplog: pytest.LogCaptureFixture
) -> None:
    """Everything is back in the broker, for whoever looks next, however often that is."""
    set_aside(post, *NOT_JOBS)
    post.app.tasks["echo"].apply_async((1,), queue=SET_ASIDE)
    with closing(sqlite3.connect(post.ledger_url.removeprefix("sqlite:///"))) as database:
        database.execute("ALTER TABLE resilience_jobs RENAME TO away")

        for _ in range(3):
            undertaker.look(post.resilience)

        everything = Count(waiting=len(NOT_JOBS) + 1, held=0)
        wait_until(
            lambda: post.rabbitmq.counts(post.url)[SET_ASIDE.name] == everything,
            SECONDS,
            "everything is back",
        )
        database.execute("ALTER TABLE away RENAME TO resilience_jobs")
    undertaker.look(post.resilience)
    assert said(caplog, "of queue mail ") == ["ERROR", "WARNING"]


def test_queue_that_cannot_be_emptied_keeps_no_other_waiting(
    post: Post, undertaker: Undertaker, caplog: pytest.LogCaptureFixture
) -> None:
    """It is an error once, and its end is announced."""
    with post.app.connection_for_write() as connection:
        odd = Queue(SET_ASIDE.name, routing_key=SET_ASIDE.name)(connection.default_channel)
        odd.declare()
        behind = dead_queue("mail.retry")
        job = post.app.tasks["echo"].apply_async((1,), queue=behind)

        for _ in range(3):
            undertaker.look(post.resilience)
        odd.delete()
    undertaker.look(post.resilience)

    assert letters(post) == {job.id}
    assert said(caplog, "of queue mail ") == ["ERROR", "WARNING"]


def test_worker_looks_after_its_own_queues(post: Post, undertaker: Undertaker) -> None:
    """With fifty dependencies and a worker each, RabbitMQ is not asked fifty times fifty times."""
    own = post.app.tasks["echo"].apply_async((1,), queue=SET_ASIDE).id
    others = dead_queue("mail.retry")
    post.app.tasks["echo"].apply_async((2,), queue=others)
    post.app.amqp.queues.select(["mail"])

    undertaker.look(post.resilience)

    assert letters(post) == {own}
    assert post.rabbitmq.depths(post.url)[others.name] == 1


def test_broker_that_is_away_is_announced_once(
    post: Post, undertaker: Undertaker, caplog: pytest.LogCaptureFixture
) -> None:
    """However many queues there are, and however often it is asked."""
    proxy = TcpProxy(post.rabbitmq.port)
    post.app.conf.broker_url = post.url.replace(f":{post.rabbitmq.port}/", f":{proxy.port}/")
    undertaker.look(post.resilience)
    assert not said(caplog, "sets aside")
    proxy.lead_to(free_port())
    proxy.cut()
    for _ in range(3):
        undertaker.look(post.resilience)
    proxy.lead_to(post.rabbitmq.port)
    undertaker.look(post.resilience)
    proxy.close()

    assert said(caplog, "sets aside") == ["ERROR", "WARNING"]


def test_who_waits_for_a_job_that_was_set_aside_hears_that_it_failed(
    post: Post, undertaker: Undertaker
) -> None:
    """Its result, its chord and its fan-out end, and do not wait for what will not come."""
    echo = post.app.tasks["echo"]
    lost = echo.s(1).set(queue=SET_ASIDE)
    result = lost.apply_async()
    body = chord([lost.clone(), lost.clone()], echo.s())()
    response = FanOut(a=part(lost.clone())).apply_async(budget=SECONDS)

    undertaker.look(post.resilience)

    with pytest.raises(WorkerLostError, match="came back"):
        result.get(timeout=SECONDS)
    with pytest.raises((ChordError, WorkerLostError)):
        body.get(timeout=SECONDS)
    assert response.get().reasons == {"a": "WorkerLostError"}
    assert len(letters(post)) == 4
