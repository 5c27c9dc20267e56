"""Events of a real worker reach those who listen to Celery events, and never hold up a job."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import pytest
from celery.events.state import State

from resilience.events import StoreLost
from resilience.monitor.celery_events import CeleryEvents
from resilience.testing.plugin import running_valkey
from resilience.testing.process import suspend
from resilience.testing.stack import WorkerProcess, run_worker
from resilience.testing.waiting import wait_until
from tests.brokers import running_broker
from tests.every_event import EVERY
from tests.fresh import imported_anew

APP = "tests.integration.apps.telemetry"
SECONDS = 20.0
WITHOUT_TEXT = ("StoreFound", "JobsPublished")
"""Events that hold no text to be recognised by: nothing else makes one here."""


class Stage:
    """The app in this process, a worker of it, and what is received of its events."""

    def __init__(self, module: ModuleType, worker: WorkerProcess) -> None:
        """Listen as Flower does: for all events, into a state of Celery's."""
        self.module, self.worker = module, worker
        self.received: list[dict[str, Any]] = []
        self.state = State()
        self._connection = module.app.connection_for_read()
        self._receiver = module.app.events.Receiver(
            self._connection, handlers={"*": self._on_event}
        )
        self._thread = threading.Thread(target=self._receiver.capture, args=[None], daemon=True)
        self._thread.start()
        wait_until(lambda: self.received, SECONDS, "the worker is heard")

    def _on_event(self, event: dict[str, Any]) -> None:
        self.state.event(dict(event))
        self.received.append(event)

    def close(self) -> None:
        """Listen no more."""
        self._receiver.should_stop = True
        self._thread.join()
        self._connection.release()

    def run(self, task: str, *args: object) -> Any:  # noqa: ANN401 - a result
        """Run *task* in the worker, and return its result."""
        result = self.module.app.tasks[task].apply_async(args)
        result.get(timeout=SECONDS)
        return result

    def listen_to_tasks(self, *, on: bool) -> None:
        """Turn task events on or off, as Flower does, and wait until the child knows."""
        control = self.module.app.control
        (control.enable_events if on else control.disable_events)(reply=True)
        wait_until(lambda: self.run("wanted").result is on, SECONDS, "the child knows")

    def find(self, kind: str, **fields: object) -> list[dict[str, Any]]:
        """Return the received events of this type with these fields."""
        found = [one for one in list(self.received) if one["type"] == kind]
        return [one for one in found if fields.items() <= one.items()]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Servers, and a prefork worker whose task events somebody turns on by remote control."""
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        broker = stack.enter_context(running_broker(tmp_path_factory))
        store = stack.enter_context(running_valkey(tmp_path_factory))
        env = _environment(broker.url, store.url)
        for name, value in env.items():
            patch.setenv(name, value)
        module = imported_anew(patch, APP)
        worker = stack.enter_context(run_worker(APP, queues=module.QUEUES, concurrency=1, env=env))
        stack.callback(worker.kill)
        stage = Stage(module, worker)
        stack.callback(stage.close)
        yield stage


def _environment(broker: str, store: str) -> dict[str, str]:
    return {
        "CELERY_BROKER_URL": broker,
        "CELERY_RESULT_BACKEND": store,
        "RESILIENCE_STORE_URL": store,
        "RESILIENCE_STORE_TIMEOUT_SECONDS": "10",
    }


def test_degraded_answer_is_told_once_somebody_listens_and_after_its_job(stage: Stage) -> None:
    """Events that nobody listens to are never made; Flower's state of the job stays SUCCESS."""
    stage.listen_to_tasks(on=False)
    unheard = stage.run("degrade")
    stage.listen_to_tasks(on=True)
    heard = stage.run("degrade")

    wait_until(lambda: stage.find("task-degraded", uuid=heard.id), SECONDS, "it is sent")
    [sent] = stage.find("task-degraded", uuid=heard.id)
    assert (sent["uuid"], sent["name"], sent["level"]) == (heard.id, "degrade", 3)
    assert (sent["reason"], sent["source"]) == ("ConnectionError", "static")
    assert (sent["dependency"], sent["error"]) == ("search", "search is down")
    assert sent["hostname"] == stage.worker.hostname
    assert not stage.find("task-degraded", uuid=unheard.id)

    of_job = [one["type"] for one in stage.received if one.get("uuid") == heard.id]
    assert of_job.index("task-succeeded") < of_job.index("task-degraded")
    known = stage.state.tasks[heard.id]
    assert (known.state, known.level, known.reason) == ("SUCCESS", 3, "ConnectionError")


