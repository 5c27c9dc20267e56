"""Publishes what waits in the ledger once it is due."""

import os
import platform
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from resilience.breaker import State
from resilience.broker.beside import Outage
from resilience.consistency import Token
from resilience.errors import (
    ConfigurationError,
    LedgerUnavailableError,
    SchemaError,
    text_of,
)
from resilience.events import JobsPublished
from resilience.ledger import Job
from resilience.tasks.admission import depth_of
from resilience.tasks.fire import FireAndForgetTask
from resilience.tasks.kept import give_up, publish_kept
from resilience.tasks.ledger_check import LedgerCheck, uses_ledger
from resilience.tasks.positions import primaries_now
from resilience.tasks.publishing import BROKER_ERRORS
from resilience.tasks.resilience import Resilience
from resilience.text import get_logger
from resilience.worker.beside import BesideWorker

logger = get_logger(__name__)

BATCH = 500
"""Most jobs that a relay takes at once."""
DEPTH_MAX = 2000
"""Nothing is published to a retry queue that holds so many: it would only wait there."""
LOOK_SECONDS = 0.5
"""How often a relay looks when nothing is due."""
BACK_OFF_SECONDS = 0.5
BACK_OFF_SECONDS_MAX = 5.0


NOT_CLOSED = (State.OPEN, State.HALF_OPEN, State.FORCED_OPEN)


class Relay:
    """Takes due jobs from the ledger and publishes them.

    Any number may run: each job is one relay's for as long as its lease lasts. When the database
    or the broker is away it asks again, ever more seldom, up to every five seconds.
    """

    def __init__(self, resilience: Resilience) -> None:
        """Work for the app of *resilience*."""
        self._resilience = resilience
        self._owner = f"{platform.node()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._back_off = BACK_OFF_SECONDS
        self._outage = Outage(logger, "the relay cannot go on", "the relay goes on")
        self._limited: set[str] = set()
        self._told: set[str] = set()

    def look(self) -> float:
        """Publish what is due; return the seconds until the next look."""
        try:
            jobs = self._take()
            if jobs:
                self._publish(jobs)
        except (LedgerUnavailableError, SchemaError, ConfigurationError, *BROKER_ERRORS) as error:
            return self._again(error)
        self._outage.note(None)
        self._back_off = BACK_OFF_SECONDS
        return 0.0 if len(jobs) == BATCH else LOOK_SECONDS

    def _publish(self, jobs: list[Job]) -> None:
        """Publish *jobs*; those that the broker did not take for sure are due again.

        One whose queue cannot be has to wait until its lease runs out: due before, it would come
        first again.

        Raises:
            Exception: The broker's.
        """
        back = jobs
        try:
            with self._producer() as producer:
                refused = self._declare(producer, {job.queue for job in jobs})
                sent = [job for job in jobs if job.queue not in refused]
                # The transactions of jobs that have never run are committed by now, so these jobs
                # must see where the primary is. A job that has run carries that already.
                new = any(not job.attempts for job in sent)
                seen = primaries_now(self._resilience) if new else None
                with producer.batch(BATCH):
                    for job in sent:
                        self._publish_one(producer, job, None if job.attempts else seen)
            back = []
        finally:
            self._resilience.ledger.give_back(back, owner=self._owner)
        if sent:
            due = min(job.due or 0.0 for job in sent)
            waited = max(0.0, self._resilience.fleet_time() - due)
            self._resilience.announce(JobsPublished(jobs=len(sent), seconds=waited))

    def _declare(self, producer: Any, names: Iterable[str]) -> set[str]:  # noqa: ANN401 - kombu's
        """Declare queues; return those that cannot be, which must not keep others waiting."""
        refused = set()
        for name in names:
            try:
                with suppress(KeyError):  # the app knows it no more, as will be said of its jobs
                    producer.maybe_declare(self._resilience.app.amqp.queues[name])
            except ConfigurationError as error:
                refused.add(name)
                self._tell(error)
        return refused

    @contextmanager
    def _producer(self) -> Iterator[Any]:
        """Yield a producer whose broker's errors are those of `PUBLISH_ERRORS`."""
        with (
            self._resilience.app.producer_or_acquire(None) as producer,
            producer.connection._reraise_as_library_errors(),  # noqa: SLF001 - as Celery does
        ):
            yield producer

    def _publish_one(self, producer: Any, job: Job, seen: Token | None) -> None:  # noqa: ANN401 - kombu's
        try:
            publish_kept(self._resilience.app, producer, job, seen)
        except (ConfigurationError, *BROKER_ERRORS, *producer.connection.connection_errors):
            raise
        except Exception as error:
            # One that cannot be published must not keep the others from it.
            logger.exception("job %s of the ledger", job.id)
            give_up(self._resilience, job, "unpublishable", error)

    def _take(self) -> list[Job]:
        """Return what is due and may run again now, longest due first."""
        names = set(self._resilience.dependencies)
        # Most looks find nothing: the fleet is asked only if a circuit may matter.
        held = self._refusing() if self._may_refuse() else set()
        limited = self._limited - held
        jobs = self._due(BATCH, held | limited)
        try:
            if jobs:
                jobs = self._but_for(self._refusing(), jobs)
            jobs = self._within_limits(jobs)
            for name in limited:
                most = self._granted(name, BATCH, retries=True)
                more = self._due(most, names - {name}) if most else []
                if len(more) < most:
                    self._limited.discard(name)
                jobs += more
            ready = [job for job in jobs if self._lets_in(job)]
        except BaseException:
            self._resilience.ledger.give_back(jobs, owner=self._owner)
            raise
        chosen = {job.id for job in ready}
        full = [job for job in jobs if job.id not in chosen]
        self._resilience.ledger.give_back(full, owner=self._owner)
        return ready

    def _but_for(self, refusing: set[str], jobs: list[Job]) -> list[Job]:
        """Return *jobs* without those of *refusing*, which are due as they were."""
        refused = [job for job in jobs if job.dependency in refusing]
        self._resilience.ledger.give_back(refused, owner=self._owner)
        return [job for job in jobs if job.dependency not in refusing]

    def _lets_in(self, job: Job) -> bool:
        return self._resilience.admission.lets_in(job.dependency, job.queue)

    def _due(self, most: int, held: set[str]) -> list[Job]:
        return self._resilience.ledger.take(
            most,
            owner=self._owner,
            lease_seconds=self._resilience.settings.ledger_lease_seconds,
            held=held,
            full=self._resilience.admission.full_queues(),
        )

    def _within_limits(self, jobs: list[Job]) -> list[Job]:
        """Return those of *jobs* that may run now; the others are due as they were."""
        now: list[Job] = []
        for name in {job.dependency for job in jobs}:
            own = [job for job in jobs if job.dependency == name]
            again = [job for job in own if _runs_again(job)]
            first = [job for job in own if not _runs_again(job)]
            ready = first[: self._granted(name, len(first), retries=False)]
            ready += again[: self._granted(name, len(again), retries=True)]
            if len(ready) < len(own):
                self._limited.add(name)
            now += ready
        chosen = {job.id for job in now}
        later = [job for job in jobs if job.id not in chosen]
        self._resilience.ledger.give_back(later, owner=self._owner)
        return now

    def _granted(self, name: str, wanted: int, *, retries: bool) -> int:
        """Return how many of *wanted* jobs of a dependency may run now."""
        known = self._resilience.dependencies.get(name)
        if known is None or not wanted:
            return wanted
        most = DEPTH_MAX if known.max_queue is None else min(DEPTH_MAX, known.max_queue)
        try:
            with self._producer() as producer:
                if depth_of(self._resilience.app, producer, known.retry_queue) >= most:
                    return 0
        except ConfigurationError as error:
            self._tell(error)
            return 0
        return self._resilience.releases.ask(
            name,
            wanted,
            share=known.retry_share if retries else None,
            closed=self._resilience.breaker(name).state not in NOT_CLOSED,
        )

    def _refusing(self) -> set[str]:
        """Return the dependencies whose circuit lets no call through."""
        return {
            name
            for name in self._resilience.dependencies
            if self._resilience.breaker(name).refusal() is not None
        }

    def _may_refuse(self) -> bool:
        """Tell whether a circuit is open as far as this process knows, without asking the fleet."""
        breakers = map(self._resilience.breaker, self._resilience.dependencies)
        return any(one.known_state in NOT_CLOSED for one in breakers)

    def _tell(self, error: ConfigurationError) -> None:
        text = text_of(error)
        if text not in self._told:
            logger.error("the relay leaves jobs in the ledger: %s", text)
        self._told.add(text)

    def _again(self, error: BaseException) -> float:
        self._outage.note(error)
        wait, self._back_off = self._back_off, min(2 * self._back_off, BACK_OFF_SECONDS_MAX)
        return wait


