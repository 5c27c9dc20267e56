"""A worker and a publisher whose broker goes away under load, and comes back."""

import json
import signal
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from benchmarks.diary import Diary
from resilience.clock import SystemClock
from resilience.events import Event, JobKept
from resilience.ledger import Ledger
from resilience.settings import Settings
from resilience.testing.proxy import TcpProxy
from resilience.testing.stack import WorkerProcess, run_worker
from resilience.testing.waiting import wait_until
from tests.brokers import Broker
from tests.chaos.outage_app import QUEUES, make_app

APP = "tests.chaos.outage_app"
JOBS = 100
BEFORE = 20
"""So many jobs are done before anything happens."""
EVERY_SECONDS = 0.05
RESUME_SECONDS = 90.0
DONE_SECONDS = 240.0
ANSWER_SECONDS = 30.0
CONTROL_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of the jobs, and how soon.

    Attributes:
        resumed_seconds: From the broker's return until a job began that was fired after it.
        done_seconds: From the broker's return until all jobs were done.
        fired: How many there were.
        gone: Jobs that never ran, and that a broker took before it was back: what it loses is lost.
        lost: Jobs that never ran, and were kept in the ledger meanwhile, or fired later.
        twice: Jobs that ran to their end more than once.
        fire_seconds_max: The longest that `fire` took.
    """

    resumed_seconds: float
    done_seconds: float
    fired: int
    gone: int
    lost: int
    twice: int
    fire_seconds_max: float

    def __str__(self) -> str:
        """Return it as one line."""
        return " ".join(
            f"{name}={value:.1f}" if isinstance(value, float) else f"{name}={value}"
            for name, value in asdict(self).items()
        )


class Site:
    """A worker, and a publisher that fires all the time."""

    def __init__(self, home: Path, url: str, store_url: str, **options: Any) -> None:  # noqa: ANN401
        """Prepare.

        Args:
            home: For all files.
            url: Of the broker.
            store_url: Of store and result backend.
            **options: Settings of Celery.
        """
        self.diary = Diary(home / "diary")
        self.url = url
        ledger_url = f"sqlite:///{home}/ledger.sqlite3"
        namespace = uuid4().hex  # the store knows the ledgers of other stages
        self._env = {
            "CELERY_BROKER_URL": url,
            "RESILIENCE_STORE_URL": store_url,
            "RESILIENCE_LEDGER_URL": ledger_url,
            "RESILIENCE_NAMESPACE": namespace,
            "DIARY": str(home / "diary"),
            "OPTIONS": json.dumps(options),
        }
        settings = Settings(store_url=store_url, ledger_url=ledger_url, namespace=namespace)
        self.app = make_app(url, settings, self.diary, listeners=[self._hear], **options)
        self._fired: dict[int, float] = {}
        self._kept: set[str] = set()
        self._taken: set[int] = set()
        self._took: list[float] = []
        self._enough = threading.Event()

    @property
    def ledger(self) -> Ledger:
        """The app's ledger."""
        ledger: Ledger = self.app.resilience.ledger  # type: ignore[attr-defined]
        return ledger

    @contextmanager
    def working(self, pool: str = "prefork") -> Iterator[WorkerProcess]:
        """Run the worker."""
        self.ledger.upgrade()
        try:
            with run_worker(APP, queues=QUEUES, pool=pool, env=self._env) as worker:
                yield worker
                worker.kill()
        finally:
            self.close()

    def close(self) -> None:
        """Close the publisher's connections."""
        self.ledger.close()
        self.app.resilience.store.client.close()  # type: ignore[attr-defined]
        self.app.close()

    def endure(
        self,
        worker: WorkerProcess,
        strike: Callable[[], None],
        *,
        forgets: bool = False,
        jobs: int = JOBS,
    ) -> Verdict:
        """Fire jobs before, during and after *strike*, which returns when the broker is back.

        Args:
            worker: Of `working`.
            strike: The outage.
            forgets: Whether the broker then lacks what it had: nobody waits for that.
            jobs: How many are fired at least.

        Raises:
            AssertionError: The worker is another one than before, or jobs do not run.
        """
        pid = worker.pid
        self.await_answer()
        firing = threading.Thread(target=self._fire)
        firing.start()
        try:
            wait_until(lambda: len(self._seen("done")) >= BEFORE, DONE_SECONDS, "jobs run")
            strike()
            back = SystemClock.monotonic()
            wait_until(lambda: self._resumed(back), RESUME_SECONDS, "jobs run again")
            resumed = self._resumed(back) or 0.0
            wait_until(lambda: len(self._fired) >= jobs, DONE_SECONDS, "enough jobs are fired")
        finally:
            self._enough.set()
            firing.join()
        fired = {*self._fired}
        excused = {job for job in self._taken if self._fired[job] < back}
        awaited = fired - excused if forgets else fired
        with suppress(AssertionError):
            wait_until(lambda: awaited <= self._seen("done"), DONE_SECONDS, "all jobs are done")
        assert worker.running
        assert worker.pid == pid
        ends: dict[int, list[float]] = defaultdict(list)
        for line in self.diary.read():
            if line["what"] == "done":
                ends[line["job"]].append(line["at"])
        return Verdict(
            resumed_seconds=max(0.0, resumed),
            done_seconds=max(0.0, max(min(at) for at in ends.values()) - back),
            fired=len(fired),
            gone=len(excused - ends.keys()),
            lost=len(fired - excused - ends.keys()),
            twice=sum(len(at) > 1 for at in ends.values()),
            fire_seconds_max=max(self._took),
        )

    def await_settled(self, broker: Broker | None) -> None:
        """Wait until *broker* holds no job, not even for a worker."""
        assert broker is not None
        wait_until(lambda: not broker.waiting(QUEUES), DONE_SECONDS, "nothing is held")

    def await_answer(self) -> None:
        """Wait for a job's result, and for an answer of the worker's remote control."""
        answer: Any = self.app.tasks["echo"].delay("said")
        # Not `get`: redis-py never notices that a connection it listens on is a dead one.
        wait_until(answer.ready, ANSWER_SECONDS, "the result is there")
        assert answer.result == "said"
        wait_until(self._answers, CONTROL_SECONDS, "it answers")

    def _answers(self) -> bool:
        connection = self.app.connection_for_write()
        try:
            return bool(self.app.control.ping(timeout=1.0))
        except connection.connection_errors:
            return False  # Celery asked over a connection of this process that is lost, too

    def fire(self, task: str, job: int) -> bool:
        """Fire a job of *task*; return whether the broker took it: else it was kept."""
        return self.app.tasks[task].fire(job).id not in self._kept

    def _hear(self, event: Event) -> None:
        if isinstance(event, JobKept):
            self._kept.add(event.id)

    def await_begun(self, job: int) -> float:
        """Wait until *job* has begun, and return how many seconds that took."""
        began = SystemClock.monotonic()
        wait_until(lambda: job in self._seen("begun"), RESUME_SECONDS, "the job has begun")
        return SystemClock.monotonic() - began

    def _fire(self) -> None:
        job = 0
        while not self._enough.wait(EVERY_SECONDS):
            job += 1
            began = SystemClock.monotonic()
            if self.fire("work", job):
                self._taken.add(job)
            self._fired[job] = began
            self._took.append(SystemClock.monotonic() - began)

    def _seen(self, what: str) -> set[int]:
        return {line["job"] for line in self.diary.read() if line["what"] == what}

    def _resumed(self, back: float) -> float | None:
        """Return how long after *back* a job began that was fired after it; None: none has."""
        later = {job for job, at in self._fired.copy().items() if at >= back}
        begun = [line["at"] for line in self.diary.read() if line["job"] in later]
        return min(begun) - back if begun else None


