"""Orders about features: who ordered what, when and why. None is ever changed or deleted."""

from collections.abc import Iterable
from contextlib import suppress

from pydantic import ValidationError
from sqlalchemy import RowMapping, func, select

from resilience.flags.document import Order
from resilience.ledger.database import Database
from resilience.ledger.tables import ORDERS

HISTORY_LIMIT = 100


class Orders:
    """The orders of one namespace, by name of the feature; `brownout` stands for brownouts.

    Apps with namespaces of their own may share a ledger. Versions of their orders have nothing to
    do with each other.
    """

    def __init__(self, database: Database, namespace: str) -> None:
        """Keep those of *namespace* in *database*."""
        self._database = database
        self._namespace = namespace
        self._new = database.insert_new(ORDERS)
        orders = ORDERS.c
        last = select(orders.feature, func.max(orders.version).label("version"))
        self._ours = orders.namespace == namespace
        newest = last.where(self._ours).group_by(orders.feature).subquery()
        same = (orders.feature == newest.c.feature) & (orders.version == newest.c.version)
        self._latest = select(ORDERS).join(newest, same & self._ours)

    def keep(self, name: str, order: Order) -> None:
        """Keep *order*; harmless if it is kept already."""
        row = order.model_dump(exclude={"state", "kept"})
        row |= {"namespace": self._namespace, "feature": name, "order": str(order.state)}
        self._database.change(self._new, row)

    def latest(self) -> dict[str, Order]:
        """Return the last order of each feature, whether it is still in force or not."""
        with self._database.reading() as connection:
            rows = connection.execute(self._latest).mappings().all()
        return dict(_read(rows))

    def history(self, name: str, *, limit: int = HISTORY_LIMIT) -> list[Order]:
        """Return the last *limit* orders of the feature called *name*, newest first."""
        orders = select(ORDERS).where(self._ours, ORDERS.c.feature == name)
        orders = orders.order_by(ORDERS.c.version.desc())
        with self._database.reading() as connection:
            rows = connection.execute(orders.limit(limit)).mappings().all()
        return [order for _, order in _read(rows)]

    def recent(self, *, limit: int) -> list[tuple[str, Order]]:
        """Return the last *limit* orders of all features with their names, newest first."""
        orders = select(ORDERS).where(self._ours).order_by(ORDERS.c.number.desc()).limit(limit)
        with self._database.reading() as connection:
            return _read(connection.execute(orders).mappings().all())


def _read(rows: Iterable[RowMapping]) -> list[tuple[str, Order]]:
    """Return names and orders of *rows*; one that somebody has changed by hand is left out."""
    found = []
    for row in rows:
        with suppress(ValidationError):
            found.append((row["feature"], Order.model_validate({**row, "state": row["order"]})))
    return found
