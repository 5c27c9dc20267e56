"""Lanes: queues of one dependency that are served, and filled, in an order of preference."""

from collections.abc import Iterable, Mapping
from typing import Final, Literal, get_args

Lane = Literal["critical", "normal", "sheddable"]

LANES: Final[tuple[Lane, ...]] = get_args(Lane)
"""In order of preference."""
NORMAL: Final[Lane] = "normal"
SHARES: Final[Mapping[Lane, float]] = {"critical": 1.0, "normal": 0.9, "sheddable": 0.5}
"""A job is admitted while the lanes together hold less than this share of `max_queue`."""
RETRY: Final = "retry"
RANKS: Final[Mapping[str, int]] = {"critical": 0, "sheddable": 2, RETRY: 3}
"""By the suffix of a queue's name; one without is that of the normal lane."""
PLAIN_RANK: Final = 1


def queue_of(queue: str, lane: Lane) -> str:
    """Return the queue of *lane* of the dependency whose own queue is *queue*."""
    return queue if lane == NORMAL else f"{queue}.{lane}"


def lane_of(queue: str, name: str) -> Lane | None:
    """Return the lane that the queue *name* is of the dependency whose own queue is *queue*."""
    return next((lane for lane in LANES if queue_of(queue, lane) == name), None)


def queue_rank(name: str) -> int:
    """Return when the queue *name* is served: critical 0, normal 1, sheddable 2, retry 3.

    Any queue whose name says no lane counts as normal.
    """
    _, dot, suffix = name.rpartition(".")
    return RANKS.get(suffix, PLAIN_RANK) if dot else PLAIN_RANK


class LaneCycle:
    """Order in which a worker takes from its queues: by lane, in each by turns.

    A `queue_order_strategy` of kombu's Redis transport.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        """Begin with the queues *names*."""
        self._names = list(names)

    def update(self, names: Iterable[str]) -> None:
        """Go on with the queues *names*."""
        self._names[:] = names

    def consume(self, most: int) -> list[str]:
        """Return at most *most* queues, the one to take from first in front."""
        return sorted(self._names, key=queue_rank)[:most]

    def rotate(self, used: str) -> str:
        """Let the queue *used* be the last of its lane: a worker may serve several dependencies."""
        if used in self._names:
            self._names.remove(used)
            self._names.append(used)
        return used
