"""Makes a worker that includes this module (`celery worker -I …`) record what happens in it."""

from celery import current_app

from resilience.chaos.gameday.recording import record

record(current_app)
