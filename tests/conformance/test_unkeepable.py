"""What becomes of a job that the ledger's database can never hold."""

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from resilience import Dependency, FireAndForgetTask, Resilience, Settings
from resilience.errors import UnkeepableError
from resilience.events import JobUnkept
from resilience.testing.mariadb import MariaDbProcess
from tests.unit.calling import Listening

LONG = 300 * "a"


def send() -> None:
    """Fail."""
    msg = "connection refused"
    raise ConnectionError(msg)


@pytest.fixture
def listening() -> Listening:
    """Hears what is announced."""
    return Listening()


@pytest.fixture
def task(mariadb: MariaDbProcess, listening: Listening) -> Iterator[Any]:
    """A task of an app whose ledger is in MariaDB."""
    app: Celery[Any] = Celery("unkeepable", broker="memory://", set_as_current=False)
    resilience = Resilience(
        app,
        dependencies=[Dependency("mail")],
        settings=Settings(ledger_url=mariadb.emptied()),
        listeners=[listening],
    )
    resilience.ledger.upgrade()
    yield app.task(send, base=FireAndForgetTask, name="send", dependency="mail", shared=False)
    resilience.ledger.close()
    app.close()


@pytest.mark.parametrize("options", [{"task_id": LONG}, {"queue": LONG}, {"countdown": 9}])
def test_job_is_refused_when_it_is_published(task: Any, options: dict[str, Any]) -> None:  # noqa: ANN401
    """Also while the broker takes it: else it were lost, or run for ever, once it fails."""
    if "countdown" in options:
        task.name = LONG

    with pytest.raises(UnkeepableError, match=r"got 'aaa.*shorten it"):
        task.apply_async(**options)


def test_job_that_came_all_the_same_ends_as_it_failed(task: Any, listening: Listening) -> None:  # noqa: ANN401
    """From publishers without the library; it does not go round, and the log says so."""
    task.push_request(id=LONG, args=(), kwargs={}, called_directly=False)
    try:
        with pytest.raises(ConnectionError):
            task()
    finally:
        task.pop_request()

    assert [one.id for one in listening.heard if isinstance(one, JobUnkept)] == [LONG]
