"""Take an order: who and what, the money, the record, and a mail that may fail."""

import asyncio
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

from celery import shared_task
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select

from jobs.asking import NotServedError, answer_of, require
from jobs.confirmation import QUEUED
from jobs.models import Order, Product
from jobs.notifications import confirm_order
from jobs.payments import charge
from jobs.storage import open_orders, open_session, to_json
from jobs.users import get_user
from resilience import (
    FanOut,
    LedgerUnavailableError,
    Level,
    Outcome,
    PartAnswer,
    PartialResponse,
    ResilientTask,
    TimeoutBudget,
    part,
)
from resilience.clock import SystemClock
from resilience.errors import ResilienceError
from resilience.partial import assemble

LOOKUP_SECONDS: Final = 0.9
AFTER_PAYMENT_SECONDS: Final = 0.6
"""Kept for what follows a payment: money taken for an order that is not recorded is the worst."""
AFTER_RECORD_SECONDS: Final = 0.2
DATABASE: Final = "database"
LATEST: Final = 20
ID_MAX: Final = 2**31 - 1
QUANTITY_MAX: Final = 100


class NewOrder(BaseModel):
    """An order as a client sends it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    user_id: int = Field(ge=1, le=ID_MAX)
    product_id: int = Field(ge=1, le=ID_MAX)
    quantity: int = Field(ge=1, le=QUANTITY_MAX)


class UnknownError(ResilienceError):
    """A client named something that does not exist; the message says what."""


# From the primary: a price may just have changed. So an order that could not be recorded is refused
# before anybody is charged, too.
@shared_task(base=ResilientTask, dependency=DATABASE, data_consistency="always")
def get_product(product_id: int) -> dict[str, Any] | None:
    """Return a product's name and price; None: there is no such product."""
    with open_session() as session:
        product = session.get(Product, product_id)
        if product is None:
            return None
        return {"name": product.name, "price_cents": product.price_cents}


@shared_task(base=ResilientTask, dependency=DATABASE)
def record_order(
    order_id: str,
    user_id: int,
    product_id: int,
    quantity: int,
    amount_cents: int,
    charge_id: str,
    created_at: str,
) -> None:
    """Keep a paid order, and for a while what it was for its user; twice is the same as once."""
    order = Order(
        id=order_id,
        user_id=user_id,
        product_id=product_id,
        quantity=quantity,
        amount_cents=amount_cents,
        charge_id=charge_id,
        created_at=datetime.fromisoformat(created_at),
    )
    open_orders().write(order_id, to_json(order))


@shared_task(base=ResilientTask, dependency=DATABASE, data_consistency="sticky")
def get_order(order_id: str) -> Outcome[Any]:
    """Return an order, None if there is none, and how sure that is.

    A replica answers if it has what its user wrote, else the primary. Users see their own orders at
    once, also when the primary is down.
    """
    return open_orders().read(order_id)


@shared_task(base=ResilientTask, dependency=DATABASE)
def get_orders(user_id: int) -> list[dict[str, Any]]:
    """Return a user's latest orders, the newest first."""
    latest = select(Order).where(Order.user_id == user_id)
    with open_session() as session:
        found = session.scalars(latest.order_by(Order.created_at.desc()).limit(LATEST))
        return [to_json(order) for order in found]


async def order_of(order_id: str, *, budget: float) -> Outcome[Any]:
    """Return an order as the user of the current session may expect it; None: there is none.

    Raises:
        NotServedError: Nobody answers, or nobody who knows whether there is such an order.
    """
    wanted = FanOut(order=part(get_order.s(order_id), required=True))
    found = answer_of(await require(wanted, budget), wanted, budget)
    if found.value is None and found.degraded:
        raise NotServedError(DATABASE, {"order": found.reason or found.level.name})
    return found


async def place(order: NewOrder, *, budget: float) -> PartialResponse:
    """Take *order* within *budget* seconds, all stages together.

    Raises:
        UnknownError: There is no such user or product.
        NotServedError: It was not taken. Without a confirmed payment nobody knows whether money
            was; the provider can tell by the order's id, which the error carries.
    """
    order_id = str(uuid4())
    async with TimeoutBudget(budget) as whole:
        user, product = await _look_up(order)
        amount_cents = order.quantity * product["price_cents"]
        payment = charge.s(order_id, order.user_id, amount_cents)
        paid = await require(
            FanOut(payment=part(payment, required=True)),
            whole.remaining() - AFTER_PAYMENT_SECONDS,
            order_id=order_id,
        )
        receipt = {"amount_cents": amount_cents, "charge_id": paid.data["payment"]}
        now = datetime.fromtimestamp(SystemClock().now(), UTC).isoformat()
        record = record_order.s(order_id, **order.model_dump(), **receipt, created_at=now)
        await require(
            FanOut(record=part(record, required=True)),
            whole.remaining() - AFTER_RECORD_SECONDS,
            order_id=order_id,
        )
        mail = (order_id, user["email"], product["name"], order.quantity)
        told = await _notify(mail, whole.remaining())
    taken = Outcome(value={"order_id": order_id, **receipt})
    return assemble(
        [
            PartAnswer(name="order", outcome=taken),
            PartAnswer(name="notification", outcome=told),
        ]
    )


async def _look_up(order: NewOrder) -> tuple[dict[str, Any], dict[str, Any]]:
    wanted = FanOut(
        user=part(get_user.s(order.user_id), required=True),
        product=part(get_product.s(order.product_id), required=True),
    )
    known = (await require(wanted, LOOKUP_SECONDS)).data
    for name, asked in (("user", order.user_id), ("product", order.product_id)):
        if known[name] is None:
            msg = f"there is no {name} {asked}"
            raise UnknownError(msg)
    return known["user"], known["product"]


async def _notify(mail: tuple[Any, ...], seconds: float) -> Outcome[str]:
    try:
        async with asyncio.timeout(seconds):
            # Into the ledger, if the broker does not take it.
            await asyncio.to_thread(confirm_order.fire, *mail)
    except (LedgerUnavailableError, TimeoutError) as error:
        return Outcome(value="not sent", level=Level.REDUCED, reason=type(error).__name__)
    return Outcome(value=QUEUED)
