"""Tasks that pytest-celery copies into its workers."""

import os

from celery import shared_task


@shared_task
def triple(number: int) -> int:
    """Return three times the number."""
    return 3 * number


@shared_task
def pool_pid() -> int:
    """Return the id of the pool process that runs it."""
    return os.getpid()
