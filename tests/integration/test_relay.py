"""What one look of a relay publishes, and what it leaves in the ledger."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery

from resilience.breaker import BreakerPolicy
from resilience.dependency import Dependency
from resilience.ledger import State
from resilience.settings import Settings
from resilience.tasks import FireAndForgetTask, Resilience
from resilience.tasks.kept import job_of
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from resilience.worker.relay import Relay
from tests.brokers import Broker

SECONDS = 120
BY: dict[str, Any] = {"actor": "ann", "reason": "maintenance"}
RETRIES = 100
FIRST_CALLS = 250
"""Jobs that the fleet runs for the first time, within ten seconds."""


def nothing() -> None:
    """Run."""


class Office:
    """An adopted app whose ledger keeps jobs, its relay, and the broker that it publishes to."""

    def __init__(
        self, broker: Broker, store_url: str, path: Path, *, namespace: str | None = None
    ) -> None:
        """Declare three dependencies, each with a task of its name."""
        self.broker = broker
        self.app: Celery[Any] = Celery("office", broker=broker.url, set_as_current=False)
        policy = BreakerPolicy(open_seconds=60.0, open_seconds_max=60.0)
        self.resilience = Resilience(
            self.app,
            dependencies=[
                Dependency("mail", breaker=policy, retry_share=0.2),
                Dependency("sms", retry_share=0.0),
                Dependency("bank", retry_share=None),
            ],
            settings=Settings(
                store_url=store_url,
                namespace=namespace or uuid4().hex,
                store_timeout_seconds=10.0,
                ledger_url=f"sqlite:///{path}/ledger.db",
                ledger_lease_seconds=600,
            ),
        )
        for name in ("mail", "sms", "bank"):
            declare = self.app.task(
                base=FireAndForgetTask, dependency=name, name=name, shared=False
            )
            declare(nothing)
        self.ledger = self.resilience.ledger
        self.ledger.upgrade()
        self.relay = Relay(self.resilience)

    def close(self) -> None:
        """End all connections."""
        self.resilience.store.client.close()
        self.ledger.close()
        self.app.close()

    def park(self, name: str, jobs: int) -> None:
        """Let the ledger keep so many *jobs* that have failed once and are due again."""
        for _ in range(jobs):
            self.ledger.park(self._job(name, f"{name}.retry"), delay_seconds=0, error=OSError())

    def keep(self, name: str, jobs: int) -> None:
        """Let the ledger keep so many *jobs* that the broker did not take."""
        self.ledger.add(self._job(name, name) for _ in range(jobs))

    def _job(self, name: str, queue: str) -> Any:  # noqa: ANN401 - a Job
        task, options = self.app.tasks[name], {"task_id": uuid4().hex}
        return job_of(task, [], {}, options, queue=queue, ledger={}, age_seconds=0.0)

    def published(self, name: str) -> tuple[int, int]:
        """Return how many jobs of *name* wait in its queue, and how many in that of retries."""
        return self.broker.kept(name), self.broker.kept(f"{name}.retry")

    def waiting(self) -> dict[str, int]:
        """Return how many jobs the ledger has that nobody has published, by dependency."""
        unpublished = (State.OUTBOX, State.SCHEDULED)
        counts: dict[str, int] = {}
        for one in self.ledger.counts():
            if one.state in unpublished:
                counts[one.dependency] = counts.get(one.dependency, 0) + one.jobs
        return counts


@pytest.fixture
def office(broker: Broker, valkey: ValkeyProcess, tmp_path: Path) -> Iterator[Office]:
    """An app of which nobody has heard."""
    office = Office(broker, valkey.url, tmp_path)
    yield office
    office.close()


def test_relay_publishes_nothing_while_the_circuit_is_open(office: Office) -> None:
    """Jobs of a dependency whose circuit is open stay where they are; those of others go."""
    office.park("mail", 15)
    office.keep("mail", 15)
    office.park("bank", 5)
    breaker = office.resilience.breaker("mail")
    breaker.force_open(seconds=60, **BY)

    office.relay.look()
    office.relay.look()

    assert office.waiting() == {"mail": 30}
    wait_until(lambda: office.published("bank") == (0, 5), SECONDS, "others are published")
    assert office.published("mail") == (0, 0)

    breaker.reset(**BY)
    office.relay.look()

    assert office.waiting().get("mail", 0) < 30


def test_relay_that_finds_nothing_asks_the_ledger_alone(office: Office) -> None:
    """An idle worker's looks cost the store nothing."""
    office.relay.look()
    sent = office.resilience.pulse.sent

    for _ in range(5):
        office.relay.look()

    assert office.resilience.pulse.sent == sent


def test_relay_learns_of_an_open_circuit_before_it_publishes(
    office: Office, valkey: ValkeyProcess, tmp_path: Path
) -> None:
    """Another process opened it since this relay last asked; the jobs are due as they were."""
    office.relay.look()
    settings = office.resilience.settings
    other = Office(office.broker, valkey.url, tmp_path, namespace=settings.namespace)
    other.resilience.breaker("mail").force_open(seconds=60, **BY)
    office.park("mail", 5)
    office.park("bank", 5)

    office.relay.look()

    assert office.waiting() == {"mail": 5}
    other.close()


def test_relay_publishes_no_more_retries_than_their_share(office: Office) -> None:
    """Of 250 jobs within ten seconds, a share of 0.2 lets 50 run again, and new ones all run."""
    office.park("mail", RETRIES)
    office.keep("mail", 50)
    for _ in range(FIRST_CALLS):
        office.resilience.releases.count("mail", again=False)

    office.relay.look()

    assert office.waiting() == {"mail": RETRIES - 50}
    wait_until(lambda: office.published("mail") == (50, 50), SECONDS, "they are published")


@pytest.mark.parametrize(("name", "left"), [("sms", RETRIES - 10), ("bank", 0)])
def test_relay_publishes_ten_retries_whatever_their_share_and_all_without_one(
    office: Office, name: str, left: int
) -> None:
    """A share of 0 lets ten a second run again; None lets all."""
    office.park(name, RETRIES)
    for _ in range(FIRST_CALLS):
        office.resilience.releases.count(name, again=False)

    office.relay.look()

    assert office.waiting().get(name, 0) == left
