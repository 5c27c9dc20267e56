"""Reports what a worker sees, and lets one of the workers shed and restore features for all."""

import platform
from collections.abc import Iterator, Sequence
from contextlib import suppress

from resilience.breaker.keeper import NOT_ADMITTED
from resilience.broker.beside import Outage
from resilience.clock import SystemClock
from resilience.errors import (
    LedgerUnavailableError,
    SchemaError,
    StoreUnavailableError,
    UnkeepableError,
)
from resilience.events import Event
from resilience.flags.controller import LOAD, Reading, step
from resilience.flags.document import OPEN, Cost, Document, TrialPlan
from resilience.flags.flags import Flags
from resilience.flags.reports import (
    JOBS_MIN,
    Histogram,
    JobTimes,
    Report,
    median_load,
    p95,
)
from resilience.flags.syncing import sync_orders
from resilience.flags.trial import SEND_SECONDS, conclude_trial, judge
from resilience.store.election import Election
from resilience.tasks.resilience import Resilience
from resilience.text import get_logger
from resilience.worker.beside import BesideWorker

logger = get_logger(__name__)

REPORT_SECONDS = 1.0
"""How often a worker reports."""
KEEP_AGAIN_SECONDS = 10.0
"""A ledger that did not answer the leader is asked again after so long."""
PATIENCE_SECONDS = 3.0
"""A leader without a document waits this long for a worker that has one."""


class Shedding(BesideWorker):
    """Reports in one exchange a second; the worker that leads needs two more."""

    thread_name = "shedding"
    _times: JobTimes
    _election: Election
    _lead_since: float | None = None
    _kept = -1  # version of the document whose orders are in the ledger
    _keep_at = float("-inf")
    _unkept: Outage

    def wanted(self, resilience: Resilience) -> bool:
        """Tell whether there are features to shed, and a store to meet the other workers in."""
        if not resilience.features or resilience.why_no_store is not None:
            return False
        self._times = resilience.job_times = JobTimes()
        self._election = Election(resilience.store)
        self._unkept = Outage(
            logger,
            "orders about features are not kept",
            "orders about features are kept again",
        )
        return True

    def look(self, resilience: Resilience) -> float:
        """Report; return the seconds until the next report."""
        with suppress(StoreUnavailableError):  # the store said so once; look again
            self._report(resilience)
        return REPORT_SECONDS

    def _report(self, resilience: Resilience) -> None:
        report = self._times.report(platform.node())
        standing = self._election.report(report.model_dump_json())
        flags, now = resilience.flags, SystemClock.monotonic()
        since = self._lead_since = (self._lead_since or now) if standing.is_leader else None
        has_copy = flags.version >= 0
        if has_copy and (flags.is_lost or not standing.has_document):
            flags.change(_write_back)
        if since is None:
            return
        if not has_copy:
            if now - since < PATIENCE_SECONDS:
                return
            flags.change(_write_first)
        lead(resilience, Report.all_of(standing.reports))
        self._keep(resilience, now)

    def _keep(self, resilience: Resilience, now: float) -> None:
        """Let store and ledger have the same orders, whenever the document is another one."""
        if resilience.flags.version == self._kept or now < self._keep_at:
            return
        self._keep_at = now + KEEP_AGAIN_SECONDS
        try:
            sync_orders(resilience.flags, resilience.ledger.orders)
        except (LedgerUnavailableError, SchemaError, UnkeepableError) as error:
            self._unkept.note(error)
        else:
            self._unkept.note(None)
            self._kept, self._keep_at = resilience.flags.version, now


def _write_back(_document: Document, _now: float) -> None:
    """Change nothing: `Flags.change` gives a store without a document this process's copy."""


def _write_first(document: Document, _now: float) -> Document:
    """Write the first document of the fleet, in which nothing is agreed."""
    return document


