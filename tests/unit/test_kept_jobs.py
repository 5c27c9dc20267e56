"""What the message of a job says that comes from the ledger, and which copies of a job run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.app.task import Context
from celery.app.trace import build_tracer
from kombu.message import Message

from resilience.dependency import Dependency
from resilience.errors import CircuitOpenError
from resilience.ledger import Which
from resilience.settings import Settings
from resilience.tasks import FireAndForgetTask, Resilience
from resilience.tasks.kept import job_of, publish_kept

BY = {"actor": "ann", "reason": "mail is back"}
HOUR = 3600.0
EXPIRES = "2030-01-01T00:00:00+00:00"


class Post:
    """An adopted app on a broker in memory, with a ledger of its own."""

    def __init__(self, path: Path) -> None:
        """Declare the task `send`, which notes its argument in `sent`."""
        self.app: Celery[Any] = Celery("post", broker="memory://", set_as_current=False)
        self.resilience = Resilience(
            self.app,
            dependencies=[Dependency("mail", breaker=None)],
            settings=Settings(ledger_url=f"sqlite:///{path}/ledger.db"),
        )
        self.ledger = self.resilience.ledger
        self.ledger.upgrade()
        self.sent: list[str] = []

        def send(text: str) -> None:
            self.sent.append(text)

        self.send: Any = self.app.task(
            base=FireAndForgetTask, dependency="mail", name="send", shared=False
        )(send)

    def job(self, task_id: str, ledger: dict[str, Any], **headers: Any) -> Any:  # noqa: ANN401
        """Return a job as the ledger keeps it: *ledger* is its own header, *headers* the others."""
        options = {"task_id": task_id, "expires": EXPIRES, "headers": headers}
        return job_of(
            self.send, ["hello"], {}, options, queue="mail", ledger=ledger, age_seconds=HOUR
        )

    def dispatch(self) -> Message:
        """Publish the job that is due, as a relay does, and return its message."""
        [job] = self.ledger.take(9, owner="relay", lease_seconds=HOUR)
        with self.app.producer_or_acquire(None) as producer:
            producer.maybe_declare(self.app.amqp.queues[job.queue])
            publish_kept(self.app, producer, job)
        with self.app.connection_for_read() as connection:
            message = self.app.amqp.queues[job.queue].bind(connection.default_channel).get()
            assert message is not None
            message.ack()
        return message

    def run(self, message: Message) -> str:
        """Run the job of *message* as a worker's process does; return its state."""
        args, kwargs, _ = message.payload
        request = {**message.headers, "args": args, "kwargs": kwargs, "is_eager": False}
        trace = build_tracer(self.send.name, self.send, app=self.app)
        result = trace(message.headers["id"], args, kwargs, request)
        return "SUCCESS" if result.info is None else str(result.info.state)


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Post]:
    """An app and its ledger."""
    post = Post(tmp_path)
    yield post
    post.ledger.close()
    post.app.close()


def test_replayed_letter_has_no_deadline_no_expiry_and_no_crashes(post: Post) -> None:
    """What may have killed the job does not end its replay before that has begun."""
    budget = {"deadline": 1.0, "total": 1.0, "sent": 0.0, "hops": []}
    known = {"born": 1.0, "attempts": 7, "lost": 3, "serializer": "json"}
    job = post.job("a", known, **{"resilience-budget": budget, "resilience-crashes": 3})
    post.ledger.bury(job, reason="poison", error=OSError("killed"))
    post.ledger.letters.replay(Which(), **BY, new_id=lambda: "b", limit=9)

    before = post.resilience.fleet_time()
    headers = post.dispatch().headers
    after = post.resilience.fleet_time()

    assert headers["id"] == "b"
    assert (headers["resilience-budget"], headers["expires"]) == (None, None)
    assert headers["resilience-crashes"] == 0
    born = headers["resilience-job"].pop("born")
    assert before <= born <= after
    assert headers["resilience-job"] == {
        "attempts": 0,
        "dispatches": 1,
        "origin": "a",
        "serializer": "json",
    }


def test_retried_job_keeps_its_deadline_its_expiry_and_its_age(post: Post) -> None:
    """A job that failed is the same job when it runs again."""
    budget = {"deadline": 1.0, "total": 1.0, "sent": 0.0, "hops": []}
    job = post.job("a", {"born": 1.0, "attempts": 1, "lost": 1}, **{"resilience-budget": budget})
    post.ledger.park(job, delay_seconds=0.0, error=OSError("down"))

    headers = post.dispatch().headers

    assert (headers["id"], headers["resilience-budget"]) == ("a", budget)
    assert headers["expires"] == EXPIRES
    known = headers["resilience-job"]
    assert (known["born"], known["attempts"], known["lost"]) == (1.0, 2, 1)


def test_job_that_an_open_circuit_refused_is_due_within_a_second(post: Post) -> None:
    """The relay itself waits for the circuit; the spread keeps jobs from coming all at once."""
    request = Context({"id": "a", "args": ["hello"], "kwargs": {}, "headers": {}})

    waits = [post.send.keep_failed(request, CircuitOpenError("mail", 30.0)) for _ in range(30)]

    assert 0.0 <= min(waits) < 0.5 < max(waits) <= 1.0


def test_late_copy_of_a_job_that_has_ended_does_not_run(post: Post) -> None:
    """A message that is delivered twice runs its job once: the ledger no longer has the job."""
    post.ledger.add([post.job("a", {})])
    message = post.dispatch()
    assert post.run(message) == "SUCCESS"

    assert post.run(message) == "IGNORED"

    assert post.sent == ["hello"]


def test_late_copy_of_a_dead_letter_does_not_run(post: Post) -> None:
    """A job that was given up waits for an operator, even if the broker still has a message."""
    post.ledger.add([post.job("a", {})])
    message = post.dispatch()
    dispatched = post.job("a", {"dispatches": 1})
    post.ledger.bury(dispatched, reason="poison", error=OSError("killed"))

    assert post.run(message) == "IGNORED"

    assert post.sent == []
