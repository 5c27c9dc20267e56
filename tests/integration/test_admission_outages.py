"""Publishing to a limited bulkhead while the broker is down."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from celery import Celery

from resilience import Dependency, Resilience, ResilientTask
from resilience.clock import SystemClock
from resilience.settings import Settings
from resilience.tasks.publishing import PUBLISH_ERRORS
from resilience.testing.ports import LOCALHOST, free_port

WAIT_SECONDS = 0.1

SLACK_SECONDS = 0.3
PUBLISH_SECONDS = 0.5


@contextmanager
def black_hole() -> Iterator[str]:
    """Listen on a free port and never answer."""
    with socket.create_server((LOCALHOST, 0), backlog=64) as listener:
        yield f"redis://{LOCALHOST}:{listener.getsockname()[1]}/0"


@contextmanager
def nobody() -> Iterator[str]:
    """Yield an address where nobody listens."""
    yield f"redis://{LOCALHOST}:{free_port()}/0"


def seconds_to_fail(url: str, max_queue: int | None) -> list[float]:
    """Return how long publishes take that a broker at *url* does not take."""
    app = Celery("outage", broker=url, set_as_current=False)
    Resilience(
        app,
        dependencies=[Dependency("shop", max_queue=max_queue)],
        settings=Settings(publish_timeout_seconds=PUBLISH_SECONDS),
    )

    @app.task(base=ResilientTask, dependency="shop", ignore_result=True, shared=False)
    def sell() -> None: ...

    app.finalize()
    found = []
    for _ in range(3):
        began = SystemClock.monotonic()
        with pytest.raises(PUBLISH_ERRORS):
            sell.delay()
        found.append(SystemClock.monotonic() - began)
    app.close()
    return found


@pytest.mark.parametrize("broker", [black_hole, nobody])
def test_limit_makes_no_publish_wait_longer_while_the_broker_is_down(broker: object) -> None:
    """The publish itself says what is wrong, a tenth of a second later at most."""
    with broker() as url:  # type: ignore[operator]
        without = seconds_to_fail(url, None)
        limited = seconds_to_fail(url, 10)

    assert max(limited) <= max(without) + WAIT_SECONDS + SLACK_SECONDS
