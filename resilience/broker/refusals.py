"""What a Redis broker refuses though it is there."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import redis
from redis.exceptions import (
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)

REFUSALS = (OutOfMemoryError, ReadOnlyError)
"""A worker that meets one waits and connects again, as if the broker were away."""
FORBIDDEN = ("ACL failure in script", "The user executing the script can't")
"""How Valkey and Redis begin to say that a script may not do what it does."""
NEEDED: Final = (
    "a worker's user needs EVAL and EVALSHA and, also within scripts, TIME, LLEN, LPUSH, RPUSH, "
    "RPOP, HSET, HGET, HDEL, ZADD, ZREM, ZSCORE and ZRANGEBYSCORE; CLIENT TRACKING makes it faster "
    "and CLIENT LIST, CLIENT ID and INFO show which workers were killed"
)


@contextmanager
def as_outage() -> Iterator[None]:
    """Let a broker that refuses pass for one that is away.

    A replica, a server without memory, disk or replicas: that ends, and need not end the worker.

    Raises:
        redis.ConnectionError: It refuses.
        ResponseError: Its user lacks a permission, or a script is not known.
    """
    try:
        yield
    except NoScriptError:
        raise
    except ResponseError as error:
        if isinstance(error, NoPermissionError) or str(error).startswith(FORBIDDEN):
            error.add_note(NEEDED)
            raise
        msg = f"the broker refuses: {error}"
        raise redis.ConnectionError(msg) from error
