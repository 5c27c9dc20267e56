"""Celery's own control flow."""

from celery.exceptions import Ignore, Reject, Retry

NEUTRAL: tuple[type[Exception], ...] = (Retry, Ignore, Reject)
"""Never a failure of the dependency."""
