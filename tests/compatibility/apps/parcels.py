"""An app whose settings all come from the environment, as operators write them."""

from celery import Celery

from resilience import Dependency, FireAndForgetTask, ResilientTask
from resilience.tasks.resilience import Resilience

app = Celery("parcels")
Resilience(app, dependencies=[Dependency("courier"), Dependency("stamps")])


@app.task(base=FireAndForgetTask, dependency="courier", name="parcels.send")
def send(parcel: int) -> int:
    """Do nothing, well."""
    return parcel


@app.task(base=ResilientTask, dependency="stamps", name="parcels.stamp")
def stamp(parcel: int) -> int:
    """Do nothing that the ledger would keep."""
    return parcel
