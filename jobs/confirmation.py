"""What an order says of its mail, and what that mail is known by; declares no task."""

from typing import Final

QUEUED: Final = "queued"
"""What an answer says of a mail that will be sent."""


def confirmation_id(order_id: str) -> str:
    """Return the Message-ID of an order's mail."""
    return f"<{order_id}@shop.example>"
