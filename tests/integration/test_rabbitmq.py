"""What a RabbitMQ as broker promises."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any
from uuid import uuid4

import pytest
from amqp.exceptions import RecoverableConnectionError
from celery import Celery
from kombu import Queue

from resilience.broker.quorum import as_quorum
from resilience.errors import ConfigurationError
from resilience.ledger import Job, Ledger, State, Which
from resilience.settings import Settings
from resilience.tasks import Resilience
from resilience.tasks.kept import job_of
from resilience.testing.process import ProcessStartError
from resilience.testing.rabbitmq import RabbitProcess
from resilience.testing.stack import WorkerProcess, run_worker
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from resilience.worker.relay import Relay
from tests.integration.apps.rabbit import QUEUES, make_app
from tests.integration.rabbit_outages import away, black_hole, out_of_memory, restarting
from tests.timing import ends_before

DELIVERY_LIMIT = 20
APP_PATH = "tests.integration.apps.rabbit"
SECONDS = 120.0
EXPIRES_SECONDS = 0.2
FIRE_SECONDS = 1.0


class Post:
    """An app on a virtual host of its own."""

    def __init__(self, rabbitmq: RabbitProcess, store: ValkeyProcess, path: Path) -> None:
        if not rabbitmq.running:
            rabbitmq.start()
        self.rabbitmq, self.store, self.url = rabbitmq, store, rabbitmq.new_url()
        self.ledger_url = f"sqlite:///{path}"
        self.namespace = uuid4().hex  # the store is shared with others, whose ledger is another
        self.app = self.another_app()
        self.resilience = Resilience.of(self.app)
        self.resilience.ledger.upgrade()

    def another_app(self, **options: Any) -> Celery:  # noqa: ANN401 - as of make_app
        """Return the app as another process has it."""
        settings = Settings(
            ledger_url=self.ledger_url, store_url=self.store.url, namespace=self.namespace
        )
        return make_app(self.url, settings, **options)

    @contextmanager
    def working(self, *, queues: tuple[str, ...] = QUEUES) -> Iterator[WorkerProcess]:
        """Run a worker."""
        env = {
            "CELERY_BROKER_URL": self.url,
            "RESILIENCE_STORE_URL": self.store.url,
            "RESILIENCE_LEDGER_URL": self.ledger_url,
            "RESILIENCE_NAMESPACE": self.namespace,
        }
        with run_worker(APP_PATH, queues=queues, env=env) as worker:
            yield worker
            worker.kill()

    def fire(self, task: str, *args: object) -> None:
        """Fire a job of *task*."""
        self.app.tasks[task].apply_async(args)

    def kept(self) -> int:
        """Return how many jobs the ledger keeps, those included that a relay has just taken."""
        states = {State.OUTBOX, State.DISPATCHED}
        return sum(one.jobs for one in self.resilience.ledger.counts() if one.state in states)

    def runs(self, key: str) -> int:
        """Return how often the job with *key* ran."""
        found: Any = self.store.client().llen(key)
        return int(found)

    def wait_until_run(self, key: str) -> None:
        """Wait until the job with *key* has run."""
        wait_until(lambda: self.runs(key), SECONDS, f"{key} has run")

    def close(self) -> None:
        """Close all connections."""
        self.resilience.ledger.close()
        self.resilience.store.client.close()
        self.app.close()


@pytest.fixture
def post(rabbitmq: RabbitProcess, valkey: ValkeyProcess, tmp_path: Path) -> Iterator[Post]:
    """An app on a virtual host of its own, and a ledger."""
    post = Post(rabbitmq, valkey, tmp_path / "ledger.sqlite3")
    yield post
    post.close()


@pytest.fixture(scope="module")
def working(
    rabbitmq: RabbitProcess, valkey: ValkeyProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Post]:
    """One more with a worker, for all tests of the module."""
    post = Post(rabbitmq, valkey, tmp_path_factory.mktemp("working") / "ledger.sqlite3")
    with post.working():
        yield post
    post.close()


@pytest.mark.parametrize(
    "outage",
    [out_of_memory, black_hole, restarting, pytest.param(away, marks=pytest.mark.long)],
)
def test_fire_is_back_within_a_second_and_loses_nothing(
    working: Post,
    post: Post,
    outage: Any,  # noqa: ANN401
    tmp_path: Path,
) -> None:
    """A job that the broker does not take waits in the outbox, and runs when the broker is back.

    To keep a job in another ledger after a second ends later, at the same time on the same machine.
    A message that the broker had taken before is still there.
    """
    other = Ledger(f"sqlite:///{tmp_path / 'other.sqlite3'}")
    other.upgrade()

    def keep_after_a_second() -> None:
        Event().wait(FIRE_SECONDS)
        job = Job(id=uuid4().hex, task="send", dependency="mail", queue="mail", message="{}")
        other.add([job])

    keys = [uuid4().hex for _ in range(3)]
    working.fire("send", keys[0])
    working.wait_until_run(keys[0])
    wait_until(lambda: not working.kept(), SECONDS, "the ledger keeps no job")
    with post.app.connection_for_write() as connection, connection.Producer() as producer:
        producer.publish("kept", routing_key="mail", declare=[post.app.amqp.queues["mail"]])

    with outage(working.rabbitmq):
        for key in keys[1:]:
            with ends_before(keep_after_a_second):
                working.fire("send", key)
        kept = working.kept()

    other.close()
    assert kept == 2
    for key in keys:
        working.wait_until_run(key)
    with post.app.connection_for_read() as connection:
        queue = post.app.amqp.queues["mail"](connection.default_channel)
        wait_until(queue.get, SECONDS, "the queue and its message have survived")


def test_job_of_a_killed_worker_runs_elsewhere(post: Post) -> None:
    """The broker hands it to the next worker, as the dead one has not acknowledged it."""
    key = uuid4().hex
    post.fire("end_worker", key)
    for runs in (1, 2):
        # A worker may have died of the job before anybody has read that it is ready.
        with suppress(ProcessStartError), post.working() as worker:
            wait_until(lambda worker=worker: not worker.running, SECONDS, "it is dead")
        assert post.runs(key) == runs


def test_message_to_a_queue_that_was_deleted_is_kept(working: Post) -> None:
    """The broker would take it, tell nobody, and forget it."""
    keys = [uuid4().hex for _ in range(2)]
    working.fire("send", keys[0])
    working.wait_until_run(keys[0])
    working.rabbitmq.flush(working.url)

    working.fire("send", keys[1])

    working.wait_until_run(keys[1])


def test_queue_that_is_deleted_before_it_is_consumed_from_ends_no_worker(post: Post) -> None:
    """Celery goes on with a new connection, which declares it, only for errors of connections."""
    with post.app.connection_for_read() as connection:
        queue = Queue("gone", routing_key="gone", no_declare=True)
        with (
            pytest.raises(connection.recoverable_connection_errors, match="'gone'"),
            post.app.amqp.TaskConsumer(connection.default_channel, queues=[queue]),
        ):
            pass
        assert not connection.connected


def test_publish_over_a_connection_that_was_lost_says_so(post: Post) -> None:
    """It is an error that publishers know and try again, also where they have published before."""
    with post.app.connection_for_write() as connection, connection.Producer() as producer:
        queue = post.app.amqp.queues["mail"]
        producer.publish("first", routing_key="mail", declare=[queue])
        channel = producer.channel
        connection.collect()

        with pytest.raises(RecoverableConnectionError):
            channel.send(channel.prepare_message("second"), routing_key="mail")
        producer.publish("third", routing_key="mail", retry=True)
        wait_until(lambda: post.rabbitmq.depths(post.url)["mail"] == 2, SECONDS, "two are there")


def test_queues_of_dependencies_are_quorum_queues(post: Post) -> None:
    """They outlive a broker; the app's default queue, and those it defines, stay as they are."""
    queues = post.app.amqp.queues
    assert {name: queues[name].queue_arguments["x-queue-type"] for name in QUEUES} == {
        "mail": "quorum",
        "mail.retry": "quorum",
    }
    assert not queues["celery"].queue_arguments
    assert list(queues.consume_from) == ["celery"]

    own = post.another_app(own_queue=True)
    assert own.amqp.queues["mail"].queue_arguments is None
    own.close()


