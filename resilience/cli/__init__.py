"""`celery -A app resilience …`, found by Celery through the entry point group celery.commands."""

from resilience.cli.breakers import breaker
from resilience.cli.commands import resilience

resilience.add_command(breaker)

__all__ = ["resilience"]
