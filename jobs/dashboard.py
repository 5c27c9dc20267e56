"""What the people who run the shop look at: three parts, none of which may blank the page."""

from typing import Any, Final

from celery import shared_task
from sqlalchemy import func, select

from jobs.clients import fetch
from jobs.models import Order
from jobs.payments import get_alerts
from jobs.storage import open_session
from resilience import FanOut, ResilientTask, part

LATEST: Final = 5


@shared_task(base=ResilientTask, dependency="search")
def get_metrics() -> dict[str, float]:
    """Return how much is searched, and how fast."""
    metrics: dict[str, float] = fetch("search", "/metrics")
    return metrics


@shared_task(base=ResilientTask, dependency="database")
def summarise_orders() -> dict[str, Any]:
    """Return how many orders there are, what they are worth, and the ids of the latest."""
    with open_session() as session:
        count, amount_cents = session.execute(
            select(func.count(Order.id), func.coalesce(func.sum(Order.amount_cents), 0))
        ).one()
        latest = select(Order.id).order_by(Order.created_at.desc()).limit(LATEST)
        ids = list(session.scalars(latest))
    return {"count": count, "amount_cents": amount_cents, "latest": ids}


DASHBOARD = FanOut(
    metrics=part(get_metrics.s(), stale=60),
    alerts=part(get_alerts.s(), stale=300),
    orders=part(summarise_orders.s(), stale=300),
)
