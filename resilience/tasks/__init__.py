"""The Celery layer."""

import resilience.compat  # noqa: F401 - the modules below need what it adds to Celery 5.6
from resilience.tasks.degradable import degradable
from resilience.tasks.fanout import FanOut, Part, part
from resilience.tasks.fire import FireAndForgetTask
from resilience.tasks.pending import PendingResponse
from resilience.tasks.resilience import Resilience
from resilience.tasks.task import ResilientTask

__all__ = [
    "FanOut",
    "FireAndForgetTask",
    "Part",
    "PendingResponse",
    "Resilience",
    "ResilientTask",
    "degradable",
    "part",
]
