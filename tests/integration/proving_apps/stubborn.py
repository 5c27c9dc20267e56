"""An app that takes its settings from nowhere but its own code."""

from celery import Celery

from resilience import Dependency, Resilience, Settings

app = Celery("stubborn", broker="redis://127.0.0.1:1/0")
Resilience(app, dependencies=[Dependency("users")], settings=Settings())
