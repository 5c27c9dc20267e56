"""The shop's database and what it is filled with."""

from datetime import UTC
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select
from sqlalchemy.exc import StatementError
from sqlalchemy.orm import Session

from jobs.catalogue import FIRST_ORDER_AT
from jobs.models import Order, Product, open_engine
from jobs.seed import RowCounts, seed


def test_seed_fills_the_shop_and_is_the_same_everywhere(shop: Engine, tmp_path: Path) -> None:
    """Two databases seeded apart hold the same rows: ids can be used in any script."""
    other = open_engine(f"sqlite:///{tmp_path}/other.db")
    try:
        counts = seed(other)
        with Session(shop) as here, Session(other) as there:
            rows = [
                session.execute(select(Order.__table__).order_by(Order.id)).all()
                for session in (here, there)
            ]
            names = here.scalar(select(func.count(Product.name.distinct())))
    finally:
        other.dispose()

    assert counts == RowCounts(products=3_000, users=2_000, orders=4_000)
    assert rows[0] == rows[1]
    assert names == 3_000
    assert all(row.created_at.tzinfo is UTC for row in rows[0])


def test_seeding_again_adds_what_is_missing_and_keeps_what_is_there(tmp_path: Path) -> None:
    """A second seed neither doubles rows nor undoes what the shop did in between."""
    engine = open_engine(f"sqlite:///{tmp_path}/shop.db")
    try:
        seed(engine)
        with Session(engine) as session, session.begin():
            session.delete(session.scalars(select(Order)).first())
            session.get_one(Product, 1).price_cents = 1
            session.add(sale("new", user_id=7))

        counts = seed(engine)

        with Session(engine) as session:
            price_cents = session.get_one(Product, 1).price_cents
            charge_id = session.get_one(Order, "new").charge_id
    finally:
        engine.dispose()

    assert counts == RowCounts(products=3_000, users=2_000, orders=4_001)
    assert price_cents == 1
    assert charge_id is None


def test_order_without_a_time_zone_is_refused(shop: Engine) -> None:
    """A moment without a zone names no moment, so it is not stored as one."""
    order = sale("naive", user_id=7)
    order.created_at = FIRST_ORDER_AT.replace(tzinfo=None)

    with Session(shop) as session:
        session.add(order)

        with pytest.raises(StatementError, match="a time zone is needed"):
            session.flush()


def sale(order_id: str, *, user_id: int) -> Order:
    """Return an order that is not paid yet."""
    return Order(
        id=order_id,
        user_id=user_id,
        product_id=1,
        quantity=1,
        amount_cents=100,
        created_at=FIRST_ORDER_AT,
    )
