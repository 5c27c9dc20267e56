"""Jobs that call each other end within their budget, whatever the clocks of their hosts say."""

import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from resilience.clock import SystemClock
from resilience.testing.plugin import running_valkey
from resilience.testing.requirement import require
from resilience.testing.stack import run_worker
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.property import call_trees
from tests.property.call_trees import QUEUE, REPORTS, Tree, make_app, signature

TOLERANCE_SECONDS = 0.5
"""How much later than promised anything may be if the control is never late."""
LATE = 2
"""A job does more than the control between two reports: it may be so many times as late."""
CUT_SECONDS = 0.1
"""A run that ends so shortly before its deadline, or later, was cut."""
CONTROL_SECONDS = 0.05
SECONDS = 120.0
LAGS = {"lag-0.1": 0.1, "lag-0.4": 0.4}
"""Queues whose messages reach the workers late, by up to so many seconds."""
CONCURRENCY = 3
LIBRARIES = Path("/usr/lib")
AT_ONCE = 8

jobs = st.fixed_dictionaries(
    {
        "run": st.sampled_from([0.0, 0.02, 0.1, 0.4, 5.0]),
        "own": st.sampled_from([None, None, None, 0.2, 0.6, 60.0]),
        "queue": st.sampled_from([QUEUE, QUEUE, *LAGS]),
        "retries": st.sampled_from([0, 0, 0, 2]),
        "plain": st.sampled_from([False, False, False, True]),
        "how": st.sampled_from(["one by one", "chain", "group"]),
    }
).map(lambda job: {**job, "run": 0.0} if job["plain"] else job)  # no limit cuts plain jobs


def with_children(children: st.SearchStrategy[list[Tree]]) -> st.SearchStrategy[list[Tree]]:
    """Return a strategy of lists of jobs that publish *children*."""
    return st.lists(
        st.builds(lambda job, those: {**job, "children": those}, jobs, children),
        min_size=1,
        max_size=3,
    )


forests = st.recursive(st.just([]), with_children, max_leaves=6)
roots = st.builds(lambda job, those: {**job, "own": None, "children": those}, jobs, forests)
calls = st.lists(
    st.tuples(roots, st.sampled_from([0.3, 0.8, 2.0])), min_size=AT_ONCE, max_size=AT_ONCE
)
"""Call trees, and the budget of each."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a job, as the job reported it; all times are by the server's clock.

    Attributes:
        job: Id of the job.
        parent: Id of the job that published it; None for the first of a tree.
        number: 0 for the first run, then the number of the retry.
        plain: Whether its task is of Celery's own class, which limits nothing.
        at: The job's deadline.
        total: Seconds of the budget that the deadline comes from.
        left: Seconds that remained at the beginning, as the job saw it.
        began: When the run began.
        ended: When the run ended.
    """

    job: str
    parent: str | None
    number: int
    plain: bool
    at: float
    total: float
    left: float
    began: float
    ended: float


Runs = dict[tuple[str, int], Run]


class Control:
    """Waits and asks for the time over and over, as jobs do, and notes how late it is."""

    def __init__(self, url: str) -> None:
        """Ask the server at *url*."""
        self._url = url
        self._late: list[float] = []

    def run(self, stopped: threading.Event) -> None:
        """Go on until it is *stopped*."""
        while not stopped.is_set():
            began = SystemClock.monotonic()
            stopped.wait(CONTROL_SECONDS)
            with redis.Redis.from_url(self._url) as client:
                client.time()
            self._late.append(SystemClock.monotonic() - began - CONTROL_SECONDS)

    def take_lateness(self) -> float:
        """Return by how many seconds it was late at most since the last call."""
        late, self._late = self._late, []
        return max(late, default=0.0)


@dataclass
class Stage:
    """A server, workers, and the app of a publisher.

    Attributes:
        server: Broker, result backend and store; its clock is fleet time.
        app: The publisher's app.
        control: How late this machine makes everybody.
        skews: By how many seconds the clocks of the hosts were set wrong.
        offsets: By how many seconds the clock of each worker's host is wrong, as its jobs reported.
        seen: Counts of what happened, over all examples.
    """

    server: ValkeyProcess
    app: Celery[Any]
    control: Control
    skews: set[int] = field(default_factory=set)
    offsets: dict[str, float] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)

    def now(self) -> float:
        """Return the server's time."""
        seconds, microseconds = self.server.client().time()
        return float(seconds + microseconds / 1e6)

    def idle(self) -> bool:
        """Tell whether nothing waits and nothing runs."""
        pipe = self.server.client().pipeline().hlen("unacked")
        for queue in (QUEUE, *LAGS):
            pipe.llen(queue)
        return not any(pipe.execute())

    def await_idle(self) -> None:
        """Wait until all jobs have ended."""
        for _ in range(3):  # a job on its way into a worker is in neither place for a moment
            wait_until(self.idle, SECONDS, "all jobs have ended")
            threading.Event().wait(0.03)

    def take_runs(self) -> Runs:
        """Return the runs since the last call that reported both their beginning and their end.

        One whose end is missing took a second longer than its time to report that, and its worker
        killed it.
        """
        client = self.server.client()
        lines = [json.loads(line) for line in client.lrange(REPORTS, 0, -1)]
        client.delete(REPORTS)
        ended = {(one["job"], one["number"]): one["now"] for one in lines if "left" not in one}
        self.offsets |= {one["worker"]: one["host"] - one["now"] for one in lines}
        began = {(one["job"], one["number"]): one for one in lines if "left" in one}
        self.seen["killed"] += len(began.keys() - ended.keys())
        return {
            key: Run(
                **{name: one[name] for name in Run.__annotations__ if name in one},
                began=one["now"],
                ended=ended[key],
            )
            for key, one in began.items()
            if key in ended
        }


