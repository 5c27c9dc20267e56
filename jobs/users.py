"""Who a user is, and what waits for them."""

from typing import Any

from celery import shared_task

from jobs.clients import fetch
from resilience import ResilientTask


@shared_task(base=ResilientTask, dependency="users")
def get_user(user_id: int) -> dict[str, Any] | None:
    """Return a user's name, email and segment; None: there is no such user."""
    user: dict[str, Any] | None = fetch("users", f"/users/{user_id}")
    return user


@shared_task(base=ResilientTask, dependency="users")
def get_notifications(user_id: int) -> list[str] | None:
    """Return the texts that wait for a user; None: there is no such user."""
    texts: list[str] | None = fetch("users", f"/users/{user_id}/notifications")
    return texts
