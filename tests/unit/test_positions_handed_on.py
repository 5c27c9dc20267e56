"""An app without databases passes positions on to the jobs that it publishes; nothing else."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, signals

from resilience import Dependency, Resilience, ResilientTask, Settings
from resilience.consistency import Position, Token, current_session, in_session
from resilience.consistency.session import ConsistentSession
from resilience.tasks.envelope import POSITION_HEADER

TOKEN = Token(session="7", positions={"db": Position.at("1/1", 5, known=3.0)})
HEADERS = {POSITION_HEADER: TOKEN.to_json()}

ADOPTED = """
import sys
from celery import Celery, signals
from resilience import Dependency, Resilience
Resilience(Celery("plain", broker="memory://"), dependencies=[Dependency("db")])
assert not signals.task_prerun.receivers, signals.task_prerun.receivers
assert not signals.task_postrun.receivers, signals.task_postrun.receivers
loaded = [name for name in sys.modules if name.startswith("resilience.databases")]
assert not loaded, loaded
"""


@pytest.fixture
def app() -> Celery[Any]:
    """An adopted app without databases, with a plain and a resilient task."""
    made: Celery[Any] = Celery("handing", broker="memory://", set_as_current=False)
    Resilience(made, dependencies=[Dependency("db")], settings=Settings(), listeners=())
    make: Any = made.task

    def publish(name: str) -> dict[str, Any] | None:
        made.tasks[name].apply_async(("plain",))
        session = current_session()
        return None if session is None else session.token().to_json()

    make(publish, name="plain", shared=False)
    make(publish, name="resilient", base=ResilientTask, dependency="db", shared=False)
    return made


@pytest.fixture
def published() -> Iterator[list[dict[str, Any]]]:
    """The headers of all messages published from now on: a list that grows."""
    seen: list[dict[str, Any]] = []

    def note(headers: dict[str, Any], **_: object) -> None:
        seen.append(dict(headers))

    signals.before_task_publish.connect(note)
    yield seen
    signals.before_task_publish.disconnect(note)


def test_app_without_databases_connects_and_imports_nothing() -> None:
    """No receiver is connected to the signals of jobs, and no module of SQL sessions is loaded."""
    done = subprocess.run(  # noqa: S603 - the text above
        [sys.executable, "-c", ADOPTED], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize("name", ["plain", "resilient"])
def test_job_hands_on_what_it_was_given(
    app: Celery[Any], published: list[dict[str, Any]], name: str
) -> None:
    """The app that runs the jobs it publishes may have databases."""
    app.tasks[name].apply((name,), headers=HEADERS).get()

    assert published[0][POSITION_HEADER] == TOKEN.to_json()


def test_resilient_job_with_a_position_runs_in_a_session(app: Celery[Any]) -> None:
    """A `ConsistentReader` finds that session; it ends with the job."""
    assert app.tasks["resilient"].apply(("plain",), headers=HEADERS).get() == TOKEN.to_json()
    assert current_session() is None
    assert app.tasks["resilient"].apply(("plain",)).get() is None


def test_publisher_in_a_session_adds_to_what_the_message_says(
    app: Celery[Any], published: list[dict[str, Any]]
) -> None:
    """The message then carries both positions."""
    here = Token(positions={"db": Position.at("1/1", 9)}, numbers={"kv": 3})
    with in_session(ConsistentSession(token=here)):
        app.tasks["plain"].apply_async(("plain",), headers=HEADERS)

    assert Token.from_json(published[0][POSITION_HEADER]) == TOKEN.merged(here)


def test_publisher_without_a_position_adds_no_header(
    app: Celery[Any], published: list[dict[str, Any]]
) -> None:
    """Neither in an empty session nor outside of any."""
    with in_session(ConsistentSession()):
        app.tasks["plain"].apply_async(("plain",))
    app.tasks["plain"].apply_async(("plain",))

    assert [POSITION_HEADER in headers for headers in published] == [False, False]
