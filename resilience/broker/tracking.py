"""Lets a Redis broker tell of new jobs, which it does with its invalidation messages."""

from typing import Any

from redis.exceptions import ResponseError

from resilience.broker.silence import LOOK_SECONDS
from resilience.text import get_logger

logger = get_logger("resilience")


def track(connection: Any) -> None:  # noqa: ANN401 - redis-py's
    """Let the server tell on this *connection* when a key that is read there changes."""
    connection._parser.set_invalidation_push_handler(lambda _: None)  # noqa: SLF001
    connection.send_command("CLIENT", "TRACKING", "ON")
    try:
        connection.read_response()
    except ResponseError as error:
        logger.warning(
            "the broker cannot tell of new jobs (%s): it is asked every %g s",
            error,
            LOOK_SECONDS,
        )
