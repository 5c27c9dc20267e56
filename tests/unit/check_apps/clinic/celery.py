"""The Celery app of the project."""

import os

from celery import Celery

from resilience import BreakerPolicy, Dependency, Resilience, TaskPattern

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "clinic.settings")  # noqa: TID251 - as Django has it
app = Celery("clinic")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
Resilience(
    app,
    dependencies=[
        Dependency("laboratory", timeout=4.0, breaker=BreakerPolicy(ignore=(PermissionError,))),
        Dependency("texts", timeout=2.0, on_open="hold"),
        Dependency("billing", tasks=[TaskPattern("billing.*", fire_and_forget=True)]),
    ],
)
