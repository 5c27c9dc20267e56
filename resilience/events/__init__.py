"""What happened, in past tense; listeners decide who hears of it."""

from resilience.events.answers import (
    AnswerDegraded,
    AnswerUnreadable,
    BudgetExceeded,
    DegradedValuePassed,
    FallbacksExhausted,
    FanOutFinished,
    PartLate,
    PartUnreported,
    PublishFailed,
)
from resilience.events.base import Event, Listener, announce
from resilience.events.bulkheads import BulkheadFull, JobRefused, QueueHeld, QueueReleased, SlotLost
from resilience.events.circuits import (
    CircuitClosed,
    CircuitForced,
    CircuitHalfOpened,
    CircuitOpened,
    StoreFound,
    StoreLost,
)
from resilience.events.jobs import (
    JobBuried,
    JobKept,
    JobParked,
    JobSetAside,
    JobsPublished,
    JobUnkept,
    SecondLedgerFound,
)
from resilience.events.lines import log_event

__all__ = [
    "AnswerDegraded",
    "AnswerUnreadable",
    "BudgetExceeded",
    "BulkheadFull",
    "CircuitClosed",
    "CircuitForced",
    "CircuitHalfOpened",
    "CircuitOpened",
    "DegradedValuePassed",
    "Event",
    "FallbacksExhausted",
    "FanOutFinished",
    "JobBuried",
    "JobKept",
    "JobParked",
    "JobRefused",
    "JobSetAside",
    "JobUnkept",
    "JobsPublished",
    "Listener",
    "PartLate",
    "PartUnreported",
    "PublishFailed",
    "QueueHeld",
    "QueueReleased",
    "SecondLedgerFound",
    "SlotLost",
    "StoreFound",
    "StoreLost",
    "announce",
    "log_event",
]
