"""Publishing to a limited bulkhead while the broker is down."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Event

import pytest
from celery import Celery

from resilience import Dependency, Resilience, ResilientTask
from resilience.settings import Settings
from resilience.tasks.publishing import PUBLISH_ERRORS
from resilience.testing.ports import LOCALHOST, free_port
from tests.timing import ends_before
from tests.unit.black_hole import black_hole

WAIT_SECONDS = 0.1
PUBLISH_SECONDS = 0.5
PUBLISHES = 3


@contextmanager
def nobody() -> Iterator[str]:
    """Yield an address where nobody listens."""
    yield f"redis://{LOCALHOST}:{free_port()}/0"


@contextmanager
def publisher(url: str, max_queue: int | None) -> Iterator[Callable[[], None]]:
    """Yield what publishes one job that the broker at *url* does not take."""
    app = Celery("outage", broker=url, set_as_current=False)
    Resilience(
        app,
        dependencies=[Dependency("shop", max_queue=max_queue)],
        settings=Settings(publish_timeout_seconds=PUBLISH_SECONDS),
    )

    @app.task(base=ResilientTask, dependency="shop", ignore_result=True, shared=False)
    def sell() -> None: ...

    def publish() -> None:
        with pytest.raises(PUBLISH_ERRORS):
            sell.delay()

    app.finalize()
    yield publish
    app.close()


@pytest.mark.parametrize("broker", [black_hole, nobody])
def test_limit_makes_no_publish_wait_longer_while_the_broker_is_down(
    broker: Callable[[], AbstractContextManager[str]],
) -> None:
    """The publish itself says what is wrong, a tenth of a second later at most.

    As many publishes without a limit, each with that tenth, and one more take longer, at the same
    time on the same machine.
    """
    with broker() as url, publisher(url, None) as unlimited, publisher(url, 10) as limited:

        def control() -> None:
            for _ in range(PUBLISHES):
                unlimited()
                Event().wait(WAIT_SECONDS)
            unlimited()

        with ends_before(control):
            for _ in range(PUBLISHES):
                limited()
