"""What keeps a dependency's worker from taking more jobs than the dependency can do."""

from resilience.bulkhead.adaptive import AdaptiveConcurrency, AdaptiveLimit
from resilience.bulkhead.holds import Hold, Holds
from resilience.bulkhead.ramp import Course, Mode, jobs_at_once, next_course
from resilience.bulkhead.spares import Spares

__all__ = [
    "AdaptiveConcurrency",
    "AdaptiveLimit",
    "Course",
    "Hold",
    "Holds",
    "Mode",
    "Spares",
    "jobs_at_once",
    "next_course",
]
