"""Settings of Celery that keep a job safe and every wait bounded."""

from collections.abc import Mapping
from typing import Any

from resilience.settings import Settings
from resilience.tasks.addresses import is_amqp, is_redis


def safe_defaults(settings: Settings) -> dict[str, Any]:
    """Return what holds for a setting that the app did not make itself."""
    publish = settings.publish_timeout_seconds
    return {
        # A job is acknowledged when it has ended, so a killed worker loses none.
        "task_acks_late": True,
        "worker_prefetch_multiplier": 1,
        # JSON only: a message cannot run code.
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        # A publisher waits for the broker about `publish_timeout_seconds`, not for ever.
        "broker_connection_timeout": publish,
        "broker_pool_acquire_timeout": publish,
        "broker_connection_retry_on_startup": True,
        "task_publish_retry_policy": {
            "max_retries": 1,
            "interval_start": 0,
            "interval_step": 0.1,
            "interval_max": 0.1,
        },
        # A worker waits for the result backend some seconds, then gives the result up.
        "result_backend_always_retry": True,
        "result_backend_max_retries": 3,
        "result_backend_base_sleep_between_retries_ms": 50,
        "result_backend_max_sleep_between_retries_ms": 1000,
        "redis_socket_connect_timeout": publish,
        "redis_socket_timeout": publish,
        "redis_socket_keepalive": True,
        "redis_backend_health_check_interval": 25,
    }


def safe_transport_options(broker_url: str, settings: Settings) -> Mapping[str, Any]:
    """Return transport options of the broker at *broker_url*, each used if the app has none."""
    publish = settings.publish_timeout_seconds
    if is_redis(broker_url):
        return {
            "socket_timeout": publish,
            "socket_connect_timeout": publish,
            "socket_keepalive": True,
            "max_retries": 1,
            "interval_start": 0,
            "interval_step": 0.1,
            # By name: a worker takes from a queue's own `.retry` only when it is empty.
            "queue_order_strategy": "sorted",
        }
    if is_amqp(broker_url):
        return {
            "connect_timeout": publish,
            "read_timeout": publish,
            "write_timeout": publish,
            # A job is published when the broker has it: see resilience.tasks.amqp.
            "confirm_publish": True,
        }
    return {}


def safe_result_options() -> Mapping[str, Any]:
    """Return transport options of the result backend, each used if the app has none.

    A task that stores its result subscribes to it when it is published; without a limit that
    alone blocks the publisher for minutes when the backend is gone.
    """
    once = {"max_retries": 1, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.1}
    return {"retry_policy": once}
