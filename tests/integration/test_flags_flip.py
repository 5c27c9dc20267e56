"""A flip reaches every kind of process within a second: forked, threaded, evented, web, idle."""

import importlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from resilience.clock import SystemClock
from resilience.errors import StoreUnavailableError
from resilience.testing.plugin import running_valkey
from resilience.testing.ports import LOCALHOST, free_port
from resilience.testing.process import ServerProcess, import_path, inherited_env
from resilience.testing.stack import WorkerProcess, run_worker
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until

APP = "tests.integration.apps.flip"
POOLS = {"prefork": 2, "threads": 2, "gevent": 2, "solo": 1}
BOUND_SECONDS = 1.0
PROBE_SECONDS = 1.5
"""A store that was down is looked for once a second."""
PHASE_SECONDS = 1.3
"""Longer than the bound: a process that looks once a phase knows nothing fresh."""
STORE_TIMEOUT_SECONDS = 0.5
POLL_SECONDS = 0.05
"""Between two requests to the web process, each of which takes more time than an answer itself."""
WHO: dict[str, Any] = {"actor": "ann", "reason": "drill"}
SECONDS = 120.0
monotonic = SystemClock.monotonic

Seen = list[tuple[bool, float, float]]


@dataclass(frozen=True, slots=True)
class Flip:
    """A change of what holds.

    Attributes:
        soonest: When it may hold: it was being ordered.
        at: When it holds: it was ordered.
        value: What holds.
        within: How late it may come, in seconds.
    """

    soonest: float
    at: float
    value: bool
    within: float


class Record:
    """Flips, and what each process answered meanwhile.

    Attributes:
        flips: In order.
        seen: By kind, for each process: answers, and from when until when they were asked for.
        lags: Longest lags of the web process's event loop, and of a thread beside it, in seconds;
            by what happened.
    """

    def __init__(self) -> None:
        """Nothing happened yet."""
        self.flips: list[Flip] = []
        self.seen: dict[str, list[Seen]] = {}
        self.lags: dict[str, tuple[float, float]] = {}

    def late(self, kind: str) -> list[float]:
        """Return for how long each flip did not reach the slowest process of *kind*."""
        ends = [*(flip.soonest for flip in self.flips[1:]), float("inf")]
        worst = []
        for flip, end in zip(self.flips, ends, strict=True):
            wrong = [
                min(last, end) - flip.at
                for process in self.seen[kind]
                for answer, first, last in process
                if answer != flip.value and last > flip.at and first < end
            ]
            worst.append(max(wrong, default=0.0))
        return worst


