"""Who waits for a result gets it, also if the message about it reached nobody."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
import redis
from celery import Celery
from celery.result import AsyncResult, ResultSet

from resilience.settings import Settings
from resilience.tasks import Resilience
from resilience.testing.valkey import ValkeyProcess

SECONDS = 20.0

pytestmark = pytest.mark.filterwarnings("default:Call to deprecated setex:DeprecationWarning")


@pytest.fixture
def app(valkey: ValkeyProcess) -> Iterator[Celery[Any]]:
    """An adopted app whose results are in a Valkey."""
    app: Celery[Any] = Celery(broker="memory://", backend=valkey.url, set_as_current=False)
    Resilience(app, dependencies=[], settings=Settings(store_url=valkey.url))
    yield app
    app.close()


@pytest.fixture
def found(app: Celery[Any]) -> AsyncResult[Any]:
    """The result of a job of which nothing is known yet."""
    return app.AsyncResult(uuid4().hex)


def store_unheard(result: AsyncResult[Any], value: object) -> None:
    """Store *value*, as a worker does, and leave out the message to those who wait."""
    backend: Any = result.backend
    meta = {"task_id": result.id, "status": "SUCCESS", "result": value, "children": []}
    backend.client.set(backend.get_key_for_task(result.id), json.dumps(meta))


def test_result_whose_message_was_missed_arrives(found: AsyncResult[Any]) -> None:
    """A busy server may take the lookup, what is stored, and the subscription in this order."""
    value = found.get(timeout=SECONDS, on_interval=lambda: store_unheard(found, 7))

    assert value == 7


def test_results_of_a_group_whose_messages_were_missed_arrive(app: Celery[Any]) -> None:
    """All of them, in their order, each announced once."""
    results = [app.AsyncResult(uuid4().hex) for _ in range(3)]
    told: list[str] = []

    def store() -> None:
        for number, one in enumerate(results):
            store_unheard(one, number)

    values = ResultSet(results, app=app).get(
        timeout=SECONDS, on_interval=store, on_message=lambda meta: told.append(meta["task_id"])
    )

    assert values == [0, 1, 2]
    assert sorted(told) == sorted(one.id for one in results)


def test_store_that_is_away_is_no_error_of_the_reading(
    found: AsyncResult[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be read now is read a second later."""
    backend: Any = found.backend
    client, lost = backend.client, [redis.ConnectionError("away") for _ in range(2)]
    mget = client.mget

    def fail_twice(keys: list[str]) -> Any:  # noqa: ANN401 - as redis-py's
        if lost:
            raise lost.pop()
        return mget(keys)

    monkeypatch.setattr(client, "mget", fail_twice)

    assert found.get(timeout=SECONDS, on_interval=lambda: store_unheard(found, 7)) == 7
    assert not lost
