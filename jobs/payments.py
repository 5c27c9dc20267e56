"""Money: taken once per order. There is no second-best answer to that, so no fallback."""

from typing import Any

from celery import shared_task

from jobs.clients import clients, fetch
from resilience import ResilientTask


class PaymentTask(ResilientTask):
    """A task that calls the payment provider."""

    abstract = True
    dependency = "payments"


@shared_task(base=PaymentTask)
def charge(order_id: str, user_id: int, amount_cents: int) -> str:
    """Take the money for an order and return the id of the charge; twice is the same as once.

    Raises:
        httpx.HTTPError: The provider did not confirm it. It may have taken the money all the same.
    """
    wanted = {"order_id": order_id, "user_id": user_id, "amount_cents": amount_cents}
    response = clients().http("payments").post("/charges", json=wanted)
    charge_id: str = response.raise_for_status().json()["charge_id"]
    return charge_id


@shared_task(base=PaymentTask)
def get_alerts() -> list[dict[str, Any]]:
    """Return what the provider warns of."""
    alerts: list[dict[str, Any]] = fetch("payments", "/alerts")
    return alerts