class Stage:
    """Servers and processes that evaluate, and the app of somebody who gives orders."""

    def __init__(
        self, stack: ExitStack, store: ValkeyProcess, path: Path, env: dict[str, str]
    ) -> None:
        """Start them."""
        self.stack, self.store, self.path, self.env = stack, store, path, env
        self.record = Record()
        self.module: ModuleType = importlib.import_module(APP)
        self.module.app.conf.update(
            broker_url=env["CELERY_BROKER_URL"], result_backend=env["CELERY_BROKER_URL"]
        )
        stack.callback(self.module.app.close)
        stack.callback(self.module.resilience.store.client.close)
        self.end = path / "end"
        workers = [self._worker(pool, pool, number) for pool, number in POOLS.items()]
        recycled = self._worker("recycled", "prefork", 1, ["--max-tasks-per-child", "1"])
        enter_all(stack, [*workers, recycled])
        watch = self.module.watch
        self.jobs = {
            pool: [watch.apply_async((str(self.end),), queue=pool) for _ in range(number)]
            for pool, number in POOLS.items()
        }
        self.forked = self._script("fork", str(self.end))
        self.idle = self._script("idle")
        self.web = self._web()
        for script in (self.forked, self.idle):
            assert script.stdout is not None
            assert script.stdout.readline() == "ready\n"
        expected = sum(POOLS.values()) + self.module.CHILDREN
        wait_until(lambda: len(list(path.glob("end-*"))) == expected, SECONDS, "all evaluate")

    def _worker(
        self, queue: str, pool: str, concurrency: int, extra: Sequence[str] = ()
    ) -> AbstractContextManager[WorkerProcess]:
        env = {**self.env, **({"EVALUATE_BEFORE_FORK": "1"} if extra else {})}
        return run_worker(
            APP, queues=[queue], pool=pool, concurrency=concurrency, env=env, extra=extra
        )

    def _script(self, *args: str) -> subprocess.Popen[str]:
        process = self.stack.enter_context(
            subprocess.Popen(  # noqa: S603 - of this directory
                [sys.executable, "-m", APP, *args],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=inherited_env(self.env),
            )
        )
        self.stack.callback(process.kill)
        return process

    def _web(self) -> httpx.Client:
        port = free_port()
        server = ServerProcess(
            [sys.executable, "-m", "uvicorn", f"{APP}_web:web", "--port", str(port)],
            ready="Uvicorn running",
            log_path=self.path / "web.log",
            env=self.env,
        )
        server.start()
        self.stack.callback(server.kill)
        client = httpx.Client(base_url=f"http://{LOCALHOST}:{port}", timeout=SECONDS)
        return self.stack.enter_context(client)

    def flip(self, state: str, *, seconds: float = 600.0, within: float = BOUND_SECONDS) -> None:
        """Order the feature, and ask everybody who is asked once a phase."""
        soonest = monotonic()
        self.module.resilience.flags.order("ranking", state, seconds=seconds, **WHO)
        self.record.flips.append(Flip(soonest, monotonic(), state == "on", within))
        self.ask()

    def ask(self) -> None:
        """Ask those that have asked the store for longer than the bound."""
        asked = monotonic()
        value = self._ask_idle()
        self.record.seen.setdefault("idle", [[]])[0].append((value, asked, asked))

    def ask_children(self) -> None:
        """Ask a child that was forked before the flip, and one that was forked since."""
        seen = self.record.seen.setdefault("recycled", [[]])[0]
        for _ in range(2):
            value, at, _ = self.module.look.apply_async(queue="recycled").get(timeout=SECONDS)
            seen.append((value, at, at))

    def _ask_idle(self) -> bool:
        assert self.idle.stdin is not None
        assert self.idle.stdout is not None
        self.idle.stdin.write("\n")
        self.idle.stdin.flush()
        return bool(json.loads(self.idle.stdout.readline()))

    def pass_time(self, seconds: float = PHASE_SECONDS) -> None:
        """Let everybody evaluate for a while."""
        until = monotonic() + seconds
        wait_until(lambda: monotonic() > until, SECONDS, "time has passed")

    def measure_lag(self, what: str) -> None:
        """Take the lags of the web process for what has just happened."""
        self.record.lags[what] = self.web.get("/lags").json()

    def gather(self) -> None:
        """Let all processes end, and take what they have seen."""
        self.end.touch()
        for kind, jobs in self.jobs.items():
            self.record.seen[kind] = [job.get(timeout=SECONDS) for job in jobs]
        assert self.forked.stdout is not None
        assert self.forked.stdin is not None
        self.forked.stdin.close()
        self.record.seen["forked"] = json.loads(self.forked.stdout.read())


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Record]:
    """Flips in both directions, one that ends by itself, and an outage, seen by all at once."""
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        store, desk = (stack.enter_context(running_valkey(tmp_path_factory)) for _ in range(2))
        env = {
            "CELERY_BROKER_URL": desk.url,
            "CELERY_RESULT_BACKEND": desk.url,
            "RESILIENCE_STORE_URL": store.url,
            # A loaded machine may take more than the tenth of a second after which it is lost.
            "RESILIENCE_STORE_TIMEOUT_SECONDS": str(STORE_TIMEOUT_SECONDS),
            "PYTHONPATH": import_path(),
        }
        for name, value in env.items():
            patch.setenv(name, value)
        stage = Stage(stack, store, tmp_path_factory.mktemp("flip"), env)
        polling = threading.Thread(target=_poll, args=(stage,))
        polling.start()
        _play(stage)
        stage.gather()
        polling.join()
        yield stage.record