def move_late(server: ValkeyProcess, stopped: threading.Event) -> None:
    """Move all messages of each slow queue to the workers' queue, once in its number of seconds."""
    client, elapsed = server.client(), 0
    while not stopped.wait(0.1):
        elapsed += 1
        for queue, seconds in LAGS.items():
            if elapsed % round(seconds / 0.1) == 0:
                while client.rpoplpush(queue, QUEUE):
                    pass


@contextmanager
def running(
    paths: pytest.TempPathFactory, workers: Mapping[str, Mapping[str, str]]
) -> Iterator[Stage]:
    """Run *workers*, each with variables of its own."""
    with ExitStack() as stack:
        server = stack.enter_context(running_valkey(paths))
        app = make_app(broker=server.url, backend=server.url, set_as_current=False)
        stack.callback(app.close)
        env = {"CELERY_BROKER_URL": server.url, "CELERY_RESULT_BACKEND": server.url}
        for name, more in workers.items():
            worker = stack.enter_context(
                run_worker(
                    call_trees.__name__,
                    queues=[QUEUE],
                    concurrency=CONCURRENCY,
                    env={**env, **more},
                    hostname=name,
                )
            )
            stack.callback(worker.kill)
        stopped = threading.Event()
        control = Control(server.url)
        mover = threading.Thread(target=move_late, args=(server, stopped))
        for thread in (mover, threading.Thread(target=control.run, args=(stopped,))):
            thread.start()
            stack.callback(thread.join)
        stack.callback(stopped.set)
        yield Stage(server, app, control)


@pytest.fixture(scope="module")
def skewed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """Two workers on hosts with different clocks, one of them slow; the publisher's is right.

    libfaketime answers whatever asks for the time of day, in Python or C. The monotonic clock is
    left alone, as it is the same on all hosts.
    """
    found = sorted(LIBRARIES.glob("*/faketime/libfaketimeMT.so.1"))
    require("faketime", present=bool(found))
    clock = {"LD_PRELOAD": str(found[0]), "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    workers = {
        f"worker{skew}@localhost": {**clock, "FAKETIME": f"{skew:+d}s"} if skew else {}
        for skew in request.param
    }
    with running(tmp_path_factory, workers) as ready:
        ready.skews = {*request.param}
        yield ready


def play(stage: Stage, wanted: list[tuple[Tree, float]]) -> None:
    """Publish all *wanted* trees at once, and check every run that came of them."""
    latest = {}
    stage.control.take_lateness()
    for tree, budget in wanted:
        job = signature(stage.app.tasks, tree).apply_async(budget=budget).id
        latest[job] = stage.now() + budget, budget
    stage.await_idle()
    runs = stage.take_runs()
    tolerance = TOLERANCE_SECONDS + LATE * stage.control.take_lateness()
    for run in runs.values():
        check(run, runs, latest, tolerance)
    stage.seen["ran"] += len(runs)
    stage.seen["cut"] += sum(run.ended > run.at - CUT_SECONDS for run in runs.values())
    stage.seen["not begun"] += sum(size(tree) for tree, _ in wanted) - len({job for job, _ in runs})


def check(
    run: Run, runs: Runs, latest: Mapping[str, tuple[float, float]], tolerance: float
) -> None:
    """Compare *run* with those that led to it; all may be *tolerance* seconds late.

    *latest* has the deadline and the budget of each tree, by the id of its first job.
    """
    path = [run, *before(run, runs)]
    deadline, budget = latest[path[-1].job]
    assert run.at <= deadline + tolerance
    assert sum(one.ended - one.began for one in path) <= budget + tolerance
    if not run.plain:
        assert run.began <= run.at + tolerance
        assert run.ended <= run.at + tolerance
        assert 0 < run.left <= run.at - run.began + tolerance
    for publisher in path[1:2]:
        assert run.at <= publisher.at
        assert run.total <= publisher.total
        assert run.plain or publisher.plain or run.left <= publisher.left + tolerance


def before(run: Run, runs: Runs) -> Iterator[Run]:
    """Yield the runs that led to *run*, the last first."""
    while run.number or run.parent is not None:
        if run.number:
            run = runs[run.job, run.number - 1]
        else:
            run = max(
                (one for one in runs.values() if one.job == run.parent), key=lambda one: one.number
            )
        yield run


def size(tree: Tree) -> int:
    """Return how many jobs *tree* has."""
    return 1 + sum(size(one) for one in tree["children"])


@pytest.mark.parametrize(
    ("skewed", "examples"),
    [
        pytest.param((-5, 0), 3, id="slow"),
        pytest.param((-5, 5), 12, id="slow-and-fast", marks=pytest.mark.long),
    ],
    indirect=["skewed"],
)
def test_no_tree_of_calls_takes_longer_than_its_budget(skewed: Stage, examples: int) -> None:
    """No path runs longer, nothing starts after the end, no child has more time than its parent.

    That holds on hosts whose clocks differ by many times the budgets.
    """

    @settings(
        max_examples=examples, deadline=None, database=None, phases=[Phase.explicit, Phase.generate]
    )
    @given(calls)
    def one(wanted: list[tuple[Tree, float]]) -> None:
        play(skewed, wanted)

    one()
    assert skewed.seen["ran"] > examples * AT_ONCE / 2, "too little happened to say anything"
    assert skewed.seen["cut"] > 4 * skewed.seen["killed"]
    assert skewed.seen["not begun"]
    assert {round(seconds) for seconds in skewed.offsets.values()} == skewed.skews
