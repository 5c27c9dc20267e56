"""Makes a worker that includes this module (`celery worker -I …`) record what happens in it."""

from celery import current_app, shared_task

from resilience.chaos.proving.records import FILLER, Recorder, path_of

Recorder(current_app, path_of(current_app))


@shared_task(name=FILLER, ignore_result=True)
def fill() -> None:
    """Do nothing: a job that only fills a queue."""
