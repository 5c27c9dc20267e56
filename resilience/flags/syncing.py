"""Keeps the orders in the store and those in the ledger the same."""

from collections.abc import Mapping
from typing import Protocol

from resilience.flags.document import Document, Order
from resilience.flags.flags import Flags
from resilience.flags.orders import with_orders


class OrderBook(Protocol):
    """Where orders are kept for good."""

    def keep(self, name: str, order: Order) -> None:
        """Keep *order*; harmless if it is kept already."""

    def latest(self) -> Mapping[str, Order]:
        """Return the last order of each feature."""


def sync_orders(flags: Flags, ledger: OrderBook) -> None:
    """Synchronise store and ledger. For each feature the order with the higher version wins.

    Orders of a flag provider stay out of the ledger. Writes nothing where nothing is missing.

    Raises:
        StoreUnavailableError: The store does not answer.
        LedgerUnavailableError: The ledger does not; or another error of the ledger.
    """
    latest = ledger.latest()

    def edit(now: Document, time: float) -> Document | None:
        newer = {name: one for name, one in latest.items() if _is_newer(one, now.orders.get(name))}
        if not newer:
            return None
        # The next order must be newer than any that was given before the store lost them.
        version = max(now.version, *(one.version for one in newer.values()))
        made = with_orders(now, newer, flags.features.values(), time)
        return made.model_copy(update={"version": version})

    for name, order in flags.change(edit).orders.items():
        if order.kept and _is_newer(order, latest.get(name)):
            ledger.keep(name, order)


def _is_newer(order: Order, other: Order | None) -> bool:
    return other is None or order.version > other.version
