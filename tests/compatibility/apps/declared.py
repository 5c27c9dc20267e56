"""A value for each attribute of a Celery task that a class can set."""

from typing import Any

DECLARED: dict[str, Any] = {
    "acks_late": False,
    "acks_on_failure": False,
    "acks_on_failure_or_timeout": False,
    "acks_on_timeout": False,
    "default_retry_delay": 7,
    "expires": 600,
    "ignore_result": False,
    "max_retries": 9,
    "rate_limit": "1000/s",
    "reject_on_worker_lost": True,
    "resultrepr_maxsize": 99,
    "retry_on_worker_lost": True,
    "send_events": False,
    "serializer": "json",
    "soft_time_limit": 80,
    "store_errors_even_if_ignored": True,
    "throws": (KeyError,),
    "time_limit": 90,
    "track_started": True,
    "trail": False,
    "typing": False,
}
