"""An app whose one bulkhead would share the default queue."""

from celery import Celery

from resilience.dependency import Dependency
from resilience.tasks import Resilience

app = Celery("clashing")
Resilience(app, dependencies=[Dependency("users", queue="celery")])