class Place:
    """A broker at an address of its own, behind a proxy, and another one to fail over to.

    Attributes:
        first: Where the worker is before anything happens.
        second: Where it may be led; None: nobody needs it.
        proxy: Leads to the first.
    """

    def __init__(self, first: Broker, second: Broker | None = None) -> None:
        """Take two running brokers."""
        self.first, self.second = first, second
        self.proxy = TcpProxy(port_of(first.url))

    @property
    def behind_proxy(self) -> str:
        """The first one's address, through the proxy."""
        return self.first.url.replace(f":{port_of(self.first.url)}/", f":{self.proxy.port}/")

    @property
    def both(self) -> str:
        """The addresses of both, as Celery takes alternates."""
        assert self.second is not None
        return f"{self.first.url};{self.second.url}"

    def restart(self, away_seconds: float) -> None:
        """Kill the first one, and start it again."""
        self.first.kill()
        pause(away_seconds)
        self.first.start()

    def freeze(self, away_seconds: float) -> None:
        """Let the first one hang, with all connections open."""
        self.first.send_signal(signal.SIGSTOP)
        pause(away_seconds)
        self.first.send_signal(signal.SIGCONT)

    def swallow(self, away_seconds: float) -> None:
        """Lose all that is said; then new connections work again, and old ones never."""
        self.proxy.swallow()
        pause(away_seconds)
        self.proxy.heal()

    def forget(self) -> None:
        """Lose what is said over connections that there are; new ones work at once."""
        self.proxy.forget()

    def flush(self) -> None:
        """Let the first one forget everything."""
        self.first.flush()

    def fail(self) -> None:
        """Kill the first one for good."""
        self.first.kill()

    def move(self) -> None:
        """Kill the first one for good; its name leads to the second."""
        assert self.second is not None
        self.proxy.lead_to(port_of(self.second.url))
        self.first.kill()


def port_of(url: str) -> int:
    """Return the port in *url*."""
    return urlsplit(url).port or 0


def pause(seconds: float) -> None:
    """Let an outage last."""
    threading.Event().wait(seconds)
