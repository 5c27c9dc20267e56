"""Which ledger keeps the jobs of each queue, as the processes of an app agree on it."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Literal

from resilience.store.connection import Store

HOST_SECONDS = 30
"""A host that has not joined again for so long may have been restarted, or replaced by another."""

Mode = Literal["look", "join", "accept"]


class Ledgers:
    """Compares ledgers through the store; see ledgers.lua."""

    def __init__(self, store: Store) -> None:
        """Compare in *store*."""
        self._store = store
        code = files("resilience.store").joinpath("ledgers.lua").read_text()
        self._script = store.client.register_script(code)

    def compare(
        self, queues: Sequence[str], *, ledger: str, host: str, place: str, mode: Mode
    ) -> Mapping[str, str]:
        """Return where the jobs of those *queues* are kept that another ledger keeps.

        Args:
            queues: Whose jobs this process may keep.
            ledger: Identity of this process's ledger.
            host: Of the ledger's file; empty for a database server.
            place: Where the ledger is, for people.
            mode: `look` only compares; `join` also makes this ledger known to others, if none
                differs; `accept` makes it the ledger of the queues, whatever that was before.

        Raises:
            StoreUnavailableError: The store does not answer.
        """
        values: list[str | int] = [ledger, host, place, mode, HOST_SECONDS, *queues]
        key = self._store.key("ledgers")
        found: list[bytes] = self._store.run(lambda _: self._script([key], values))
        names = [one.decode(errors="replace") for one in found]
        return dict(zip(names[::2], names[1::2], strict=True))
