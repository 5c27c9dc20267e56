"""Reports of the workers, and which of them leads the others."""

from importlib.resources import files
from typing import NamedTuple
from uuid import uuid4

from resilience.store.connection import Store
from resilience.store.flags import KEY

LEAD_SECONDS = 4.0
"""A worker that has not reported for so long is gone, and another one leads."""


class Lead(NamedTuple):
    """What a worker that has reported learns.

    Attributes:
        leads: Whether it leads the others.
        kept: Whether the store keeps a state of the features.
        reports: Those of all live workers, its own among them, if it leads; else none.
    """

    leads: bool
    kept: bool
    reports: tuple[bytes, ...]


class Reports:
    """Where one worker reports; see shedding.lua."""

    def __init__(self, store: Store) -> None:
        """Report to *store* under a name of its own; connects to nothing."""
        self._store = store
        self._worker = uuid4().hex
        self._keys = [store.key("reports"), store.key("leader"), store.key(KEY)]
        code = files("resilience.store").joinpath("shedding.lua").read_text()
        self._script = store.client.register_script(code)

    def send(self, report: str) -> Lead:
        """Report, and lead if nobody else does; for `LEAD_SECONDS`.

        Raises:
            StoreUnavailableError: The store does not answer.
        """
        values: list[str | int] = [self._worker, report, int(LEAD_SECONDS * 1000)]
        kept, leads, *reports = self._store.run(lambda _: self._script(self._keys, values))
        return Lead(bool(leads), bool(kept), tuple(reports))
