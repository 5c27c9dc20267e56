"""`celery -A app resilience …`, found by Celery through the entry point group celery.commands."""

from resilience.cli.commands import resilience

__all__ = ["resilience"]
