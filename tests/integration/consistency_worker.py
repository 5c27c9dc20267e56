"""One of the processes that read and write at once, on behalf of sessions that wander."""

from collections import deque
from dataclasses import dataclass, field, replace
from importlib import import_module
from multiprocessing.queues import Queue
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path
from random import Random
from typing import TextIO

from resilience.clock import SystemClock
from tests.history import Operation
from tests.integration.consistency_routers import Router, UnknownOutcomeError, Urls

BURST_MAX = 4
WRITES = 0.25
FAMILIAR = 0.5
"""The share of operations on a key that the session has just had."""
FAMILIAR_MAX = 3
LEAVES = 0.03
"""How often a session ends after a burst, and another begins in its place."""
SESSIONS_EACH = 3
"""So many sessions there are for each process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What all processes do together.

    Attributes:
        router: What makes a process's router of *urls*, as `module:name`.
        urls: Where the servers are.
        directory: Where each process writes its part of the history.
        operations: How many there are, over all sessions.
        processes: How many run at once.
        keys: What is read and written.
        seed: What decides who does what.
    """

    router: str
    urls: Urls
    directory: Path
    operations: int
    processes: int
    keys: tuple[str, ...]
    seed: int = 0

    @property
    def sessions(self) -> int:
        """How many there are; each is in one process at a time."""
        return SESSIONS_EACH * self.processes


@dataclass(slots=True)
class Wanderer:
    """A session on its way to the next process, and those that will take its place.

    Attributes:
        name: Which session.
        left: How many operations there are still to do.
        carried: What its router gave it for the way.
        familiar: The keys that it had last.
    """

    name: str
    left: int
    carried: str = ""
    familiar: list[str] = field(default_factory=list)


def work(
    load: Load,
    number: int,
    ready: "Queue[Wanderer | None]",
    done: "Queue[str]",
    over: Event,
    recorded: "Synchronized[int]",
) -> None:
    """Take a session, do some of its operations, send it on; None ends the process."""
    module, name = load.router.split(":")
    router: Router = getattr(import_module(module), name)(load.urls)
    with (load.directory / f"process-{number}.jsonl").open("a") as history:
        while (wanderer := ready.get()) is not None:
            with router.in_session(wanderer.name, wanderer.carried) as carry:
                left = wanderer.left
                leaves = _burst(load, router, wanderer, history)
                with recorded.get_lock():
                    recorded.value += left - wanderer.left
                wanderer.carried = carry()
            if leaves:
                first = wanderer.name.split("/")[0]
                wanderer = Wanderer(f"{first}/{wanderer.left}", wanderer.left)
            if wanderer.left > 0 and not over.is_set():
                ready.put(wanderer)
            else:
                done.put(wanderer.name)


def _burst(load: Load, router: Router, wanderer: Wanderer, history: TextIO) -> bool:
    """Do some operations, and tell whether they were the session's last."""
    random = Random(f"{load.seed} {wanderer.name} {wanderer.left}")  # noqa: S311 - a test's choices
    familiar = deque(wanderer.familiar, FAMILIAR_MAX)
    for _ in range(random.randint(1, min(BURST_MAX, wanderer.left))):
        known = familiar and random.random() < FAMILIAR
        key = random.choice(list(familiar) if known else load.keys)
        writes = random.random() < WRITES
        name = f"{wanderer.name}.{wanderer.left}" if writes else ""
        done = (
            _write(router, wanderer.name, key, name)
            if writes
            else _read(router, wanderer.name, key)
        )
        print(done.to_json(), file=history, flush=True)
        if key not in familiar:
            familiar.append(key)
        wanderer.left -= 1
    wanderer.familiar = list(familiar)
    return random.random() < LEAVES


def _write(router: Router, session: str, key: str, name: str) -> Operation:
    clock = SystemClock()
    started = clock.monotonic()
    done = Operation(
        session=session, op="write", key=key, write=name, started=started, ended=started
    )
    try:
        shows = _parts(router.write(key, name))
    except UnknownOutcomeError as unknown:
        done = replace(done, outcome="unknown", error=_named(unknown.__cause__ or unknown))
    except Exception as error:  # noqa: BLE001 - the history tells of all
        done = replace(done, outcome="failed", error=_named(error))
    else:
        done = replace(done, shows=shows)
    return replace(done, ended=clock.monotonic(), needed=router.needed())


def _read(router: Router, session: str, key: str) -> Operation:
    clock = SystemClock()
    started = clock.monotonic()
    done = Operation(session=session, op="read", key=key, started=started, ended=started)
    try:
        answer = router.read(key)
    except Exception as error:  # noqa: BLE001 - the history tells of all
        return replace(done, error=_named(error), ended=clock.monotonic(), needed=router.needed())
    return replace(
        done,
        shows=_parts(answer.trail),
        server=answer.server,
        marked=answer.marked,
        lag=answer.lag,
        ended=clock.monotonic(),
        needed=router.needed(),
    )


def _parts(trail: str) -> tuple[str, ...]:
    return tuple(trail.split(",")[:-1])


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:300]
