"""An app with a circuit, and a dependency without one."""

from celery import Celery

from resilience import Dependency, Resilience

app = Celery("circuits")
Resilience(app, dependencies=[Dependency("users"), Dependency("free", breaker=None)])
