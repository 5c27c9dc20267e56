"""A Celery app as users have one: a module, told by the environment where its broker is."""

import os

from celery import Celery

app = Celery("vendor_app")


@app.task
def pool_pid() -> int:
    """Return the id of the pool process that runs it."""
    return os.getpid()
