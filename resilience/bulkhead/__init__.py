"""Bulkheads: what keeps the work of one dependency from being everybody's trouble."""

from resilience.bulkhead.adaptive import AdaptiveConcurrency, AdaptiveLimit
from resilience.bulkhead.holds import Hold, Holds
from resilience.bulkhead.lanes import LANES, NORMAL, Lane, lane_of, queue_of, queue_rank
from resilience.bulkhead.ramp import Course, Mode, jobs_at_once, next_course
from resilience.bulkhead.renewal import Renewal
from resilience.bulkhead.room import READING_SECONDS, Room
from resilience.bulkhead.slots import Slots
from resilience.bulkhead.spares import Spares

__all__ = [
    "LANES",
    "NORMAL",
    "READING_SECONDS",
    "AdaptiveConcurrency",
    "AdaptiveLimit",
    "Course",
    "Hold",
    "Holds",
    "Lane",
    "Mode",
    "Renewal",
    "Room",
    "Slots",
    "Spares",
    "jobs_at_once",
    "lane_of",
    "next_course",
    "queue_of",
    "queue_rank",
]
