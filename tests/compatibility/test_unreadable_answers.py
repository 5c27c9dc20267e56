"""Which errors of a task ask its fallback chain, and which are bugs that it must not hide."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from resilience.levels import Level
from resilience.outcome import Outcome
from resilience.settings import Settings
from resilience.testing.plugin import running_valkey
from resilience.testing.stack import run_worker
from resilience.testing.waiting import wait_until
from tests.brokers import running_broker
from tests.compatibility.apps.answers import BUGGY, EVENTS, QUEUES, READERS, make_app
from tests.integration.apps.stage import new_key

SECONDS = 120.0
ANSWER = {"error": "maintenance"}


class Stage:
    """A worker's app as a client sees it, and what the worker announced."""

    def __init__(self, app: Celery[Any]) -> None:
        self.app = app
        self.client: Any = app.backend.client  # type: ignore[attr-defined] # that of Redis

    def value(self, task: str, *args: object) -> Any:  # noqa: ANN401 - whatever it returns
        """Return what *task* returns, or raise what it raises."""
        return self.app.send_task(task, args, queue=self.queue_of(task)).get(timeout=SECONDS)

    def queue_of(self, task: str) -> str:
        """Return where *task* goes."""
        return getattr(self.app.tasks[task], "dependency", None) or "celery"

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the events called *name* so far."""
        said = [json.loads(text) for text in self.client.lrange(EVENTS, 0, -1)]
        return [event for event in said if event["name"] == name]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A worker of the app in apps/answers.py, with a plain task of Celery's in it."""
    ledger = f"sqlite:///{tmp_path_factory.mktemp('ledger') / 'ledger.sqlite3'}"
    with running_valkey(tmp_path_factory) as server, running_broker(tmp_path_factory) as broker:
        env = {
            "ANSWERS_BROKER": broker.url,
            "ANSWERS_BACKEND": server.url,
            "RESILIENCE_STORE_URL": server.url,
            "RESILIENCE_LEDGER_URL": ledger,
        }
        settings = Settings(store_url=server.url, ledger_url=ledger)
        app = make_app(broker=broker.url, backend=server.url, settings=settings)
        with run_worker("tests.compatibility.apps.answers", queues=QUEUES, env=env) as worker:
            try:
                yield Stage(app)
            finally:
                worker.kill()
                app.close()


@pytest.mark.parametrize("how", READERS)
def test_answer_that_cannot_be_read_is_an_outage(stage: Stage, how: str) -> None:
    """The chain answers and says why; an event at ERROR shows the place, as it may be a bug.

    A plain task raises the same error, so nothing but the chain stands between it and the caller.
    """
    before = len(stage.events("AnswerUnreadable"))
    with pytest.raises(Exception) as plain:  # noqa: PT011 - compared below
        stage.value("plain_read", how, ANSWER)

    outcome = stage.value("read", how, ANSWER)

    assert isinstance(outcome, Outcome)
    assert (outcome.value, outcome.level) == ("static", Level.STATIC)
    assert outcome.reason in {type(plain.value).__name__, "KeyError", how}
    event = stage.events("AnswerUnreadable")[before]
    assert (event["call"], event["dependency"]) == ("read", "upstream")
    assert event["severity"] == logging.ERROR
    assert event["reason"] == outcome.reason
    assert ".py:" in event["place"]


@pytest.mark.parametrize("how", BUGGY)
def test_bug_is_raised_as_by_a_plain_task(stage: Stage, how: str) -> None:
    """What goes wrong whatever the service answers is not hidden."""
    with pytest.raises(Exception) as plain:  # noqa: PT011 - compared below
        stage.value("plain_read", how, ANSWER)
    with pytest.raises(type(plain.value)) as raised:
        stage.value("read", how, ANSWER)

    assert str(raised.value) == str(plain.value)


@pytest.mark.parametrize("args", [(), ("LookupError",), ("LookupError", ANSWER, "surplus")])
def test_wrong_arguments_are_raised_as_by_a_plain_task(stage: Stage, args: Any) -> None:  # noqa: ANN401
    """A call that never reached the body cannot have read an answer, so it is a bug."""
    before = len(stage.events("AnswerUnreadable"))
    with pytest.raises(TypeError) as plain:
        stage.value("plain_read", *args)
    with pytest.raises(TypeError) as raised:
        stage.value("read", *args)

    assert str(raised.value) == str(plain.value)
    assert len(stage.events("AnswerUnreadable")) == before


@pytest.mark.parametrize("task", ["read_strictly", "read_strict_dependency"])
def test_list_of_bugs_can_be_made_longer(stage: Stage, task: str) -> None:
    """For one task or for all of a dependency; the others stay as they were."""
    with pytest.raises(KeyError, match="items"):
        stage.value(task, "LookupError", ANSWER)

    assert stage.value(task, "AttributeError", ANSWER).reason == "AttributeError"


def test_list_of_bugs_can_be_made_shorter(stage: Stage) -> None:
    """A task that must answer whatever happens says so."""
    assert stage.value("read_leniently", "NameError", ANSWER).reason == "NameError"


def test_kept_job_that_cannot_read_an_answer_runs_again(stage: Stage) -> None:
    """It is no dead letter at the first odd answer, and the odd answer is announced at ERROR."""
    key = new_key()
    before = len(stage.events("AnswerUnreadable"))

    result = stage.app.tasks["keep"].apply_async((key, "LookupError"))

    wait_until(lambda: stage.client.llen(f"{key}:done"), SECONDS, "the job is done")
    assert stage.client.lrange(f"{key}:done", 0, -1) == [result.id.encode()]
    assert stage.events("AnswerUnreadable")[before]["reason"] == "KeyError"


def test_kept_job_with_a_bug_is_a_dead_letter_at_once(stage: Stage) -> None:
    """To run it again does not mend the code."""
    key = new_key()

    result = stage.app.tasks["keep"].apply_async((key, "NameError"))

    def buried() -> list[dict[str, Any]]:
        return [one for one in stage.events("JobBuried") if one["id"] == result.id]

    assert wait_until(buried, SECONDS, "the job is buried")[0]["reason"] == "bug"
