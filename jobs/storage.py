"""The shop's database: a primary that takes orders, and replicas that answer most reads.

Sessions route themselves: see `resilience.databases`. Orders are read by their ids through a
`ConsistentReader`, so that their users see them also while the primary is down and no replica has
them yet.
"""

import os
from datetime import datetime
from functools import cache
from typing import Any, Final

from celery import current_app
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from jobs.dependencies import client_seconds
from jobs.models import Order, open_engine
from jobs.settings import ShopSettings
from resilience import Resilience
from resilience.budget import limit_statements
from resilience.consistency.errors import DatabaseUnavailableError
from resilience.consistency.reader import ConsistentReader
from resilience.databases import Databases

NAME: Final = "shop"
ORDERS: Final = "orders"
FALLBACK_SHARE: Final = 0.5
"""Of all reads, which are few here: while no replica is of use, the primary can answer as many."""

MAX_LAG_SECONDS: Final = 3.0
"""What a replica that is farther behind answers is marked, if the primary does not answer."""


def declare_databases(resilience: Resilience, settings: ShopSettings) -> None:
    """Tell *resilience* of the shop's database; nothing is connected yet."""
    urls = (settings.database_url, *settings.database_replica_urls)
    primary, *replicas = map(_engine, urls)
    resilience.databases(
        name=NAME,
        primary=primary,
        replicas=replicas,
        primary_fallback_share=FALLBACK_SHARE,
        max_lag_seconds=MAX_LAG_SECONDS,
    )


def open_session(*, using: str | None = None) -> Session:
    """Return a session whose reads go to a replica that has what its user wrote.

    Args:
        using: `primary`: they go there.
    """
    return _databases().Session(using=using)


def open_orders() -> ConsistentReader:
    """Return the orders by their ids, as `to_json` returns them."""
    return _orders(Resilience.of(current_app), os.getpid())


def close_connections(**_: object) -> None:
    """Close the connections of this process; takes whatever a Celery signal brings."""
    _databases().close()


def to_json(order: Order) -> dict[str, Any]:
    """Return an order as the front shows it."""
    return {
        "order_id": order.id,
        "user_id": order.user_id,
        "product_id": order.product_id,
        "quantity": order.quantity,
        "amount_cents": order.amount_cents,
        "charge_id": order.charge_id,
        "created_at": order.created_at.isoformat(),
    }


class Orders:
    """The orders by their ids: written at the primary, read from a replica that has them."""

    def __init__(self, databases: Databases) -> None:
        """Read and write them through *databases*."""
        self._databases = databases

    def read(self, key: str) -> dict[str, Any] | None:
        """Return an order; None: the primary has none of this id.

        Sessions route the read. A replica that may lag cannot tell that there is no such order.
        """
        with self._databases.Session() as session:
            order = _read(session, key)
        if order is not None:
            return order
        with self._databases.Session(using="primary") as session:
            return _read(session, key)

    def write(self, key: str, value: dict[str, Any]) -> None:
        """Keep an order; one that there is already stays as it is."""
        values = {name: value[name] for name in value if name not in {"order_id", "created_at"}}
        made = datetime.fromisoformat(value["created_at"])
        with self._databases.Session(using="primary") as session, session.begin():
            if session.get(Order, key) is None:
                session.add(Order(id=key, created_at=made, **values))

    def delete(self, key: str) -> None:
        """Forget an order."""
        with self._databases.Session(using="primary") as session, session.begin():
            order = session.get(Order, key)
            if order is not None:
                session.delete(order)


def _read(session: Session, key: str) -> dict[str, Any] | None:
    order = session.get(Order, key)
    return None if order is None else to_json(order)


def _databases() -> Databases:
    return Resilience.of(current_app).sources[NAME]


@cache
def _orders(resilience: Resilience, _pid: int) -> ConsistentReader:
    """Return the reader of one process, which knows the recent writes of its users."""
    return ConsistentReader(
        Orders(resilience.sources[NAME]),
        name=ORDERS,
        store=resilience.store,
        not_done=[DatabaseUnavailableError],
        listeners=resilience.listeners,
    )


def _engine(url: str) -> Engine:
    engine = open_engine(url, lock_seconds=client_seconds("database"))
    limit_statements(engine)
    return engine
