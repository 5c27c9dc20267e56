"""Checks that all processes of an app keep their jobs in one ledger."""

import threading
from collections.abc import Mapping
from weakref import WeakKeyDictionary, proxy

from resilience.clock import SystemClock
from resilience.errors import (
    ConfigurationError,
    LedgerUnavailableError,
    SchemaError,
    StoreUnavailableError,
)
from resilience.events import SecondLedgerFound
from resilience.store.ledgers import Ledgers, Mode
from resilience.tasks.resilience import Resilience
from resilience.text import get_logger

logger = get_logger(__name__)

AGAIN_SECONDS = 10.0
"""How often a process that runs compares: the store may have been flushed, or come back."""
START_SECONDS = 5.0
"""How long a process tries to compare when it starts, and can still be stopped."""
LOOK_SECONDS = 0.2
"""Pause between two tries at the start."""
AWAY = (StoreUnavailableError, LedgerUnavailableError, SchemaError)
"""Errors with which nothing can be compared: the process goes on."""
RELATIVE = (
    "the ledger %s is relative to the directory in which a process starts: one that starts "
    "elsewhere opens another ledger, whose jobs nobody runs; set RESILIENCE_LEDGER_URL to an "
    "absolute address, the same for all processes of the app"
)


class LedgerCheck:
    """Compares this process's ledger with that of the app's other processes, through the store.

    Where there is no store nothing is compared.
    """

    def __init__(self, resilience: Resilience) -> None:
        """Check for the app of *resilience*; nothing is compared yet."""
        # Weak, as the check is kept for as long as the app is.
        self._resilience: Resilience = proxy(resilience)
        self._lock = threading.Lock()
        self._next = 0.0
        self._warned = False
        self._announced = False

    @staticmethod
    def of(resilience: Resilience) -> "LedgerCheck":
        """Return the check of this process."""
        return _checks.setdefault(resilience, LedgerCheck(resilience))

    def join(self) -> None:
        """Let the others know of this process's ledger, which is to publish or to run jobs.

        Raises:
            ConfigurationError: They have another ledger.
        """
        self._warn_of_relative()
        self._refuse("join", patience_seconds=START_SECONDS)

    def look(self) -> None:
        """Compare, and change nothing in the store.

        Raises:
            ConfigurationError: The others have another ledger.
        """
        self._refuse("look")

    def accept(self) -> None:
        """Make this process's ledger the app's ledger.

        Raises:
            StoreUnavailableError: The store does not answer; or the ledger's errors.
            ConfigurationError: There is no store.
        """
        self._others("accept")

    def rejoin(self) -> None:
        """Compare again, if it is time, and announce another ledger; for a process that runs."""
        if self._is_time():
            self._announce("join")

    def look_after_keeping(self) -> None:
        """Compare after a publisher has kept a job, if it is time, and announce another ledger.

        A publisher is not asked to stop, as the job is safe where it is.
        """
        self._warn_of_relative()
        if self._is_time():
            self._announce("look")

    def _is_time(self) -> bool:
        now = SystemClock.monotonic()
        with self._lock:
            due = now >= self._next
            if due:
                self._next = now + AGAIN_SECONDS
        return due

    def _refuse(self, mode: Mode, *, patience_seconds: float = 0.0) -> None:
        if self._resilience.why_no_store is not None:
            return
        until = SystemClock.monotonic() + patience_seconds
        while (second := self._compared(mode, until)) is None:
            threading.Event().wait(LOOK_SECONDS)
        if second:
            raise ConfigurationError(second)

    def _compared(self, mode: Mode, until: float) -> str | None:
        """Return the error text about another ledger, empty if there is none; None: ask again."""
        try:
            others = self._others(mode)
            return _second(self._resilience.ledger.identity().place, others) if others else ""
        except AWAY as error:
            if SystemClock.monotonic() < until:
                return None
            logger.warning("the ledger is not compared with that of other processes: %s", error)
            return ""

    def _announce(self, mode: Mode) -> None:
        try:
            self._refuse(mode)
        except ConfigurationError as error:
            if not self._announced:
                self._announced = True
                self._resilience.announce(SecondLedgerFound(error=str(error)))

    def _others(self, mode: Mode) -> Mapping[str, str]:
        resilience = self._resilience
        identity = resilience.ledger.identity()
        return Ledgers(resilience.store).compare(
            [one.queue for one in resilience.dependencies.values()],
            ledger=identity.id,
            host=identity.host,
            place=identity.place,
            mode=mode,
        )

    def _warn_of_relative(self) -> None:
        from resilience.ledger.engines import is_relative  # noqa: PLC0415 - see resilience.ledger

        url = self._resilience.settings.ledger_url
        if not self._warned and is_relative(url):
            logger.warning(RELATIVE, url)
        self._warned = True


def uses_ledger(resilience: Resilience) -> bool:
    """Tell whether any task keeps its jobs, or the keys of those that ran, in the ledger.

    Tasks of other apps do not count, which Celery registers with every app of a process.
    """
    own = {None, *resilience.dependencies}
    return any(
        getattr(task, "_kept", False) or getattr(task, "idempotency_key", None)
        for task in resilience.app.tasks.values()
        if getattr(task, "dependency", None) in own
    )


def _second(own: str, others: Mapping[str, str]) -> str:
    places = " and ".join(sorted(set(others.values())))
    return (
        f"this process keeps its jobs in the ledger {own}, and other processes of the app keep "
        f"those of {', '.join(others)} in {places}: what one of them keeps the other never runs. "
        "Set RESILIENCE_LEDGER_URL to one address for all processes. If the ledger was replaced on "
        "purpose: celery -A <app> resilience ledger accept. If these are two apps, give each a "
        "RESILIENCE_NAMESPACE of its own"
    )


_checks: WeakKeyDictionary[Resilience, LedgerCheck] = WeakKeyDictionary()
