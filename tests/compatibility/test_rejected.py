"""Messages that RabbitMQ dead-letters: only a job that nobody has ended becomes a dead letter."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import ModuleType
from uuid import uuid4

import pytest
from celery.exceptions import Reject, TaskRevokedError

from resilience import FanOut, part
from resilience.broker.quorum import dead_name
from resilience.ledger import Letter, Which
from resilience.testing.rabbitmq import RabbitProcess
from resilience.testing.stack import run_worker
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from resilience.worker.undertaker import Undertaker
from tests.fresh import imported_anew

APP_PATH = "tests.compatibility.apps.rejecting"
SECONDS = 120.0
EXPIRES_SECONDS = 0.2

pytestmark = pytest.mark.filterwarnings("default:Call to deprecated setex:DeprecationWarning")


class Stage:
    """The two apps of apps/rejecting.py, their broker and their ledger.

    Attributes:
        app: The adopted app, whose queues are `queues`.
        plain: The plain app, whose queue is `plain_queue`.
        env: What points their workers at the servers.
    """

    def __init__(self, module: ModuleType, rabbitmq: RabbitProcess, env: Mapping[str, str]) -> None:
        self.app, self.plain = module.app, module.plain
        self.queues, self.plain_queue = module.QUEUES, module.PLAIN_QUEUE
        self.resilience = module.app.resilience
        self.env, self._rabbitmq = env, rabbitmq

    def look(self, queue: str, *, jobs: int = 1) -> None:
        """Wait until RabbitMQ has dead-lettered *jobs* messages of *queue*, and collect them."""
        aside = dead_name(queue)
        wait_until(lambda: self._depth(aside) >= jobs, SECONDS, f"{jobs} are in {aside}")
        Undertaker(None).look(self.resilience)  # as a worker of these queues does
        wait_until(lambda: not self._depth(aside), SECONDS, f"{aside} is empty")

    def letters(self, task: str) -> list[Letter]:
        """Return all dead letters of *task*."""
        found: list[Letter] = self.resilience.ledger.letters.find(Which(task=task), limit=100)
        return found

    def _depth(self, queue: str) -> int:
        return self._rabbitmq.depths(self.env["BROKER_URL"]).get(queue, 0)


@pytest.fixture(scope="module")
def stage(
    rabbitmq: RabbitProcess, valkey: ValkeyProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """The stage of this module, without workers."""
    if not rabbitmq.running:
        rabbitmq.start()
    url, path = rabbitmq.new_url(), tmp_path_factory.mktemp("ledger") / "ledger.sqlite3"
    env = {"BROKER_URL": url, "DESK_URL": valkey.url, "LEDGER_URL": f"sqlite:///{path}"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        module = imported_anew(patch, APP_PATH)
    module.app.resilience.ledger.upgrade()
    module.app.amqp.queues.select(module.QUEUES)
    stage = Stage(module, rabbitmq, env)
    Undertaker(None).look(stage.resilience)  # declares the queues of dead-lettered messages
    yield stage
    module.app.resilience.store.client.close()
    module.app.resilience.ledger.close()
    module.app.close()
    module.plain.close()


@contextmanager
def working(stage: Stage) -> Iterator[None]:
    """Run a worker of each app."""
    apps = {"app": stage.queues, "plain": [stage.plain_queue]}
    with ExitStack() as stack:
        for name, queues in apps.items():
            worker = run_worker(f"{APP_PATH}:{name}", queues=queues, concurrency=1, env=stage.env)
            stack.callback(stack.enter_context(worker).kill)
        yield


@pytest.fixture(scope="module")
def worked(stage: Stage) -> Iterator[Stage]:
    """The stage, with workers."""
    with working(stage):
        yield stage


def test_job_that_expired_at_the_broker_was_revoked(stage: Stage) -> None:
    """As if a worker had dropped it. Only a fire-and-forget job becomes a dead letter."""
    key = uuid4().hex
    note = stage.app.tasks["note"]

    result = note.apply_async((key,), expires=EXPIRES_SECONDS)
    sig = note.s(key).set(expires=EXPIRES_SECONDS)
    fan = FanOut(part=part(sig, required=True)).apply_async(budget=SECONDS)
    stage.look("users", jobs=2)  # both at once: one may expire after the other was collected
    stage.app.tasks["note_mail"].apply_async((key,), expires=EXPIRES_SECONDS)
    stage.look("mail")

    assert isinstance(result.get(timeout=SECONDS, propagate=False), TaskRevokedError)
    assert result.state == "REVOKED"
    assert fan.get().reasons == {"part": "TaskRevokedError"}
    (letter,) = stage.letters("note_mail")
    assert letter.reason == "too_old"
    assert stage.letters("note") == []
    assert "expired" in letter.errors[0]["text"]


@pytest.mark.parametrize(("task", "error"), [("reject", Reject), ("fail", ConnectionError)])
def test_result_of_a_job_that_rejected_its_message_stays(
    worked: Stage, task: str, error: type[Exception]
) -> None:
    """As with plain Celery; a job that ran to its end leaves no dead letter."""
    ours, theirs = (one.tasks[task].delay() for one in (worked.app, worked.plain))
    ended = [type(one.get(timeout=SECONDS, propagate=False)) for one in (ours, theirs)]

    worked.look("users")

    assert ended == [error, error]
    ours = worked.app.AsyncResult(ours.id)
    assert (ours.state, type(ours.result)) == ("FAILURE", error)
    assert worked.letters(task) == []


def test_part_that_rejected_its_message_has_ended_once(worked: Stage) -> None:
    """The job reports it to the fan-out; collecting the message later changes nothing."""
    fan = FanOut(part=part(worked.app.tasks["reject"].s())).apply_async(budget=SECONDS)

    response = fan.get()
    worked.look("users")

    assert response.reasons == {"part": "Reject"}
    assert worked.letters("reject") == []


def test_kept_job_that_rejected_its_message_is_no_dead_letter(worked: Stage) -> None:
    """A task that rejects without requeue wants its job dropped."""
    worked.app.tasks["reject_mail"].fire()

    worked.look("mail")

    assert worked.letters("reject_mail") == []
