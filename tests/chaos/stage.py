"""Workers, a relay, a broker and a database, any of which may be killed."""

import sqlite3
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import psutil
import psycopg
from celery.result import AsyncResult

from benchmarks.diary import Diary
from resilience.errors import LedgerUnavailableError
from resilience.ledger import Ledger, State, Which
from resilience.settings import Settings
from resilience.testing import announce
from resilience.testing.postgres import PostgresProcess
from resilience.testing.process import ServerProcess, import_path
from resilience.testing.rabbitmq import RabbitProcess
from resilience.testing.stack import WorkerProcess, run_worker
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.brokers import Broker, Rabbit, Valkey
from tests.chaos.jobs import QUEUE, make_app
from tests.chaos.verdict import Verdict, judge

LEASE_SECONDS = 20.0
PAUSE_SECONDS_MAX = 0.1
CHILDREN = 2
OUTAGE_SECONDS_MAX = 2.0
"""How long the broker is away, or the file of the database locked."""
MOMENT_SECONDS_MAX = 1.0
ACCEPT_SECONDS = 60.0
CHILD_SECONDS = 30.0
QUEUES = (QUEUE, f"{QUEUE}.retry")
KINDS = ("worker", "worker", "child", "relay", "broker", "database")


class Stage:
    """Two workers, a relay beside them, a broker that keeps what it took, and a ledger.

    Attributes:
        broker: Its append-only file is written before it answers.
        diary: What really ran.
        killed: Processes that were killed.
        strikes: What was killed, in order.
        died: How often a worker ended by itself, and was started again, as a supervisor does:
            Celery's may do that when it loses a Redis broker while it holds messages.
    """

    def __init__(
        self,
        home: Path,
        postgres: PostgresProcess | None = None,
        *,
        rabbitmq: RabbitProcess | None = None,
        lease_seconds: float = LEASE_SECONDS,
        pause_seconds_max: float = PAUSE_SECONDS_MAX,
    ) -> None:
        """Prepare, with a ledger in *postgres*, or in a file of SQLite.

        Args:
            home: For all files.
            postgres: Running; None: SQLite.
            rabbitmq: The broker; None: Valkey, which is the store as well.
            lease_seconds: Of a job that a relay has published.
            pause_seconds_max: Half of what a job takes at most.
        """
        self.store = ValkeyProcess(home / "valkey")
        self.broker: Broker = Rabbit(rabbitmq) if rabbitmq else Valkey(self.store)
        self._on_valkey = rabbitmq is None
        self.diary = Diary(home / "diary", durable=True)
        self.killed: set[int] = set()
        self.strikes: list[str] = []
        self.died = 0
        self._seen: dict[int, set[int]] = {}
        self._home, self._postgres = home, postgres
        self._lease_seconds, self._pause_seconds_max = lease_seconds, pause_seconds_max
        self._file = home / "ledger.sqlite3"
        self._url = postgres.new_database() if postgres else f"sqlite:///{self._file}"
        self._workers: list[WorkerProcess] = []
        env = {**self._env, "PYTHONPATH": import_path()}
        self._relay = ServerProcess(
            [sys.executable, "-m", "tests.chaos.relay"],
            ready=announce.READY,
            log_path=home / "relay.log",
            env=env,
        )
        settings = Settings(
            ledger_url=self._url, ledger_lease_seconds=lease_seconds, store_url=self.store.url
        )
        self.app = make_app(self.broker.url, settings, self.diary)
        self._plain: list[str] = []
        self._once: list[str] = []

    @property
    def _env(self) -> dict[str, str]:
        return {
            "CELERY_BROKER_URL": self.broker.url,
            "DIARY": str(self._home / "diary"),
            "PAUSE_SECONDS_MAX": str(self._pause_seconds_max),
            "RESILIENCE_STORE_URL": self.store.url,
            "RESILIENCE_LEDGER_URL": self._url,
            "RESILIENCE_LEDGER_LEASE_SECONDS": str(self._lease_seconds),
        }

    @property
    def ledger(self) -> Ledger:
        """The app's ledger."""
        ledger: Ledger = self.app.resilience.ledger  # type: ignore[attr-defined]
        return ledger

    @contextmanager
    def running(self) -> Iterator["Stage"]:
        """Start all, and stop it."""
        with ExitStack() as stack:
            self.store.start()
            stack.callback(self.store.stop)
            self.ledger.upgrade()
            stack.callback(self._close)
            for _ in range(2):
                worker = stack.enter_context(
                    run_worker(
                        "tests.chaos.app",
                        queues=QUEUES,
                        concurrency=CHILDREN,
                        env=self._env,
                        loglevel="WARNING",
                    )
                )
                stack.callback(worker.kill)
                self._workers.append(worker)
            self._relay.start()
            stack.callback(self._relay.kill)
            yield self

    def fire(self, number: int, *, countdown: float | None = None) -> None:
        """Fire job *number*; every second one is idempotent. Again until it is accepted."""
        task: Any = self.app.tasks["once" if number % 2 else "plain"]

        def accepted() -> AsyncResult[Any] | None:
            with suppress(LedgerUnavailableError):
                return task.apply_async((number,), countdown=countdown)
            return None

        fired = wait_until(accepted, ACCEPT_SECONDS, f"job {number} is accepted")
        (self._once if number % 2 else self._plain).append(str(fired.id))

    def strike(self, kind: str, random: Random) -> None:
        """Kill something of that *kind*, and start it again; database: cut off its clients."""
        strikes: dict[str, Callable[[Random], None]] = {
            "worker": self._kill_worker,
            "child": self._kill_child,
            "relay": self._kill_relay,
            "broker": self._kill_broker,
            "database": self._cut_connections if self._postgres else self._lock_file,
        }
        self._supervise()
        strikes[kind](random)
        self.strikes.append(kind)

    def await_end(self, seconds: float) -> Verdict:
        """Wait until nothing is left to do, and return what became of all jobs."""
        wait_until(self._idle, seconds, "nothing is left to do")
        return self.verdict()

    def verdict(self) -> Verdict:
        """Return what became of all jobs so far."""
        return judge(
            self.diary.read(),
            plain=self._plain,
            once=self._once,
            dead=[letter.id for letter in self.ledger.letters.find(Which(), limit=100_000)],
            killed=self.killed,
        )

    def history(self, jobs: Collection[str]) -> list[dict[str, Any]]:
        """Return what *jobs* wrote down, and whether the process that did so was killed."""
        lines = (line for line in self.diary.read() if line["job"] in jobs)
        return [{**line, "killed": line["pid"] in self.killed} for line in lines]

    def _idle(self) -> bool:
        """Tell whether broker and ledger hold nothing that is still to be done."""
        self._supervise()
        if self.broker.waiting(QUEUES):
            return False
        return all(count.state is State.DEAD for count in self.ledger.counts())

    def _supervise(self) -> None:
        for number, worker in enumerate(self._workers):
            if not worker.running:
                self.died += 1
                self.killed |= self._seen[number]
                worker.start()
            self._seen[number] = {worker.pid, *worker.children()}

    def _kill(self, process: ServerProcess) -> None:
        self.killed.update([process.pid, *process.children()])
        process.kill()
        process.start()

    def _kill_worker(self, random: Random) -> None:
        self._kill(random.choice(self._workers))

    def _kill_child(self, random: Random) -> None:
        worker = random.choice(self._workers)
        children = wait_until(worker.children, CHILD_SECONDS, "the worker has children")
        child = psutil.Process(random.choice(children))
        self.killed.add(child.pid)
        child.kill()

    def _kill_relay(self, _: Random) -> None:
        self._kill(self._relay)

    def _kill_broker(self, random: Random) -> None:
        self.broker.kill()
        threading.Event().wait(random.uniform(0.0, OUTAGE_SECONDS_MAX))
        self.broker.start()

    def _cut_connections(self, _: Random) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'celery-resilience' AND datname = current_database()"
            )

    def _lock_file(self, random: Random) -> None:
        connection = sqlite3.connect(self._file, timeout=10.0, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        threading.Event().wait(random.uniform(0.0, OUTAGE_SECONDS_MAX))
        connection.rollback()
        connection.close()

    def _close(self) -> None:
        self.ledger.close()
        self.app.resilience.store.client.close()  # type: ignore[attr-defined]
        self.app.close()


def survive(
    stage: Stage, *, jobs: int, strikes: Sequence[str], random: Random, seconds: float
) -> Verdict:
    """Fire *jobs*, a share of them around each of *strikes*, and return what became of them.

    Args:
        stage: Running.
        jobs: How many.
        strikes: What to kill, one after the other, each at a random moment.
        random: Where the moments come from.
        seconds: How long the jobs may take to end after the last strike.
    """
    shares = [range(jobs)[place :: len(strikes)] for place in range(len(strikes))]
    for kind, numbers in zip(strikes, shares, strict=True):
        with ThreadPoolExecutor(1) as threads:
            fired = threads.submit(_fire_all, stage, numbers)
            threading.Event().wait(random.uniform(0.0, MOMENT_SECONDS_MAX))
            stage.strike(kind, random)
            fired.result()
    return stage.await_end(seconds)


def _fire_all(stage: Stage, numbers: Sequence[int]) -> None:
    """Fire over the whole moment in which something is killed, however quick the machine is."""
    pause = threading.Event()
    for number in numbers:
        stage.fire(number)
        pause.wait(MOMENT_SECONDS_MAX / len(numbers))
