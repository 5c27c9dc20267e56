"""What a Redis broker throws away when its memory is full."""

from contextlib import suppress

import redis
from redis.exceptions import ResponseError

from resilience.text import get_logger

logger = get_logger("resilience")

DROPS_QUEUES = "allkeys-"
"""So begins a `maxmemory-policy` that evicts what has no expiry, as queues have none."""


def warn_of_eviction(client: "redis.Redis") -> None:
    """Say so if the server may drop queues; one that does not tell its policy is left alone.

    Raises:
        redis.ConnectionError: It does not answer.
    """
    with suppress(ResponseError):  # its user may not ask, or it is no server that knows
        policy = str(client.info("memory").get("maxmemory_policy", ""))
        if policy.startswith(DROPS_QUEUES):
            logger.warning(
                "the broker's maxmemory-policy is %s: when its memory is full it drops queues, and "
                "the jobs in them, without a word; set it to noeviction",
                policy,
            )
