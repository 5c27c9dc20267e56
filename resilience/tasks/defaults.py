"""Settings of Celery that keep a job safe and every wait bounded."""

from collections.abc import Mapping
from typing import Any, Final

from celery import Celery
from celery.app.defaults import DEFAULTS
from kombu.transport import pyamqp

from resilience.broker.redis import SafeTransport
from resilience.bulkhead.lanes import LaneCycle
from resilience.settings import Settings

SILENT_SECONDS = 5
"""What a worker holds that was not heard of for so long runs elsewhere; a live one beats faster."""
USUAL_HEARTBEAT: Final = float(DEFAULTS["broker_heartbeat"])  # type: ignore[arg-type] # it is a number
"""Celery's; another object than any that an app sets, though it be as much."""
RABBITMQ_DEFAULTS: Final = {"control_queue_exclusive": False, "control_queue_durable": True}
"""RabbitMQ would keep a worker that connects again from a queue that belongs to its lost connection
alone, until it notices the loss: a minute or more. On Redis kombu would declare the queue of the
answers once only, and forget it with the first answer: the next ones would be lost."""
RESULT_BACKENDS: Final = {
    "redis": "resilience.tasks.result_backend:RedisResults",
    "rediss": "resilience.tasks.result_backend:RedisResults",
    "sentinel": "resilience.tasks.result_backend:SentinelResults",
}
"""By what an app calls them; one that names a class itself has that class."""
LANE_ORDER = f"{LaneCycle.__module__}:{LaneCycle.__name__}"


def safe_defaults(settings: Settings) -> dict[str, Any]:
    """Return what holds for a setting that the app did not make itself."""
    publish = settings.publish_timeout_seconds
    return {
        # A job is acknowledged when it has ended, so a killed worker loses none.
        "task_acks_late": True,
        "worker_prefetch_multiplier": 1,
        # A worker waits for no broker but its own.
        "worker_consumer": "resilience.worker.consumer:FailoverConsumer",
        # JSON only: a message cannot run code.
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        # A publisher waits for the broker about `publish_timeout_seconds`, not for ever.
        "broker_connection_timeout": publish,
        "broker_pool_acquire_timeout": publish,
        # A worker does not give its broker up: after an outage nobody is to start it again.
        "broker_connection_max_retries": None,
        # Whoever made no wish has this very object: see resilience.worker.heartbeat.
        "broker_heartbeat": USUAL_HEARTBEAT,
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


def safe_transport_options(
    transport: type[Any], alternates: int, settings: Settings
) -> Mapping[str, Any]:
    """Return transport options of a broker, each used if the app has none.

    Args:
        transport: Class of kombu's transport. One that is not ours has no heartbeat: it gets none
            of these, as jobs longer than its visibility timeout would run again and again.
        alternates: How many brokers there are beside the first.
        settings: Those of the operator.
    """
    publish = settings.publish_timeout_seconds
    if issubclass(transport, SafeTransport):
        return {
            "socket_timeout": publish,
            "socket_connect_timeout": publish,
            "socket_keepalive": True,
            # Each address is asked once: what was refused just now is refused again.
            "max_retries": max(0, alternates),
            "interval_start": 0,
            "interval_step": 0.1,
            # A worker takes from a lane only when those before it are empty.
            "queue_order_strategy": LANE_ORDER,
            # A worker that was not heard of for so long is dead: see resilience.broker.
            "visibility_timeout": SILENT_SECONDS,
            # How often a worker looks after its connection.
            "unacked_restore_interval": 1,
            # A silent connection for control commands is given up after three of these.
            "health_check_interval": 5,
        }
    if issubclass(transport, pyamqp.Transport):
        return {
            "connect_timeout": publish,
            "read_timeout": publish,
            "write_timeout": publish,
            # A job is published when the broker has it: see resilience.broker.amqp.
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


def miss_no_result(app: Celery[Any]) -> None:
    """Let *app* wait for its results as in `resilience.tasks.result_backend`."""
    loader: Any = app.loader
    loader.override_backends = {**RESULT_BACKENDS, **loader.override_backends}
