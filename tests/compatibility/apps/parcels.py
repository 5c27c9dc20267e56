"""An app whose settings all come from the environment, as operators write them.

`python -m` publishes three parcels.
"""

import threading
from typing import Any

from celery import Celery
from celery.worker.control import control_command

from resilience import Dependency, FireAndForgetTask, ResilientTask
from resilience.tasks.resilience import Resilience

app = Celery("parcels")
Resilience(app, dependencies=[Dependency("courier"), Dependency("stamps")])


@app.task(base=FireAndForgetTask, dependency="courier", name="parcels.send", shared=False)
def send(parcel: int) -> int:
    """Do nothing, well."""
    return parcel


@app.task(base=ResilientTask, dependency="stamps", name="parcels.stamp", shared=False)
def stamp(parcel: int) -> int:
    """Do nothing that the ledger would keep."""
    return parcel


@control_command(args=[("seconds", float)])
def hang(_state: Any, seconds: float) -> None:  # noqa: ANN401 - Celery's
    """Block the event loop for so long."""
    threading.Event().wait(seconds)


if __name__ == "__main__":
    for number in range(3):
        send.apply_async((number,), countdown=600)
