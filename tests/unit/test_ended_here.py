"""A job that is ended where it is published, inside another job."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from celery.app.trace import trace_task

from resilience import Dependency, Level, Resilience, ResilientTask, fallback
from resilience.errors import BulkheadFullError
from resilience.tasks.refusing import end_here


@pytest.fixture
def app() -> Iterator[Celery[Any]]:
    """An adopted app whose messages and results stay in this process."""
    made: Celery[Any] = Celery(
        "tree", broker="memory://", backend="cache+memory://", set_as_current=False
    )
    Resilience(made, dependencies=[Dependency("shop")])
    yield made
    made.close()


@pytest.mark.parametrize(
    ("publisher", "options", "root"),
    [
        pytest.param({"root_id": "tree"}, {}, "tree", id="that-of-its-publisher"),
        pytest.param({}, {}, "publisher", id="its-publisher"),
        pytest.param({"root_id": "tree"}, {"root_id": "given"}, "given", id="a-given-one"),
    ],
)
def test_job_that_is_ended_where_it_is_published_has_its_root_and_parent(
    app: Celery[Any], publisher: dict[str, Any], options: dict[str, Any], root: str
) -> None:
    """As if a worker had run it: tracers and canvases find the tree that it belongs to.

    What follows it has the same root.
    """
    trees: list[tuple[str, str]] = []
    ended: list[str] = []
    queue = uuid4().hex
    follower = app.signature("after", immutable=True).set(queue=queue)

    def instead() -> str:
        request = app.tasks["sell"].request
        trees.append((request.root_id, request.parent_id))
        return "instead"

    @app.task(
        name="sell",
        base=ResilientTask,
        dependency="shop",
        fallbacks=[fallback.call(instead, level=Level.REDUCED)],
        shared=False,
    )
    def sell() -> str:
        return "sold"

    @app.task(name="publish", shared=False)
    def publish() -> None:
        full = BulkheadFullError("shop", 1.0)
        task = app.tasks["sell"]
        ended.append(end_here(task, full, (), {}, {"link": follower, **options}).id)

    request = {"id": "publisher", "delivery_info": {}, **publisher}
    trace_task(app.tasks["publish"], "publisher", (), {}, request, app=app)

    with app.connection_for_read() as connection, connection.SimpleQueue(queue) as waiting:
        headers = waiting.get(block=False).headers
    assert trees == [(root, "publisher")]
    assert [(headers["root_id"], headers["parent_id"])] == [(root, ended[0])]
