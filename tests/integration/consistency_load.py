"""A load of many processes on a primary and its replicas, whose links fail at random."""

import json
import threading
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from queue import Empty
from random import Random

from resilience.clock import SystemClock
from resilience.testing.proxy import TcpProxy
from resilience.testing.waiting import wait_until
from tests.history import Operation, Violation, read_history, violations
from tests.integration.consistency_worker import Load, Wanderer, work
from tests.preloaded import FORKSERVER

POLL_SECONDS = 0.01
DEAD_SECONDS = 1.0
"""How often the processes are looked after."""
EXIT_SECONDS = 30.0
MORE_SECONDS = 60.0
PAUSES = (5, 50)
"""So many operations are done between two faults…"""
PAUSE_SECONDS = 1.0
"""…but if they take longer, the next one comes."""
SLOWNESS = (0.01, 0.2)
FAULTS = {"resume": 4, "stall": 2, "slow": 2, "cut": 1}
"""What happens to a link next, and how often."""


@contextmanager
def nemesis(links: Sequence[TcpProxy], seed: int, run: "Run") -> Iterator[None]:
    """Stall, cut, slow and resume *links* at random while a block runs; then resume all.

    What happens next waits for operations of the *run*, so that a slow machine sees as much of it.
    """
    over = threading.Event()

    def torment() -> None:
        random = Random(seed)  # noqa: S311 - a test's choices
        due, clock = 0, SystemClock()
        late = clock.monotonic()
        while not over.wait(POLL_SECONDS):
            if run.recorded < due and clock.monotonic() < late:
                continue
            due, late = run.recorded + random.randint(*PAUSES), clock.monotonic() + PAUSE_SECONDS
            link = random.choice(links)
            (fault,) = random.choices(list(FAULTS), list(FAULTS.values()))
            if fault == "slow":
                link.slow(random.uniform(*SLOWNESS))
            else:
                getattr(link, fault)()

    thread = threading.Thread(target=torment, name="nemesis")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        for link in links:
            link.resume()


class Run:
    """A load under way."""

    def __init__(self, load: Load) -> None:
        """Prepare; `running` starts the processes."""
        self._load = load
        self._ready = FORKSERVER.Queue()
        self._done = FORKSERVER.Queue()
        self._over = FORKSERVER.Event()
        self._recorded = FORKSERVER.Value("Q")
        self._processes: list[ForkServerProcess] = [
            FORKSERVER.Process(
                target=work,
                args=(load, number, self._ready, self._done, self._over, self._recorded),
            )
            for number in range(load.processes)
        ]

    @property
    def recorded(self) -> int:
        """How many operations are over."""
        return int(self._recorded.value)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the processes; at the end of the block wait for the last operation."""
        for process in self._processes:
            process.start()
        each, more = divmod(self._load.operations, self._load.sessions)
        for number in range(self._load.sessions):
            self._ready.put(Wanderer(f"s{number}", each + (number < more)))
        try:
            yield
            self._await_sessions()
        finally:
            for _ in self._processes:
                self._ready.put(None)
            for process in self._processes:
                process.join(EXIT_SECONDS)
                process.kill()
                process.join()
            for queue in (self._ready, self._done):
                queue.close()
                queue.join_thread()

    def _await_sessions(self) -> None:
        awaited = self._load.sessions
        while awaited:
            try:
                self._done.get(timeout=DEAD_SECONDS)
                awaited -= 1
            except Empty:
                if any(process.exitcode is not None for process in self._processes):
                    msg = "a process of the load has died; see its traceback on standard error"
                    raise RuntimeError(msg) from None

    def stop(self) -> None:
        """Let the sessions end before they have done all their operations."""
        self._over.set()

    def await_more(self, operations: int) -> None:
        """Wait until so many operations more are recorded than there are now."""
        enough = self.recorded + operations
        wait_until(lambda: self.recorded >= enough, MORE_SECONDS, f"{operations} more are done")

    def await_write(self) -> None:
        """Wait until a write is committed that begins after now."""
        now = SystemClock().monotonic()

        def is_written() -> bool:
            return any(
                one.op == "write" and one.outcome == "ok" and one.started > now
                for one in self.history()
            )

        wait_until(is_written, MORE_SECONDS, "a write is committed")

    def history(self) -> list[Operation]:
        """Return what all processes have recorded so far."""
        return read_history(sorted(self._load.directory.glob("process-*.jsonl")))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a history shows."""

    history: list[Operation]
    violations: list[Violation]
    replicas: Collection[str]
    lost: Collection[str] = ()

    @classmethod
    def of(
        cls, history: list[Operation], replicas: Collection[str], *, lost: Collection[str] = ()
    ) -> "Verdict":
        """Check *history*; *replicas* are the servers that count as such."""
        return cls(history, violations(history, lost=lost), replicas, lost)

    @property
    def answered(self) -> list[Operation]:
        """Reads that were answered."""
        return [one for one in self.history if one.op == "read" and not one.error]

    @property
    def replica_share(self) -> float:
        """The share of the answered reads that replicas answered."""
        answered = self.answered
        return sum(one.server in self.replicas for one in answered) / max(1, len(answered))

    def summary(self) -> str:
        """Return a line of JSON for people."""
        marked = [one for one in self.answered if one.marked]
        began = min((one.started for one in self.history), default=0.0)
        seconds = max((one.ended for one in self.history), default=0.0) - began
        return json.dumps(
            {
                "operations": len(self.history),
                "seconds": round(seconds, 1),
                "violations": dict(Counter(one.guarantee for one in self.violations)),
                "reads": len(self.answered),
                "replica_share": round(self.replica_share, 3),
                "marked": len(marked),
                "of_unknown_lag": sum(one.lag is None for one in marked),
                "lost": len(self.lost),
                "errors": dict(
                    Counter(
                        f"{one.op} {one.error.split(':')[0]}" for one in self.history if one.error
                    )
                ),
            }
        )
