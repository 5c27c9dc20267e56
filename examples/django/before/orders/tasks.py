"""Tasks of the orders app."""

import httpx
from celery import shared_task
from django.conf import settings
from django.core.mail import EmailMessage
from django.db.models import F

from orders.models import Order


@shared_task
def recommend(user: int) -> list[int]:
    """Return product ids for *user*, the best first."""
    url = f"{settings.RECOMMENDATIONS_URL}/personalised/{user}"
    return httpx.get(url, timeout=30).raise_for_status().json()


@shared_task
def summarise(products: list[int]) -> str:
    """Describe a list of products."""
    return f"{len(products)} products"


@shared_task(ignore_result=True)
def confirm(order: int) -> None:
    """Send a mail about *order*, and note it."""
    EmailMessage(
        f"order {order}",
        "Thank you.",
        "shop@bookshop.example",
        ["ann@bookshop.example"],
        headers={"Message-ID": f"<{order}@bookshop.example>"},
    ).send()
    Order.objects.filter(number=order).update(mailed=True)


@shared_task(ignore_result=True)
def remind() -> None:
    """Count a reminder for every order; beat asks for it."""
    Order.objects.update(reminded=F("reminded") + 1)
