"""The ledger: what must never get lost, in one SQL database."""

from resilience.ledger.claims import Claimed, Claims, Done, Running
from resilience.ledger.identity import Identity
from resilience.ledger.job import Count, Job, State
from resilience.ledger.ledger import Ledger
from resilience.ledger.letter import AuditEntry, Letter, Purged
from resilience.ledger.letters import Letters, Which
from resilience.ledger.tables import KEY_LENGTH

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
