"""Bulkheads: what keeps the work of one dependency from filling everybody's queues."""

from resilience.bulkhead.lanes import LANES, NORMAL, Lane, lane_of, queue_of, queue_rank
from resilience.bulkhead.room import READING_SECONDS, Room

__all__ = [
    "LANES",
    "NORMAL",
    "READING_SECONDS",
    "Lane",
    "Room",
    "lane_of",
    "queue_of",
    "queue_rank",
]
