"""Brings orders back into a store that has lost them."""

from collections.abc import Mapping
from typing import Any, Protocol

from resilience.flags.document import BROWNOUT, BrownoutOrder, Document, Order
from resilience.flags.flags import Flags
from resilience.flags.orders import Edit, with_brownout


class OrderBook(Protocol):
    """Where orders are kept for good."""

    def keep(self, name: str, order: Order | BrownoutOrder) -> None:
        """Keep *order*; harmless if it is kept already."""

    def latest(self) -> Mapping[str, Order | BrownoutOrder]:
        """Return the last order of each feature."""


def restore_orders(flags: Flags, kept: OrderBook) -> None:
    """Let the store and *kept* have the same orders: of each feature the one with the last version.

    Harmless if they have. The store is left alone if it lacks nothing.

    Raises:
        StoreUnavailableError: The store does not answer.
        LedgerUnavailableError: *kept* does not; or another error of the ledger.
    """
    latest = kept.latest()
    document = flags.change(_restored(latest, flags))
    for name, order in _orders(document).items():
        if name not in latest or latest[name].version < order.version:
            kept.keep(name, order)


def _orders(document: Document) -> dict[str, Order | BrownoutOrder]:
    brownout = {} if document.brownout is None else {BROWNOUT: document.brownout}
    return {**document.orders, **brownout}


def _restored(latest: Mapping[str, Any], flags: Flags) -> Edit:
    def edit(now: Document, time: float) -> Document | None:
        old = {name: order.version for name, order in _orders(now).items()}
        newer = {name: one for name, one in latest.items() if one.version > old.get(name, -1)}
        if not newer:
            return None
        # The next order must be newer than any that was given before the store lost them.
        version = max(now.version, *(one.version for one in newer.values()))
        brownout = newer.pop(BROWNOUT, None)
        orders = {**now.orders, **newer}
        made = now.model_copy(update={"orders": orders, "version": version})
        if brownout is None:
            return made
        return with_brownout(made, brownout, flags.features.values(), time)

    return edit
