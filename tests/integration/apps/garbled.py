"""An app whose store is filled with garbage while its jobs run."""

from celery import Celery

from resilience import (
    BreakerPolicy,
    Dependency,
    Feature,
    Level,
    Resilience,
    ResilientTask,
    Settings,
)
from resilience.events import Event, log_event

POLICY = BreakerPolicy(minimum_calls=100, open_seconds=1.0, open_seconds_max=1.0)

app = Celery("garbled")


def shout(event: Event) -> None:
    """Log every event at once, whatever the worker's level."""
    log_event(event)


Resilience(
    app,
    listeners=[shout],
    dependencies=[Dependency("mail", breaker=POLICY, slots=4), Dependency("shop", breaker=POLICY)],
    features=[Feature("extras", level=Level.REDUCED)],
    settings=Settings(store_timeout_seconds=5.0),  # the machine may be busy
)


@app.task(base=ResilientTask, dependency="mail", shared=False)
def send(number: int) -> int:
    """Return *number*."""
    return number


@app.task(base=ResilientTask, dependency="shop", shared=False)
def sell(number: int) -> int:
    """Return *number*."""
    return number
