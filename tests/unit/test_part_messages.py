"""What the message of a part says besides what its fan-out says."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery

from resilience import Dependency, FanOut, Resilience, ResilientTask, Settings
from resilience.tasks.envelope import deadline_of, slot_of
from resilience.testing.valkey import ValkeyProcess

BUDGET = 3600.0
"""Of the fan-out; no machine is so busy that publishing takes a noticeable part of it."""


@pytest.fixture
def app(valkey: ValkeyProcess) -> Iterator[Celery[Any]]:
    """An adopted app with one task, whose messages stay in this process."""
    made: Celery[Any] = Celery("parts", broker="memory://", set_as_current=False)
    settings = Settings(store_url=valkey.url, namespace=uuid4().hex, store_timeout_seconds=10.0)
    adopted = Resilience(made, dependencies=[Dependency("users")], settings=settings)

    @made.task(name="ask", base=ResilientTask, shared=False)
    def ask() -> None: ...

    yield made
    adopted.store.client.close()
    made.close()


def headers_of_part(app: Celery[Any], **options: Any) -> dict[str, Any]:  # noqa: ANN401 - Celery's
    """Return the headers that a part with these *options* is published with."""
    queue = uuid4().hex
    FanOut(part=app.tasks["ask"].s().set(queue=queue, **options)).apply_async(budget=BUDGET)
    with app.connection_for_read() as connection, connection.SimpleQueue(queue) as waiting:
        return dict(waiting.get(block=False).headers)


def test_part_ends_with_its_own_budget_if_that_is_shorter(app: Celery[Any]) -> None:
    """A longer one never reaches beyond the fan-out's, and None is no budget at all."""
    short, long, inherited = (
        deadline_of(headers_of_part(app, **own))
        for own in ({"budget": 5.0}, {"budget": 2 * BUDGET}, {})
    )
    unlimited = deadline_of(headers_of_part(app, budget=None))

    assert short is not None
    assert short.total == 5.0
    for one in (long, inherited):
        assert one is not None
        assert BUDGET / 2 < one.total <= BUDGET
    assert unlimited is None


def test_part_keeps_its_own_headers(app: Celery[Any]) -> None:
    """They travel beside the header that says where the part reports."""
    headers = headers_of_part(app, headers={"x-tenant": "shop"})

    slot = slot_of(headers)
    assert headers["x-tenant"] == "shop"
    assert slot is not None
    assert slot.part == "part"
