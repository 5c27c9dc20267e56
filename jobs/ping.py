"""A job that calls nobody: how fast front, broker and a worker are without any dependency.

The demo asks for it all the while. When a job that calls nobody is late, no dependency is to
blame but the machine, and nobody can tell from this moment how well dependencies are kept apart.
"""

from typing import Final

from celery import shared_task

from resilience import FanOut, ResilientTask, part


@shared_task(base=ResilientTask)
def ping() -> str:
    """Return at once; runs in the default worker."""
    return "pong"


PING: Final = FanOut(ping=part(ping.s(), required=True))
