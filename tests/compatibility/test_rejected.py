"""What RabbitMQ sets aside, and why: only what nobody ended is a dead letter."""

import importlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any
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

APP_PATH = "tests.compatibility.apps.rejecting"
SECONDS = 120.0
EXPIRES_SECONDS = 0.2

pytestmark = pytest.mark.filterwarnings("default:Call to deprecated setex:DeprecationWarning")


class Stage:
    """The apps of apps/rejecting.py and what they meet at."""

    def __init__(self, module: ModuleType, rabbitmq: RabbitProcess, url: str) -> None:
        self.app, self.plain = module.app, module.plain
        self.queues, self.plain_queue = module.QUEUES, module.PLAIN_QUEUE
        self.resilience = module.app.resilience
        self._rabbitmq, self._url = rabbitmq, url

    def look(self, queue: str, *, jobs: int = 1) -> None:
        """Wait until so many *jobs* of *queue* are set aside, and look after them once."""
        aside = dead_name(queue)
        wait_until(lambda: self._depth(aside) >= jobs, SECONDS, f"{jobs} are in {aside}")
        Undertaker(None).look(self.resilience)  # as that of a worker of these queues
        wait_until(lambda: not self._depth(aside), SECONDS, f"{aside} is empty")

    def letters(self, task: str) -> list[Letter]:
        """Return all dead letters of *task*."""
        found: list[Letter] = self.resilience.ledger.letters.find(Which(task=task), limit=100)
        return found

    def _depth(self, queue: str) -> int:
        return self._rabbitmq.depths(self._url).get(queue, 0)


@pytest.fixture(scope="module")
def stage(
    rabbitmq: RabbitProcess, valkey: ValkeyProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """The stage of this module, and its ledger."""
    if not rabbitmq.running:
        rabbitmq.start()
    url, path = rabbitmq.new_url(), tmp_path_factory.mktemp("ledger") / "ledger.sqlite3"
    env = {"BROKER_URL": url, "DESK_URL": valkey.url, "LEDGER_URL": f"sqlite:///{path}"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        module = importlib.import_module(APP_PATH)
    module.app.resilience.ledger.upgrade()
    module.app.amqp.queues.select(module.QUEUES)
    stage = Stage(module, rabbitmq, url)
    stage.env = env  # type: ignore[attr-defined]
    Undertaker(None).look(stage.resilience)  # declares where things are set aside
    yield stage
    module.app.resilience.store.client.close()
    module.app.resilience.ledger.close()
    module.app.close()
    module.plain.close()


@contextmanager
def working(stage: Stage) -> Iterator[None]:
    """Run a worker of each app."""
    env: Any = stage.env  # type: ignore[attr-defined]
    with ExitStack() as stack:
        for path, queues in ((f"{APP_PATH}:app", stage.queues), (f"{APP_PATH}:plain", ["plain"])):
            worker = run_worker(path, queues=queues, concurrency=1, env=env)
            stack.callback(stack.enter_context(worker).kill)
        yield


@pytest.fixture(scope="module")
def worked(stage: Stage) -> Iterator[Stage]:
    """The stage, with workers."""
    with working(stage):
        yield stage


def test_job_that_expired_at_the_broker_was_revoked(stage: Stage) -> None:
    """As if a worker had dropped it: revoked; only what was fired is a dead letter."""
    key = uuid4().hex
    note = stage.app.tasks["note"]

    result = note.apply_async((key,), expires=EXPIRES_SECONDS)
    sig = note.s(key).set(expires=EXPIRES_SECONDS)
    fan = FanOut(part=part(sig, required=True)).apply_async(budget=SECONDS)
    stage.look("users", jobs=2)  # each expires by itself, one perhaps after a look at the other
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
    """As with plain Celery; and there is no dead letter of a job that ran once, to its end."""
    ours, theirs = (one.tasks[task].delay() for one in (worked.app, worked.plain))
    ended = [type(one.get(timeout=SECONDS, propagate=False)) for one in (ours, theirs)]

    worked.look("users")

    assert ended == [error, error]
    ours = worked.app.AsyncResult(ours.id)
    assert (ours.state, type(ours.result)) == ("FAILURE", error)
    assert worked.letters(task) == []


def test_part_that_rejected_its_message_has_ended_once(worked: Stage) -> None:
    """The fan-out hears of it from the job; nobody contradicts that later."""
    fan = FanOut(part=part(worked.app.tasks["reject"].s())).apply_async(budget=SECONDS)

    response = fan.get()
    worked.look("users")

    assert response.reasons == {"part": "Reject"}
    assert worked.letters("reject") == []


def test_kept_job_that_rejected_its_message_is_no_dead_letter(worked: Stage) -> None:
    """Whoever rejects it without handing it back has said that it is done with."""
    worked.app.tasks["reject_mail"].fire()

    worked.look("mail")

    assert worked.letters("reject_mail") == []