def lead(resilience: Resilience, reports: Sequence[Report]) -> None:
    """Do what one worker does for all. A failing duty does not stop the others."""
    for duty in (follow_provider, conclude_trials, shed_and_restore):
        try:
            duty(resilience, reports)
        except StoreUnavailableError:
            continue  # said already
        except Exception:
            logger.exception("leading: %s", duty.__name__)


def follow_provider(resilience: Resilience, _reports: Sequence[Report]) -> None:
    """Make orders of what the flags of a provider say, if the app follows one.

    Raises:
        StoreUnavailableError: The orders did not reach the fleet.
    """
    if resilience.intent is not None:
        resilience.intent.look(resilience.flags, resilience.announce)


def conclude_trials(resilience: Resilience, _reports: Sequence[Report]) -> None:
    """End the trials that are to end, and announce what they found.

    Raises:
        StoreUnavailableError: The fleet could not agree.
    """
    flags, now = resilience.flags, resilience.fleet_time()
    for name, plan in flags.document.trials.items():
        over = now >= plan.until + 2 * SEND_SECONDS  # the last samples are in
        verdict = judge(name, plan, flags.counted(plan), now, over=over)
        if verdict is not None:
            event, cost = verdict
            if _conclude(flags, name, plan, cost):
                resilience.announce(event)


def _conclude(flags: Flags, name: str, plan: TrialPlan, cost: Cost | None) -> bool:
    """Forget a trial; return False if it is gone, as another worker led and was faster.

    Raises:
        StoreUnavailableError: The fleet could not agree.
    """
    made: list[Document | None] = [None]

    def edit(document: Document, now: float) -> Document | None:
        made[0] = conclude_trial(name, plan, cost, document, now)
        return made[0]

    flags.change(edit)
    return made[0] is not None


def shed_and_restore(resilience: Resilience, reports: Sequence[Report]) -> None:
    """Switch what the controller wants to be switched, and announce it.

    Raises:
        StoreUnavailableError: The fleet could not agree.
    """
    readings = list(measure(resilience, reports))
    said: list[Event] = []

    def edit(document: Document, now: float) -> Document | None:
        policy = resilience.shedding_policy
        made, said[:] = step(resilience.features, document, readings, now, policy)
        return made

    resilience.flags.change(edit)
    for event in said:
        resilience.announce(event)


def measure(resilience: Resilience, reports: Sequence[Report]) -> Iterator[Reading]:
    """Read all rules of the policy; of each dependency that a feature needs, the worst first."""
    policy = resilience.shedding_policy
    features = resilience.features.values()
    for name in dict.fromkeys(name for one in features for name in one.depends_on):
        known = resilience.dependencies[name]
        refusing = resilience.breaker(name).known_state in NOT_ADMITTED
        yield Reading(rule=f"{OPEN}{name}", measured=float(refusing), threshold=1.0)
        held = resilience.holds.known(name, resilience.fleet_time()) is not None
        yield Reading(rule=f"held:{name}", measured=float(held), threshold=1.0)
        if known.max_queue is not None and policy.depth_share is not None:
            share = resilience.admission.depth_share(name)
            yield Reading(rule=f"depth:{name}", measured=share, threshold=policy.depth_share)
        if policy.age_seconds is not None:
            waits = [one.waits for one in reports]
            yield p95_reading(waits, name, f"age:{name}", policy.age_seconds)
        if known.timeout is not None and policy.p95_share is not None:
            runs = [one.runs for one in reports]
            yield p95_reading(runs, name, f"p95:{name}", policy.p95_share * known.timeout)
    if policy.load is not None:
        yield Reading(rule=LOAD, measured=median_load(reports), threshold=policy.load)


def p95_reading(histograms: Sequence[Histogram], name: str, rule: str, threshold: float) -> Reading:
    """Return the reading of a rule about times; too few jobs shed nothing."""
    seconds, jobs = p95(histograms, name)
    if jobs < JOBS_MIN:
        seconds = min(seconds, 0.9 * threshold)
    return Reading(rule=rule, measured=seconds, threshold=threshold)
