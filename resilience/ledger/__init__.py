"""The ledger: what must never get lost, in one SQL database.

The value classes are imported at once. What talks to the database is imported on first use, since
SQLAlchemy takes longer to import than Celery.
"""

from typing import TYPE_CHECKING

from resilience.exports import exported_from
from resilience.ledger.claim import Claimed, Done, Running
from resilience.ledger.count import COUNT_LIMIT, Count
from resilience.ledger.job import KEY_LENGTH, Job, State

if TYPE_CHECKING:
    from resilience.ledger.claims import Claims
    from resilience.ledger.identity import Identity
    from resilience.ledger.ledger import Ledger
    from resilience.ledger.letter import AuditEntry, Letter, Purged
    from resilience.ledger.letters import Letters
    from resilience.ledger.lookups import Which
else:
    __getattr__ = exported_from(
        __name__,
        {
            "resilience.ledger.claims": ("Claims",),
            "resilience.ledger.identity": ("Identity",),
            "resilience.ledger.ledger": ("Ledger",),
            "resilience.ledger.letter": ("AuditEntry", "Letter", "Purged"),
            "resilience.ledger.letters": ("Letters",),
            "resilience.ledger.lookups": ("Which",),
        },
    )

__all__ = [
    "COUNT_LIMIT",
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
