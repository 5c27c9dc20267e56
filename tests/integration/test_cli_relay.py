"""A relay in a process of its own: it publishes what waits, and ends when it is asked to."""

import importlib
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
from sqlalchemy import create_engine

from resilience.ledger import State
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.brokers import Broker, running_broker
from tests.foreground import Foreground, foreground

APP_PATH = "tests.integration.apps.letters"
COMMAND = [sys.executable, "-m", "celery", "-A", APP_PATH, "resilience", "relay"]
SECONDS = 120.0
JOBS = 1200


@dataclass
class Relaying:
    """A relay, its broker, and the app in this process."""

    relay: Foreground
    broker: Broker
    path: Path
    letters: ModuleType

    def keep(self, count: int) -> None:
        """Put so many jobs into the outbox, in one transaction."""
        deliver = self.letters.app.tasks["shop.deliver"]
        engine = create_engine(f"sqlite:///{self.path}")
        with engine.begin() as connection:
            for number in range(count):
                deliver.publish_with(connection, (f"job-{number}",))
        engine.dispose()

    def counts(self) -> dict[str, int]:
        """Return how many jobs the ledger holds, by state."""
        return {one.state: one.jobs for one in self.letters.app.resilience.ledger.counts()}

    def queued(self) -> int:
        """Return how many messages wait at the broker."""
        return self.broker.kept("mail")


@pytest.fixture
def relaying(
    valkey: ValkeyProcess,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Relaying]:
    """A relay that runs, with nothing to do."""
    path = tmp_path / "ledger.sqlite3"
    valkey.flush()  # it knows the ledger of another test
    with ExitStack() as stack:
        broker = stack.enter_context(running_broker(tmp_path_factory))
        env = {
            "BROKER_URL": broker.url,
            "STORE_URL": valkey.url,
            "LEDGER_URL": f"sqlite:///{path}",
        }
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        sys.modules.pop(APP_PATH, None)  # it reads the variables when it is imported
        letters = importlib.import_module(APP_PATH)
        letters.app.resilience.ledger.upgrade()
        relay = stack.enter_context(foreground(COMMAND, tmp_path, env))
        relay.wait_for("the relay runs")
        yield Relaying(relay, broker, path, letters)
        letters.app.resilience.ledger.close()
        letters.app.resilience.store.client.close()
        letters.app.close()


def test_relay_finishes_its_batch_and_ends_when_it_is_asked_to(relaying: Relaying) -> None:
    """Exit code 0; what the ledger calls dispatched is at the broker, all else is as it was."""
    relaying.keep(JOBS)
    wait_until(relaying.queued, SECONDS, "the first batch is under way")

    relaying.relay.signal(signal.SIGTERM)

    assert relaying.relay.wait() == 0, relaying.relay.output
    assert "Traceback" not in relaying.relay.output
    counts = relaying.counts()
    assert relaying.queued() == counts[State.DISPATCHED]
    assert counts.get(State.OUTBOX, 0) == JOBS - relaying.queued()
    assert "the relay has stopped" in relaying.relay.output


def test_relay_outlives_broker_and_database(relaying: Relaying) -> None:
    """While either is away it asks again; back, all is published, and Ctrl-C ends it."""
    relaying.broker.stop()
    relaying.keep(3)
    relaying.relay.wait_for("the relay cannot go on")
    with closing(sqlite3.connect(relaying.path, isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        relaying.broker.start()
        relaying.relay.wait_for("LedgerUnavailableError")
        database.execute("ROLLBACK")

    relaying.relay.wait_for("the relay goes on")

    wait_until(lambda: relaying.queued() == 3, SECONDS, "all are published")
    relaying.relay.signal(signal.SIGINT)
    assert relaying.relay.wait() == 0
