"""Keeps an error that nobody foresaw from ending the worker: its message is set aside."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import redis
from celery import Celery
from celery.exceptions import BackendError

from resilience.broker.unreadable import reason_of
from resilience.errors import StoreUnavailableError, place_of
from resilience.events import JobUnreadable
from resilience.tasks.fire import LEDGER_ERRORS
from resilience.tasks.publishing import PUBLISH_ERRORS
from resilience.tasks.resilience import Resilience
from resilience.text import get_logger

logger = get_logger(__name__)

OUTAGES = (
    StoreUnavailableError,
    BackendError,
    redis.ConnectionError,
    redis.TimeoutError,
    *LEDGER_ERRORS,
    *PUBLISH_ERRORS,
)
"""No fault of the message: it goes back into its queue."""


def is_lost(error: BaseException, connection_errors: Sequence[type[BaseException]]) -> bool:
    """Tell whether *error* is the loss of the broker's connection, which Celery handles.

    Kombu counts KeyError among those of a Redis broker.
    """
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, tuple(connection_errors)) and not isinstance(error, LookupError)


def set_aside(app: Celery[Any], message: Any, error: Exception) -> bool:  # noqa: ANN401 - kombu's
    """Move *message* to where those are that cannot be read, with *error* as the reason.

    Returns:
        Whether it was; only our own transports for Redis and RabbitMQ know how. If not, it is to be
        rejected: RabbitMQ has it then in the dead-letter queue.
    """
    move = getattr(message, "set_aside", None)
    if move is None:
        return False
    reason = reason_of(error)
    try:
        move(reason)
    except (LookupError, TypeError, ValueError):  # it cannot be encoded as it could be decoded
        logger.exception("a message cannot be set aside")
        return False
    headers = message.headers if isinstance(message.headers, dict) else {}
    event = JobUnreadable(
        queue=message.queue,
        id=str(headers.get("id") or "")[:100],
        reason=reason,
        place=place_of(error),
    )
    resilience: Resilience | None = getattr(app, "resilience", None)
    if resilience is None:
        logger.error("set a message aside: %r", event)
    else:
        resilience.announce(event)
    return True


def end_unread(request: Any, error: Exception) -> None:  # noqa: ANN401 - Celery's
    """Set the message of *request* aside, as *error* keeps it from its end.

    Raises:
        Exception: The connection to the broker is lost.
    """
    if is_lost(error, request.connection_errors):
        raise error
    if set_aside(request.app, request.message, error):
        request.acknowledged = True  # nobody may do so once more
    else:
        logger.error("%s[%s]", request.name, request.id, exc_info=error)


@contextmanager
def guarded(request: Any) -> Iterator[None]:  # noqa: ANN401 - Celery's
    """Set the message of *request* aside if the block fails; see `end_unread`."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - a lost connection is raised again
        end_unread(request, error)
