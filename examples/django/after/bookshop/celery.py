"""The Celery app of the project."""

import os

from celery import Celery

from resilience import Dependency, Resilience

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bookshop.settings")
app = Celery("bookshop")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
Resilience(
    app,
    dependencies=[
        Dependency("recommendations", concurrency=4, timeout=1.0),
        Dependency("mail", concurrency=2, timeout=2.0),
    ],
)
