"""Reads see what their user has written, also when the primary is down."""

from resilience.consistency.errors import DatabaseUnavailableError, OwnWriteUnavailableError
from resilience.consistency.position import Position
from resilience.consistency.session import ConsistentSession, Mark, current_session, in_session
from resilience.consistency.token import EVERYWHERE, Token

__all__ = [
    "EVERYWHERE",
    "ConsistentSession",
    "DatabaseUnavailableError",
    "Mark",
    "OwnWriteUnavailableError",
    "Position",
    "Token",
    "current_session",
    "in_session",
]
