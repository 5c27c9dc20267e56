"""Ends that Celery's main process gives a job: the ledger and the fan-out learn of each."""

from collections.abc import Iterator
from contextlib import ExitStack
from time import perf_counter
from types import ModuleType
from typing import Any
from uuid import uuid4

import pytest

from resilience import FanOut, part
from resilience.ledger import State, Which
from resilience.tasks import FireAndForgetTask, ResilientTask
from resilience.testing.plugin import running_valkey
from resilience.testing.stack import run_worker
from resilience.testing.waiting import wait_until
from tests.brokers import running_broker
from tests.fresh import imported_anew

APP_PATH = "tests.compatibility.apps.ends"
SECONDS = 120.0
BUDGET_SECONDS = 15.0
PROMPT_SECONDS = 8.0


class Stage:
    """The app of apps/ends.py, a worker of it with one process, and where they meet."""

    def __init__(self, module: ModuleType, desk: Any) -> None:  # noqa: ANN401 - a client
        self.app, self.desk = module.app, desk
        self.ledger = module.app.resilience.ledger

    def runs(self, key: str) -> int:
        """Return how often the job with *key* began."""
        return int(self.desk.llen(f"{key}:ran"))

    def await_run(self, key: str, times: int = 1) -> None:
        """Wait until the job with *key* has begun so often."""
        wait_until(lambda: self.runs(key) >= times, SECONDS, f"{key} ran {times} times")

    def let_go(self, key: str) -> None:
        """Let the job with *key* go on."""
        self.desk.rpush(f"{key}:go", "go")

    def states(self) -> dict[State, int]:
        """Return how many jobs the ledger has in each state, but for dead letters."""
        counts = self.ledger.counts()
        return {one.state: one.jobs for one in counts if one.state is not State.DEAD}

    def await_state(self, state: State) -> None:
        """Wait until the only job of the ledger is in *state*."""
        wait_until(lambda: self.states() == {state: 1}, SECONDS, f"it is {state}")

    def await_empty(self) -> None:
        """Wait until the ledger knows no job."""
        wait_until(lambda: not self.states(), SECONDS, "the row has ended")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The stage of this module."""
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        broker = stack.enter_context(running_broker(tmp_path_factory))
        desk = stack.enter_context(running_valkey(tmp_path_factory))
        path = tmp_path_factory.mktemp("ledger") / "ledger.sqlite3"
        env = {
            "BROKER_URL": broker.url,
            "DESK_URL": desk.url,
            "LEDGER_URL": f"sqlite:///{path}",
        }
        for name, value in env.items():
            patch.setenv(name, value)
        module = imported_anew(patch, APP_PATH)
        module.app.resilience.ledger.upgrade()
        worker = run_worker(APP_PATH, queues=module.QUEUES, concurrency=1, env=env)
        running = stack.enter_context(worker)
        yield Stage(module, desk.client())
        running.kill()
        module.app.resilience.store.client.close()
        module.app.resilience.ledger.close()
        module.app.close()


def nothing(*_: object) -> None:
    """Do nothing, in no worker."""


@pytest.fixture
def key() -> str:
    """A name that nobody used yet."""
    return uuid4().hex


def test_revoked_job_that_waits_for_its_retry_never_runs(stage: Stage, key: str) -> None:
    """Its row ends at once: no restart of a worker, which forgets what was revoked, revives it."""
    job = stage.app.tasks["failing_mail"].fire(key).id
    stage.await_state(State.SCHEDULED)

    stage.app.control.revoke(job, reply=True, timeout=SECONDS, limit=1)

    assert stage.states() == {}
    assert stage.runs(key) == 1


def test_revoked_job_that_a_worker_holds_never_runs(stage: Stage, key: str) -> None:
    """A busy worker has it from the ledger; it is dropped there, and its row ends."""
    busy, mail = uuid4().hex, stage.app.tasks["held_mail"]
    mail.fire(busy)
    stage.await_run(busy)
    job = mail.apply_async((key,), countdown=0.01).id
    stage.await_state(State.DISPATCHED)

    stage.app.control.revoke(job, reply=True, timeout=SECONDS, limit=1)
    stage.let_go(busy)

    stage.await_empty()
    mail.fire(after := uuid4().hex)
    stage.await_run(after)
    stage.let_go(after)
    assert stage.runs(key) == 0


def test_terminated_job_does_not_run_again(stage: Stage, key: str) -> None:
    """Its row ends with it."""
    job = stage.app.tasks["held_mail"].apply_async((key,), countdown=0.01).id
    stage.await_run(key)

    stage.app.control.revoke(job, terminate=True, signal="SIGKILL")

    stage.await_empty()
    stage.app.tasks["held_mail"].fire(after := uuid4().hex)
    stage.await_run(after)
    stage.let_go(after)
    assert stage.runs(key) == 1
    assert stage.states() == {}


def test_job_revoked_by_its_stamp_ends_when_it_is_due(stage: Stage, key: str) -> None:
    """A worker drops it, and its row ends."""
    options = {"stamped_headers": ["tenant"], "tenant": key}
    stage.app.tasks["failing_mail"].apply_async((key,), **options)
    stage.await_state(State.SCHEDULED)

    stage.app.control.revoke_by_stamped_headers(
        {"tenant": [key]}, reply=True, timeout=SECONDS, limit=1
    )

    stage.await_empty()
    assert stage.runs(key) == 1


@pytest.mark.parametrize("running", [True, False])
def test_fan_out_hears_of_a_revoked_part(stage: Stage, key: str, *, running: bool) -> None:
    """At once when it is terminated, or when its worker, which was busy, comes to drop it."""
    held = stage.app.tasks["held"]
    if not running:
        held.delay(busy := uuid4().hex)
        stage.await_run(busy)
    sig = held.s(key).set(task_id=key)
    fan = FanOut(part=part(sig, required=True)).apply_async(budget=BUDGET_SECONDS)
    if running:
        stage.await_run(key)
    began = perf_counter()
    stage.app.control.revoke(key, terminate=running, signal="SIGKILL")
    if not running:
        stage.let_go(busy)

    response = fan.get()

    assert response.reasons == {"part": "TaskRevokedError"}
    assert perf_counter() - began < PROMPT_SECONDS


def test_job_of_a_task_that_the_worker_does_not_know_is_a_dead_letter(stage: Stage) -> None:
    """Celery drops it; here an operator replays it when the worker has been updated."""
    ghost: Any = stage.app.task(
        base=FireAndForgetTask, dependency="mail", name="ghost", shared=False
    )(nothing)

    job = ghost.fire(1).id

    letters = stage.ledger.letters
    found = wait_until(lambda: letters.find(Which(id=job), limit=1), SECONDS, "it is dead")
    assert (found[0].reason, found[0].message["args"]) == (
        "unknown_task",
        ["***"],  # which of them are secret, a worker without the code cannot know
    )


def test_fan_out_hears_of_a_part_that_the_worker_does_not_know(stage: Stage) -> None:
    """At once, and why."""
    ghost: Any = stage.app.task(
        base=ResilientTask, dependency="users", name="ghost_part", shared=False
    )(nothing)
    began = perf_counter()

    response = FanOut(part=part(ghost.s(), required=True)).apply_async(budget=BUDGET_SECONDS).get()

    assert response.reasons == {"part": "NotRegistered"}
    assert perf_counter() - began < PROMPT_SECONDS