def _poll(stage: Stage) -> None:
    seen = stage.record.seen
    seen.update({"web": [[]], "web degradable": [[]]})
    while not stage.end.exists():
        stage.module.ask(seen["web"][0], lambda: stage.web.get("/plain").json())
        stage.module.ask(seen["web degradable"][0], lambda: stage.web.get("/degradable").json())
        threading.Event().wait(POLL_SECONDS)


def enter_all(stack: ExitStack, managers: Sequence[AbstractContextManager[WorkerProcess]]) -> None:
    """Enter them side by side, as most of a start is to import."""
    with ThreadPoolExecutor(len(managers)) as pool:
        entered = {manager: pool.submit(manager.__enter__) for manager in managers}
    for manager, future in entered.items():
        if future.exception() is None:
            stack.push(manager)
            stack.callback(future.result().kill)  # how it shuts down is no matter
    for future in entered.values():
        future.result()


def _play(stage: Stage) -> None:
    record = stage.record
    stage.ask()
    stage.ask_children()
    stage.pass_time()
    stage.measure_lag("start")
    for state in ("off", "on"):
        stage.flip(state)
        stage.ask_children()
        stage.pass_time()
    stage.measure_lag("flips")
    stage.flip("off", seconds=PHASE_SECONDS)
    last = record.flips[-1]
    times = (last.soonest + PHASE_SECONDS, last.at + PHASE_SECONDS)
    record.flips.append(Flip(*times, value=True, within=BOUND_SECONDS))
    stage.pass_time(2 * PHASE_SECONDS)
    stage.flip("off")
    stage.pass_time()
    stage.store.send_signal(signal.SIGSTOP)
    stage.pass_time()
    stage.measure_lag("silence")
    stage.store.send_signal(signal.SIGCONT)
    stage.store.stop()
    stage.pass_time()
    stage.measure_lag("outage")
    stage.store.start()

    def ordered() -> bool:
        try:
            stage.flip("on", within=BOUND_SECONDS + PROBE_SECONDS)
        except StoreUnavailableError:
            return False
        return True

    wait_until(ordered, SECONDS, "the store takes orders")
    stage.pass_time(BOUND_SECONDS + PROBE_SECONDS)
    stage.ask()


KINDS = (*POOLS, "recycled", "forked", "web", "web degradable", "idle")


@pytest.mark.parametrize("kind", KINDS)
def test_flip_reaches_every_process_within_a_second(record: Record, kind: str) -> None:
    """Both ways, at an order's end, and after an outage, in which the answers stay as they were."""
    late = record.late(kind)
    print(f"\n{kind}: worst {max(late[:-1]):.3f} s; after an outage {late[-1]:.3f} s")  # noqa: T201
    bounds = [flip.within for flip in record.flips]
    assert all(seconds <= bound for seconds, bound in zip(late, bounds, strict=True)), late
    answers = {answer for process in record.seen[kind] for answer, _, _ in process}
    assert answers == {True, False}


@pytest.mark.parametrize("kind", ["idle", "recycled"])
def test_first_answer_after_a_flip_is_right(record: Record, kind: str) -> None:
    """A process that has not asked for a second asks before it answers, and so does a new child."""
    assert max(record.late(kind)[:-1]) == 0.0


def test_event_loop_goes_on(record: Record) -> None:
    """Evaluation never waits for the store on a web process's loop, not even one that is silent."""
    print(f"\nlags of the loop and of a thread in s: {record.lags}")  # noqa: T201
    for what in ("flips", "silence", "outage"):
        loop, thread = record.lags[what]
        assert loop < STORE_TIMEOUT_SECONDS / 2 + thread
