"""What all tasks of an adopted app share, by name."""

from typing import TYPE_CHECKING

from resilience.bulkhead import Holds, Spares
from resilience.consistency.shared import SharedPositions
from resilience.errors import ConfigurationError
from resilience.faults import Injector
from resilience.flags import Flags
from resilience.flags.faults import Faults
from resilience.pulse import Pulse
from resilience.store import Answers, FanIn, Releases, Store
from resilience.store.absent import NoStore
from resilience.tasks.shared import Shared

if TYPE_CHECKING:
    from resilience.ledger import Ledger


class Sharing:
    """The part of `Resilience` that names what is shared."""

    def _share(self) -> Shared:
        """Return what is shared; made when it is needed first."""
        raise NotImplementedError

    @property
    def store(self) -> Store:
        """The shared store.

        Raises:
            ConfigurationError: No setting says where it is.
        """
        store = self._share().store
        if isinstance(store, NoStore):
            raise ConfigurationError(store.why)
        return store

    @property
    def why_no_store(self) -> str | None:
        """What to set, if no setting says where the store is; then processes share nothing.

        Raises:
            ConfigurationError: A setting says it in a form that is none.
        """
        store = self._share().store
        return store.why if isinstance(store, NoStore) else None

    @property
    def answers(self) -> Answers:
        """Remembered answers, for `fallback.cached`; without a store there are none."""
        return self._share().answers

    @property
    def ledger(self) -> "Ledger":
        """Where jobs are kept that must not get lost."""
        return self._share().ledger()

    @property
    def releases(self) -> Releases:
        """What runs again, and how much more of that the dependencies can take."""
        return self._share().releases

    @property
    def holds(self) -> Holds:
        """Queues that somebody ordered to be held."""
        return self._share().holds

    @property
    def spares(self) -> Spares:
        """Which jobs failed only because they went ahead as probes."""
        return self._share().spares

    @property
    def flags(self) -> Flags:
        """Which features are on, and orders to switch them."""
        return self._share().flags

    @property
    def faults(self) -> Faults:
        """Which faults are in force, and orders of them; see docs/chaos.md."""
        return self._share().faults

    @property
    def injector(self) -> Injector | None:
        """What injects faults into the calls of this process; None unless `RESILIENCE_CHAOS=1`."""
        return self._share().injector

    @property
    def pulse(self) -> Pulse:
        """What connects this process's breakers with those of the others."""
        return self._share().pulse

    @property
    def positions(self) -> SharedPositions:
        """How far primaries are, as others saw it; orders about replicas; records of many."""
        return self._share().positions

    @property
    def fan_in(self) -> FanIn:
        """Where fan-outs collect their parts.

        Raises:
            ConfigurationError: No setting says where the store is.
        """
        if (found := self._share().fan_in) is None:
            raise ConfigurationError(self.why_no_store)
        return found

    def fleet_time(self, **options: float) -> float:
        """Return seconds since the epoch by the clock of all processes; see `Pulse.time`."""
        return self._share().pulse.time(**options)
