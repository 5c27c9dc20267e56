"""Celery's own control flow."""

from celery.exceptions import Ignore, Reject, Retry

from resilience.errors import Neutral

NEUTRAL: tuple[type[Exception], ...] = (Retry, Ignore, Reject)
"""Never a failure of the dependency."""

for _one in NEUTRAL:
    Neutral.register(_one)
