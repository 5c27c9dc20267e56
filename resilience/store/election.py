"""Which of the workers leads the others, and what they report to it."""

from importlib.resources import files
from typing import NamedTuple
from uuid import uuid4

from resilience.store.connection import Store
from resilience.store.flags import KEY

LEADER = "leader"
"""Key that is there while any worker leads."""
LEAD_SECONDS = 4.0
"""A worker that has not reported for so long is gone, and another one leads."""


class Standing(NamedTuple):
    """What a worker learns when it reports.

    Attributes:
        is_leader: Whether this worker leads the others.
        has_document: Whether the store has a readable state of the features.
        reports: Those of all live workers, if this one leads; else none.
    """

    is_leader: bool
    has_document: bool
    reports: tuple[bytes, ...]


class Election:
    """One worker's part in the election of the leader; see election.lua."""

    def __init__(self, store: Store) -> None:
        """Take part in *store*, under a random name; connects to nothing."""
        self._store = store
        self._worker = uuid4().hex
        self._keys = [store.key("reports"), store.key(LEADER), store.key(KEY)]
        code = files("resilience.store").joinpath("election.lua").read_text()
        self._script = store.client.register_script(code)

    def report(self, report: str) -> Standing:
        """Report, and lead for `LEAD_SECONDS` unless another worker does.

        Raises:
            StoreUnavailableError: The store does not answer.
        """
        values: list[str | int] = [self._worker, report, int(LEAD_SECONDS * 1000)]
        document, leads, *reports = self._store.run(lambda _: self._script(self._keys, values))
        return Standing(bool(leads), bool(document), tuple(reports))
