"""How many jobs of a dependency the whole fleet may run again just now."""

from importlib.resources import files

from resilience.errors import StoreUnavailableError
from resilience.store.connection import Store

WINDOW_SECONDS = 10
RAMP_FACTOR = 1.5
"""After a circuit has closed, jobs are released at a rate that grows so per second."""
LEAST_PER_SECOND = 10
"""Jobs released per second whatever the share of retries, as in Finagle's retry budget; and the
rate at which a ramp begins."""


class Releases:
    """Counts jobs and those that run again, and shares out what may be released; see release.lua.

    Without a store each process releases `LEAST_PER_SECOND` at a time on its own, and all if there
    is nothing to limit.
    """

    def __init__(self, store: Store | None) -> None:
        """Count in *store*."""
        self._store = store
        self._seen: dict[str, tuple[int, int]] = {}
        if store is not None:
            code = files("resilience.store").joinpath("release.lua").read_text()
            self._script = store.client.register_script(code)

    def count(self, dependency: str, *, again: bool) -> None:
        """Note that a worker took a job of *dependency*, and whether it ran before."""
        jobs, retries = self._seen.get(dependency, (0, 0))
        self._seen[dependency] = (jobs + 1, retries + again)

    def tell(self) -> None:
        """Tell the fleet what was noted."""
        for dependency in list(self._seen):
            self.ask(dependency, 0, share=None, closed=True)

    def ask(self, dependency: str, wanted: int, *, share: float | None, closed: bool) -> int:
        """Return how many of *wanted* jobs may be released now.

        Args:
            dependency: Whose jobs.
            wanted: How many are due.
            share: Most retries per job of the last `WINDOW_SECONDS`; None: no limit.
            closed: Whether its circuit is.
        """
        store = self._store
        alone = wanted if share is None and closed else min(wanted, LEAST_PER_SECOND)
        if store is None:
            return alone
        keys = [store.key("flow", dependency)]
        limit = -1 if share is None else share
        seen = self._seen.pop(dependency, (0, 0))
        values = [*seen, wanted, limit, LEAST_PER_SECOND, int(closed), RAMP_FACTOR, WINDOW_SECONDS]
        try:
            granted: int = store.run(lambda _: self._script(keys=keys, args=values))
        except StoreUnavailableError:
            return alone
        return granted