def test_queue_that_exists_otherwise_is_one_clear_error(post: Post) -> None:
    """Publishers and workers are told which queue it is, and what to do."""
    with post.app.connection_for_write() as connection:
        Queue("mail", routing_key="mail")(connection.default_channel).declare()

    with pytest.raises(ConfigurationError, match="rabbitmqctl delete_queue mail"):
        post.fire("send", "x")
    with pytest.raises(ProcessStartError, match="rabbitmqctl delete_queue mail"), post.working():
        pass


def test_queue_that_exists_otherwise_keeps_no_other_jobs_waiting(post: Post) -> None:
    """A relay leaves its jobs in the ledger, says so, and publishes those of other queues."""
    with post.app.connection_for_write() as connection:
        for name in ("mail.retry", "odd"):
            Queue(name, routing_key=name)(connection.default_channel).declare()
    post.app.amqp.queues.add(as_quorum(Queue("odd", routing_key="odd")))
    send, ledger = post.app.tasks["send"], post.resilience.ledger
    made = functools.partial(job_of, send, ["x"], {}, ledger={}, age_seconds=0.0)
    for name, queue in (("a", "mail.retry"), ("b", "odd"), ("c", "celery")):
        job = made({"task_id": name}, queue=queue)
        ledger.add([job if queue == "mail.retry" else replace(job, dependency="")])

    relay = Relay(post.resilience)
    relay.look()
    relay.look()

    with post.app.connection_for_read() as connection:
        found = post.app.amqp.queues["celery"](connection.default_channel)
        message = wait_until(found.get, SECONDS, "it is there")
        assert message.headers["id"] == "c"
    assert [ledger.letters.show(name).state for name in "abc"] == [  # type: ignore[union-attr]
        State.OUTBOX,
        State.DISPATCHED,
        State.DISPATCHED,
    ]


