"""Which ends of a job are the end of the part that it is."""

from collections.abc import Callable, Iterator
from typing import NoReturn
from uuid import uuid4

import pytest
from celery import Celery
from celery.exceptions import Ignore, Reject, Retry

from resilience import Dependency, PartialResponse, Resilience, Settings
from resilience.store import Slot
from resilience.tasks import PendingResponse
from resilience.tasks.ending import report_end
from resilience.tasks.replacing import Replaced
from resilience.testing.valkey import ValkeyProcess

BUDGET = 60.0


@pytest.fixture
def resilience(valkey: ValkeyProcess) -> Iterator[Resilience]:
    """An app whose fan-outs are collected in a real store."""
    app: Celery = Celery("parts", broker="memory://", set_as_current=False)
    settings = Settings(store_url=valkey.url, namespace=uuid4().hex, store_timeout_seconds=10.0)
    made = Resilience(app, dependencies=[Dependency("users")], settings=settings)
    yield made
    made.store.client.close()
    app.close()


def response_after(resilience: Resilience, *ends: Callable[[], object]) -> PartialResponse:
    """Return the response of a fan-out whose one part was run with these *ends*, one by one."""
    fan, spec = uuid4().hex, [("part", False)]
    resilience.fan_in.open(fan, spec, budget=BUDGET, memories={})
    pending = PendingResponse(resilience, fan, spec, budget=BUDGET)
    slot = Slot(fan=fan, part="part")
    for end in ends:
        try:
            report_end(resilience, slot, end, ends=True)
        except (Ignore, Reject, Retry):
            continue
    return pending.get()


def raising(error: Exception) -> Callable[[], NoReturn]:
    """Return what ends a run with *error*."""

    def end() -> NoReturn:
        raise error

    return end


@pytest.mark.parametrize(
    "error", [Reject("later", requeue=True), Retry(), Replaced()], ids=["requeued", "retry", "new"]
)
def test_part_that_runs_again_has_not_ended(resilience: Resilience, error: Exception) -> None:
    """The fan-out waits for the run that comes after, and has its value."""
    response = response_after(resilience, raising(error), lambda: "value")

    assert response == PartialResponse(data={"part": "value"})


@pytest.mark.parametrize("error", [Reject("never", requeue=False), Ignore()], ids=repr)
def test_part_that_never_runs_again_has_ended(resilience: Resilience, error: Exception) -> None:
    """Its message is gone; what comes after is not its value."""
    response = response_after(resilience, raising(error), lambda: "value")

    assert response.reasons == {"part": type(error).__name__}
