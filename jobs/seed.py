"""Fill the shop's database: `python -m jobs.seed URL`."""

from collections.abc import Sequence
from typing import NamedTuple

import click
from sqlalchemy import Connection, Engine, func, insert, select

from jobs import catalogue
from jobs.models import Base, Order, Product, User, open_engine


class RowCounts(NamedTuple):
    """How many rows each table of the shop holds."""

    products: int
    users: int
    orders: int


def seed(engine: Engine) -> RowCounts:
    """Create the tables and add every row of the catalogue that is missing.

    Seeding twice changes nothing, and neither what has been sold since nor what was edited is
    touched. One transaction: the seed is there as a whole or not at all.

    Returns:
        What the tables hold now.
    """
    products = range(1, catalogue.PRODUCT_COUNT + 1)
    users = range(1, catalogue.USER_COUNT + 1)
    orders = range(1, catalogue.ORDER_COUNT + 1)
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        return RowCounts(
            products=_add_missing(connection, Product, [catalogue.product(n) for n in products]),
            users=_add_missing(connection, User, [catalogue.user(n) for n in users]),
            orders=_add_missing(connection, Order, [catalogue.order(n) for n in orders]),
        )


def _add_missing(
    connection: Connection,
    model: type[Product | User | Order],
    facts: Sequence[catalogue.ProductFacts | catalogue.UserFacts | catalogue.OrderFacts],
) -> int:
    present = set(connection.scalars(select(model.id)))
    missing = [row._asdict() for row in facts if row.id not in present]
    if missing:
        connection.execute(insert(model), missing)
    return connection.scalar(select(func.count()).select_from(model)) or 0


@click.command()
@click.argument("url")
def main(url: str) -> None:
    """Fill the shop's database at URL, any SQLAlchemy URL."""
    engine = open_engine(url)
    try:
        counts = seed(engine)
    finally:
        engine.dispose()
    click.echo(f"{counts.products} products, {counts.users} users, {counts.orders} orders")


if __name__ == "__main__":
    main()