@pytest.mark.parametrize("exclusive", [False, True])
def test_control_queue_of_another_release_is_waited_for(post: Post, exclusive: bool) -> None:  # noqa: FBT001 - pytest's
    """It goes with the worker of that name, which is no reason to end while a fleet changes."""
    name = f"{uuid4().hex}.celery.pidbox"
    with post.app.connection_for_write() as holder, post.app.connection_for_write() as connection:
        Queue(name, durable=False, exclusive=exclusive, auto_delete=True).bind(
            holder.default_channel
        ).declare()
        with pytest.raises(RecoverableConnectionError, match="another worker of this name"):
            Queue(name, durable=True).bind(connection.default_channel).declare()


def test_remote_control_of_no_worker_is_answered_by_none(post: Post) -> None:
    """An order goes to whoever is there: that there is nobody is no error to be tried again."""
    exchange = post.app.control.mailbox.exchange
    with post.app.connection_for_write() as connection, connection.Producer() as producer:
        producer.publish({}, exchange=exchange.name, declare=[exchange])

    assert post.app.control.ping(timeout=0.1) == []
    post.app.control.revoke(uuid4().hex)


def test_results_come_back(working: Post) -> None:
    """A task that is waited for is answered, its result being stored elsewhere."""
    assert working.app.tasks["echo"].delay(7).get(SECONDS) == 7


def test_job_that_the_broker_gives_up_is_a_dead_letter(working: Post) -> None:
    """What came back too often is set aside by the broker, and taken over by the ledger."""
    key = uuid4().hex
    with working.app.connection_for_write() as connection:
        channel = connection.default_channel
        queue = working.app.amqp.queues["mail"]
        # Never seen by a worker: it is published to a queue of the same kind that none serves.
        lost = Queue("lost", routing_key="lost", queue_arguments={**queue.queue_arguments})(channel)
        lost.declare()
        working.app.tasks["send"].apply_async((key,), queue=lost)
        wait_until(lambda: working.rabbitmq.depths().get("lost"), SECONDS, "it is there")
        for _ in range(DELIVERY_LIMIT + 1):
            message = wait_until(lost.get, SECONDS, "it is delivered")
            channel.basic_reject(message.delivery_tag, requeue=True)

    letters = working.resilience.ledger.letters
    (found,) = wait_until(lambda: letters.find(Which(), limit=10), SECONDS, "it is a letter")
    assert (found.task, found.reason, found.message["args"]) == ("send", "poison", [key])
    assert working.runs(key) == 0


def test_job_that_no_worker_has_looked_for_yet_is_set_aside_at_once(post: Post) -> None:
    """The publisher sees to it: RabbitMQ would try again only three minutes later."""
    post.app.tasks["echo"].apply_async((1,), expires=EXPIRES_SECONDS)

    wait_until(lambda: post.rabbitmq.depths(post.url).get("mail.dead"), SECONDS, "it is set aside")


def test_job_handed_back_ever_so_often_is_not_given_up(post: Post) -> None:
    """A hand-back on purpose is no sign of a killed worker."""
    key = uuid4().hex
    post.fire("send", key)
    with post.app.connection_for_read() as connection:
        queue = post.app.amqp.queues["mail"](connection.default_channel)
        for _ in range(DELIVERY_LIMIT * 2):
            message = wait_until(queue.get, SECONDS, "it is delivered")
            assert message.headers.get("x-delivery-count", 0) <= 1
            message.reject(requeue=True)
            while not message.channel.settled:
                connection.drain_events(timeout=SECONDS)

    with post.working():
        post.wait_until_run(key)
    assert post.runs(key) == 1
