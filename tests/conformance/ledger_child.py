"""What processes do to a ledger that are killed, or that do it at the same time."""

import os
import signal
from collections.abc import Callable
from itertools import count
from multiprocessing.context import ForkServerProcess
from multiprocessing.queues import Queue

from sqlalchemy import Engine, event

from resilience.ledger import Ledger, Which
from tests.conformance.ledger_jobs import failure, job
from tests.preloaded import FORKSERVER

LONG = 600.0
SECONDS = 120.0
Step = Callable[[Ledger], object]

CONTEXT = FORKSERVER


def add(ledger: Ledger) -> None:
    """Keep three jobs."""
    ledger.add([job("a"), job("b"), job("c")])


def take(ledger: Ledger) -> None:
    """Take them, with leases that are over at once."""
    ledger.take(9, owner="killed", lease_seconds=0.0)


def park(ledger: Ledger) -> None:
    """Park a job that the ledger does not know."""
    ledger.park(job("new"), delay_seconds=0.0, error=failure())


def park_again(ledger: Ledger) -> None:
    """Park a job that was dispatched once."""
    ledger.park(job("a", dispatches=1), delay_seconds=0.0, error=failure())


def bury(ledger: Ledger) -> None:
    """Give a job up that was dispatched once."""
    ledger.bury(job("a", dispatches=1), reason="exhausted", error=failure())


def finish(ledger: Ledger) -> None:
    """Forget two jobs."""
    ledger.finish(["a", "b"])


def replay(ledger: Ledger) -> None:
    """Replay all dead letters, in two transactions."""
    numbers = count()
    ids = (f"{os.getpid()}-{number}" for number in numbers)
    ledger.letters.replay(
        Which(), actor="ann", reason="why", new_id=lambda: next(ids), limit=10_000
    )


def discard(ledger: Ledger) -> None:
    """Discard all dead letters."""
    ledger.letters.discard(Which(), actor="ann", reason="why", limit=10_000)


def claim(ledger: Ledger) -> None:
    """Claim a key for good, and record what came of it."""
    ledger.claims.claim("k", owner="o", lease_seconds=LONG)
    ledger.claims.complete("k", owner="o", result="1", keep_seconds=LONG)


def die_before(url: str, step: Step, number: int) -> None:
    """Do *step*, but kill the process before the statement or commit of that number."""
    ledger = Ledger(url, timeout_seconds=SECONDS)
    ledger.counts()  # the schema has been looked at
    left = iter(range(number, -1, -1))

    def tick(*_: object) -> None:
        if next(left, 1) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "before_cursor_execute", tick)
    event.listen(Engine, "commit", tick)
    event.listen(Engine, "checkout", tick)  # before a statement that the driver executes itself
    step(ledger)


def take_all(url: str, owner: str, found: "Queue[list[str]]") -> None:
    """Take jobs, three at a time, until there are none, and say which."""
    ledger = Ledger(url, timeout_seconds=SECONDS)
    ids: list[str] = []
    while jobs := ledger.take(3, owner=owner, lease_seconds=LONG):
        ids += [one.id for one in jobs]
    found.put(ids)


def replay_all(url: str, owner: str, found: "Queue[list[str]]") -> None:
    """Replay all dead letters, and say which."""
    ledger = Ledger(url, timeout_seconds=SECONDS)
    numbers = count()
    replayed = ledger.letters.replay(
        Which(), actor=owner, reason="why", new_id=lambda: f"{owner}-{next(numbers)}", limit=10_000
    )
    found.put([*replayed])


def claim_all(url: str, owner: str, found: "Queue[list[str]]") -> None:
    """Claim a hundred keys and say which were free."""
    ledger = Ledger(url, timeout_seconds=SECONDS)
    keys = [f"k{number}" for number in range(100)]
    claims = {key: ledger.claims.claim(key, owner=owner, lease_seconds=LONG) for key in keys}
    found.put([key for key, claim in claims.items() if type(claim).__name__ == "Claimed"])


def first_use(url: str, owner: str, found: "Queue[list[str]]") -> None:
    """Keep a job in a database that may not exist yet."""
    Ledger(url, timeout_seconds=SECONDS).add([job(owner)])
    found.put([owner])


def started(target: Callable[..., None], *arguments: object) -> ForkServerProcess:
    """Return a process that runs *target*."""
    process = CONTEXT.Process(target=target, args=arguments)
    process.start()
    return process


def together(target: Callable[..., None], url: str, number: int) -> list[list[str]]:
    """Run *target* in so many processes at once; return what each has put."""
    found: Queue[list[str]] = CONTEXT.Queue()
    processes = [started(target, url, f"p{one}", found) for one in range(number)]
    answers = [found.get(timeout=SECONDS) for _ in processes]
    for process in processes:
        process.join(SECONDS)
        assert process.exitcode == 0
    return answers
