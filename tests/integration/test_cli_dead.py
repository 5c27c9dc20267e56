"""Dead letters that an operator replays, with a real worker: paced, sampled, and never lost."""

import importlib
import json
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from celery.utils import uuid

from resilience.ledger import Job, Ledger, State
from resilience.tasks.kept import job_of
from resilience.testing.process import import_path, inherited_env
from resilience.testing.stack import run_worker
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.brokers import Broker

APP_PATH = "tests.integration.apps.letters"
SECONDS = 120.0
MANY = 10_000
KILLS = 3
ENOUGH = 50


@dataclass
class Office:
    """The app in this process, its ledger, and an operator's terminal."""

    letters: ModuleType
    valkey: ValkeyProcess
    path: Path
    env: dict[str, str]

    @property
    def ledger(self) -> Ledger:
        """The ledger of the app."""
        found: Ledger = self.letters.app.resilience.ledger
        return found

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Begin `celery … resilience dead` with *words*."""
        command = [sys.executable, "-m", "celery", "-A", APP_PATH, "resilience", "dead"]
        return subprocess.Popen(  # noqa: S603 - our own words
            [*command, *words],
            env=inherited_env({"PYTHONPATH": import_path(), **self.env}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str) -> tuple[int, dict[str, Any]]:
        """Run it with `--json`; return its exit code and what it printed."""
        process = self.start(*words, "--json")
        with process:
            out, err = process.communicate(timeout=SECONDS)
        assert "Traceback" not in err, err
        return process.returncode, json.loads(out)

    @contextmanager
    def worker(self) -> Iterator[None]:
        """Run a worker of the app."""
        with run_worker(APP_PATH, queues=self.letters.QUEUES, env=self.env):
            yield

    def bury(self, count: int) -> list[str]:
        """Make so many letters, whose jobs note the id of their letter when they run."""
        jobs = [self._job(uuid()) for _ in range(count)]
        self.ledger.add(jobs, delay_seconds=3600.0)  # else a worker's relay might be faster
        self.ask(
            "UPDATE resilience_jobs SET state = 'dead', due = NULL, died = 1000.0 + rowid,"
            " reason = 'exhausted', fingerprint = 'f' WHERE died IS NULL AND due IS NOT NULL"
        )
        return [job.id for job in jobs]

    def _job(self, name: str) -> Job:
        options = {"task_id": name, "ignore_result": True}
        deliver = self.letters.app.tasks["shop.deliver"]
        return job_of(deliver, (name,), {}, options, queue="mail.retry", ledger={}, age_seconds=0.0)

    def ask(self, statement: str) -> list[Any]:
        """Run a statement on the ledger's database, behind everybody's back."""
        with closing(sqlite3.connect(self.path, timeout=SECONDS)) as database, database:
            return database.execute(statement).fetchall()

    def count(self, state: State | None = None) -> int:
        """Return how many jobs the ledger knows, of this *state*."""
        return sum(one.jobs for one in self.ledger.counts() if state in {None, one.state})

    def ran(self) -> dict[str, int]:
        """Return how often the job of each letter has run."""
        found = self.valkey.client().hgetall(self.letters.RAN)
        return {name.decode(): int(times) for name, times in found.items()}  # type: ignore[union-attr]

    def dead(self) -> list[str]:
        """Return the letters."""
        return [one for (one,) in self.ask("SELECT id FROM resilience_jobs WHERE state = 'dead'")]

    def replayed(self) -> list[str]:
        """Return the letters that the audit says were replayed, each as often as it says so."""
        return [one for (one,) in self.ask("SELECT job FROM resilience_audit")]


@pytest.fixture
def office(
    broker: Broker, valkey: ValkeyProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Office]:
    """An office with an empty ledger and an empty broker."""
    valkey.flush()
    path = tmp_path / "ledger.sqlite3"
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
    made = Office(letters, valkey, path, env)
    yield made
    made.ledger.close()
    letters.app.resilience.store.client.close()
    letters.app.close()


def test_sample_that_dies_again_keeps_the_others_from_being_replayed(office: Office) -> None:
    """Exit code 1 while the cause is there; once it is gone the same command replays them all."""
    office.valkey.client().set(office.letters.BROKEN, "yes")
    names = office.bury(8)
    with office.worker():
        code, said = office.run("replay", "--all", "--sample", "3", "--reason", "looks well")

        assert (code, said["stopped"]) == (1, True)
        assert said["sample"] == {"done": 0, "dead": 3, "failed": 0, "under_way": 0}
        assert list(said["replayed"]) == names[:3]
        assert office.count(State.DEAD) == 8
        assert office.ran() == {}

        office.valkey.client().delete(office.letters.BROKEN)
        code, said = office.run("replay", "--all", "--sample", "3", "--reason", "it is well")

        assert (code, said["stopped"]) == (0, False)
        assert said["sample"] == {"done": 3, "dead": 0, "failed": 0, "under_way": 0}
        assert len(said["replayed"]) == 8
        wait_until(lambda: office.count() == 0, SECONDS, "all are done")
    assert office.ran() == dict.fromkeys(names, 1)
    assert max(Counter(office.replayed()).values()) == 1


def test_sample_that_does_not_end_holds_nobody_up_for_long(office: Office) -> None:
    """Without a worker it ends never: after --sample-seconds the others follow."""
    office.bury(4)

    code, said = office.run(
        *("replay", "--all", "--sample", "1", "--sample-seconds", "0.5s", "--reason", "x")
    )

    assert code == 0
    assert said["sample"] == {"done": 0, "dead": 0, "failed": 0, "under_way": 1}
    assert len(said["replayed"]) == 4
    assert office.count(State.SCHEDULED) == 4


@pytest.mark.long
@pytest.mark.timeout(300)
def test_killed_replay_loses_no_letter_and_replays_none_twice(office: Office) -> None:
    """SIGKILL in the midst of it, up to three times, then once more to its end.

    Beside a worker that runs the jobs meanwhile: every letter is dead or was replayed once, never
    both, and no job runs twice.
    """
    names = office.bury(MANY)
    command = ("replay", "--all", "--no-sample", "--rate", "1000", "--reason", "the bulk")
    cut = 0
    with office.worker():
        for _ in range(KILLS):
            before = len(office.replayed())
            with office.start(*command) as process:
                wait_until(
                    lambda: len(office.replayed()) > before or process.poll() is not None,  # noqa: B023 - called here
                    SECONDS,
                    "it has begun",
                )
                process.kill()
            dead, replayed = office.dead(), office.replayed()
            assert sorted(dead + replayed) == sorted(names)
            cut += 0 < len(dead) < MANY
        assert cut, "no kill fell into the replay"

        code, _ = office.run(*command)
        wait_until(lambda: len(office.ran()) > ENOUGH, SECONDS, "some have run")

    assert code == 0
    assert office.dead() == []
    assert sorted(office.replayed()) == sorted(names)
    assert set(office.ran().values()) == {1}
    assert set(office.ran()) <= set(names)