def _runs_again(job: Job) -> bool:
    """Tell whether *job* ran before: one that was refused, or never published, has not."""
    return job.attempts > 0 or job.dispatches > 1


class LedgerRelay(BesideWorker):
    """A relay in a worker, if the app has tasks whose jobs the ledger keeps."""

    thread_name = "ledger-relay"
    _relay: Relay | None = None

    def start(self, parent: Any) -> None:  # noqa: ANN401 - Celery's signature
        """Start to look, unless other processes of the app have another ledger.

        Raises:
            ConfigurationError: They have; the worker then ends.
        """
        resilience = Resilience.of(parent.app)
        if uses_ledger(resilience):
            LedgerCheck.of(resilience).join()
        super().start(parent)

    def wanted(self, resilience: Resilience) -> bool:
        """Tell whether any task of the app is kept in the ledger."""
        return any_kept(resilience.app.tasks.values())

    def look(self, resilience: Resilience) -> float:
        """Publish what is due; return the seconds until the next look."""
        if self._relay is None:
            self._relay = Relay(resilience)
        LedgerCheck.of(resilience).rejoin()
        resilience.releases.tell()
        return self._relay.look()


def any_kept(tasks: Iterable[object]) -> bool:
    """Tell whether any of *tasks* is kept in the ledger."""
    return any(isinstance(task, FireAndForgetTask) for task in tasks)