def test_degraded_answer_is_kept_back_until_its_job_has_ended(stage: Stage, tmp_path: Path) -> None:
    """What was announced after it in the same job is received long before."""
    stage.listen_to_tasks(on=True)
    job = stage.module.app.tasks["linger"].apply_async([str(tmp_path)])
    for name in ("first", "second"):  # Celery sends events of tasks a moment after the others
        error = f"{tmp_path} {name}"
        wait_until(lambda said=error: stage.find("store-lost", error=said), SECONDS, "received")
        assert not stage.find("task-degraded", uuid=job.id)
        (tmp_path / name).touch()

    wait_until(lambda: stage.find("task-degraded", uuid=job.id), SECONDS, "it is sent")
    assert stage.state.tasks[job.id].state == "SUCCESS"


def test_default_of_a_budget_is_told_of_the_job_that_it_is_in(stage: Stage) -> None:
    """The job's own budget hands on who hears of it."""
    stage.listen_to_tasks(on=True)
    job = stage.module.app.tasks["halve"].apply_async(budget=60.0)
    assert job.get(timeout=SECONDS).degraded

    wait_until(lambda: stage.find("task-degraded", uuid=job.id), SECONDS, "it is sent")
    [sent] = stage.find("task-degraded", uuid=job.id)
    assert (sent["source"], sent["reason"], sent["level"]) == ("default", "ConnectionError", 2)


SINKS: list[tuple[str, Callable[[Stage, str, str], int]]] = [
    ("log", lambda stage, kind, text: stage.module.in_log(stage.worker.log, kind, text)),
    (
        "Celery event",
        lambda stage, kind, text: stage.module.in_celery_events(list(stage.received), kind, text),
    ),
    ("page", lambda stage, kind, text: stage.module.in_page(list(stage.received), kind, text)),
]
"""Where each event must arrive exactly once: a name, and how often an event of a class did."""
ROUTINE = {"page": ["FallbackDrilled"]}
"""What degrades nothing and is shown in a table of its own, which asks the store."""


@pytest.mark.parametrize("name", [name for name, _ in SINKS])
def test_no_silent_degradation(stage: Stage, name: str, walked: str) -> None:
    """An event of each class, announced in a child of the worker, arrives exactly once."""
    count = dict(SINKS)[name]
    texts = {one.__name__: walked for one in EVERY} | dict.fromkeys(WITHOUT_TEXT, "")
    texts = {kind: text for kind, text in texts.items() if kind not in ROUTINE.get(name, ())}

    def counted() -> dict[str, int]:
        return {kind: count(stage, kind, text) for kind, text in texts.items()}

    wait_until(lambda: all(counted().values()), SECONDS, f"all are in the {name}")
    assert counted() == dict.fromkeys(texts, 1)


@pytest.fixture(scope="module")
def walked(stage: Stage) -> str:
    """Announce an event of each class in the worker; return the text in all of them."""
    stage.listen_to_tasks(on=True)
    text = uuid4().hex
    stage.run("walk", text)
    return text


def test_process_that_is_no_worker_sends_if_told_to(stage: Stage) -> None:
    """A web process, say: its fan-outs and orders are seen as well."""
    listener = CeleryEvents(stage.module.app, outside_workers=True)
    error = uuid4().hex
    listener(StoreLost(error=error))
    wait_until(lambda: stage.find("store-lost", error=error), SECONDS, "it is received")


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_job_goes_on_while_its_worker_cannot_send(
    stage: Stage, pool: str, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    """The broker hangs: a job with thousands of events ends all the same, and they cost no wait."""
    with running_valkey(tmp_path_factory) as broker:
        store = stage.module.app.conf.result_backend
        env = _environment(broker.url, store)
        extra = ["-E"]
        with run_worker(
            APP, queues=["celery"], concurrency=1, pool=pool, env=env, extra=extra
        ) as worker:
            app = stage.module.app
            with app.connection_for_write(broker.url) as connection:
                app.tasks["storm"].apply_async(
                    [str(tmp_path)], connection=connection, queue="celery", ignore_result=True
                )
            wait_until((tmp_path / "begun").exists, SECONDS, "the job has begun")
            suspend(broker.pid)
            try:
                (tmp_path / "go").touch()
                wait_until((tmp_path / "ended").exists, SECONDS, "the job has ended")
            finally:
                broker.send_signal(signal.SIGCONT)
                worker.kill()
