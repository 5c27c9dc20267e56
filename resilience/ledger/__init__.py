"""The ledger: what must never get lost, in one SQL database.

What a job is costs nothing to know; what talks to the database is imported when it is needed first,
since SQLAlchemy takes longer to import than Celery.
"""

from typing import TYPE_CHECKING

from resilience.exports import exported_from
from resilience.ledger.claim import Claimed, Done, Running
from resilience.ledger.job import KEY_LENGTH, Count, Job, State

if TYPE_CHECKING:
    from resilience.ledger.claims import Claims
    from resilience.ledger.identity import Identity
    from resilience.ledger.ledger import Ledger
    from resilience.ledger.letter import AuditEntry, Letter, Purged
    from resilience.ledger.letters import Letters, Which
else:
    __getattr__ = exported_from(
        __name__,
        {
            "resilience.ledger.claims": ("Claims",),
            "resilience.ledger.identity": ("Identity",),
            "resilience.ledger.ledger": ("Ledger",),
            "resilience.ledger.letter": ("AuditEntry", "Letter", "Purged"),
            "resilience.ledger.letters": ("Letters", "Which"),
        },
    )

__all__ = [
    "KEY_LENGTH",
    "AuditEntry",
    "Claimed",
    "Claims",
    "Count",
    "Done",
    "Identity",
    "Job",
    "Ledger",
    "Letter",
    "Letters",
    "Purged",
    "Running",
    "State",
    "Which",
]
