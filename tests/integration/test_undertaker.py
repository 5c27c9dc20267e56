"""What becomes of jobs that RabbitMQ has set aside, and of whoever waits for them."""

import sqlite3
from contextlib import closing
from typing import Any

import pytest
from celery import chord
from celery.exceptions import ChordError, WorkerLostError

from resilience import FanOut, part
from resilience.broker.quorum import dead_queue
from resilience.ledger import Which
from resilience.worker.undertaker import Undertaker
from tests.integration.test_rabbitmq import SECONDS, Post, post

pytestmark = pytest.mark.filterwarnings("default:Call to deprecated setex:DeprecationWarning")
__all__ = ["post"]

SET_ASIDE: Any = dead_queue("mail")
NOT_JOBS = ("no job", [1], {"args": []})


@pytest.fixture
def undertaker() -> Undertaker:
    """One that looks when it is told to."""
    return Undertaker(None)


def set_aside(post: Post, *bodies: object) -> None:
    """Put messages that are no jobs where RabbitMQ sets jobs aside."""
    with post.app.connection_for_write() as connection, connection.Producer() as producer:
        for body in bodies:
            producer.publish(body, routing_key=SET_ASIDE.name, declare=[SET_ASIDE])


def letters(post: Post) -> set[str]:
    """Return the ids of all dead letters."""
    return {one.id for one in post.resilience.ledger.letters.find(Which(), limit=100)}


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
    said = [one for one in caplog.messages if "is no job" in one]
    assert len(said) == len(NOT_JOBS)
    assert post.rabbitmq.depths(post.url)[SET_ASIDE.name] == len(NOT_JOBS)


def test_nothing_is_kept_in_hand_while_the_ledger_is_away(
    post: Post, undertaker: Undertaker
) -> None:
    """Everything is back in the broker, for whoever looks next, however often that is."""
    set_aside(post, *NOT_JOBS)
    post.app.tasks["echo"].apply_async((1,), queue=SET_ASIDE)
    with closing(sqlite3.connect(post.ledger_url.removeprefix("sqlite:///"))) as database:
        database.execute("ALTER TABLE resilience_jobs RENAME TO away")

    for _ in range(3):
        undertaker.look(post.resilience)

    count = post.rabbitmq.counts(post.url)[SET_ASIDE.name]
    assert (count.waiting, count.held) == (len(NOT_JOBS) + 1, 0)


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
