"""However jobs call each other and wait, they end in time, whatever the hosts' clocks say."""

import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from resilience.testing.plugin import running_valkey
from resilience.testing.requirement import require
from resilience.testing.stack import run_worker
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.property import call_trees
from tests.property.call_trees import QUEUE, TOLD, Tree, make_app, signature

TOLERANCE_SECONDS = 1.0
"""What a busy machine may add to any time."""
SECONDS = 120.0
LAGS = {"lag-0.1": 0.1, "lag-0.4": 0.4}
"""Queues whose messages come to the workers up to so much later."""
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
).map(lambda job: {**job, "run": 0.0} if job["plain"] else job)  # nothing cuts those


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
    """One run of a job, as it told of itself.

    Attributes:
        job: Its id.
        parent: Id of the job that published it; None for the first of a tree.
        number: 0 for the first run, then that of the retry.
        plain: Whether its task is of Celery's own class, which limits nothing.
        at: Its deadline; all times are by the server's clock.
        total: Seconds of the budget that the deadline comes from.
        left: What remained when it began, as the job saw it.
        began: When it did.
        ended: When it did.
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


@dataclass
class Stage:
    """A server, workers, and the app of a publisher.

    Attributes:
        server: Broker, result backend and store, so its clock is the fleet's.
        app: The publisher's.
        skews: Seconds that the clocks of the hosts are off, as they were set.
        offsets: Seconds that the clock of each worker's host is off, as its jobs told.
        seen: How much of what happened, over all examples.
    """

    server: ValkeyProcess
    app: Celery[Any]
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
        """Wait until all has ended; what is on its way into a worker, one look may not see."""
        for _ in range(3):
            wait_until(self.idle, SECONDS, "all jobs have ended")
            threading.Event().wait(0.03)

    def told(self) -> Runs:
        """Return the runs that told of themselves since the last time."""
        client = self.server.client()
        lines = [json.loads(line) for line in client.lrange(TOLD, 0, -1)]
        client.delete(TOLD)
        ended = {(one["job"], one["number"]): one["now"] for one in lines if "left" not in one}
        self.offsets |= {one["worker"]: one["host"] - one["now"] for one in lines}
        return {
            (one["job"], one["number"]): Run(
                **{name: one[name] for name in Run.__annotations__ if name in one},
                began=one["now"],
                ended=ended[one["job"], one["number"]],
            )
            for one in lines
            if "left" in one
        }


def lag(server: ValkeyProcess, stopped: threading.Event) -> None:
    """Hand messages of the slow queues on, all that came each time the queue's seconds are over."""
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
        mover = threading.Thread(target=lag, args=(server, stopped))
        mover.start()
        stack.callback(mover.join)
        stack.callback(stopped.set)
        yield Stage(server, app)


@pytest.fixture(scope="module")
def skewed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """Two workers on hosts with different clocks, one of them slow; the publisher's is right.

    The library stands between the processes and the kernel: whatever asks for the time of day, in
    Python or C, is told another; time that only elapses is left alone, as it is the same anywhere.
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
    """Publish all *wanted* at once, and check all that came of it."""
    latest = {}
    for tree, budget in wanted:
        job = signature(stage.app.tasks, tree).apply_async(budget=budget).id
        latest[job] = stage.now() + budget, budget
    stage.await_idle()
    runs = stage.told()
    for run in runs.values():
        check(run, runs, latest)
    stage.seen["ran"] += len(runs)
    stage.seen["cut"] += sum(run.ended > run.at - TOLERANCE_SECONDS / 10 for run in runs.values())
    stage.seen["not begun"] += sum(size(tree) for tree, _ in wanted) - len({job for job, _ in runs})


def check(run: Run, runs: Runs, latest: Mapping[str, tuple[float, float]]) -> None:
    """Compare *run* with those that led to it; *latest* says when trees must end, by first job."""
    path = [run, *before(run, runs)]
    deadline, budget = latest[path[-1].job]
    assert run.at <= deadline + TOLERANCE_SECONDS
    assert sum(one.ended - one.began for one in path) <= budget + TOLERANCE_SECONDS
    if not run.plain:
        assert run.began <= run.at + TOLERANCE_SECONDS
        assert run.ended <= run.at + TOLERANCE_SECONDS
        assert 0 < run.left <= run.at - run.began + TOLERANCE_SECONDS
    for publisher in path[1:2]:
        assert run.at <= publisher.at
        assert run.total <= publisher.total
        assert run.plain or publisher.plain or run.left <= publisher.left + TOLERANCE_SECONDS


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
        pytest.param((-5, 5), 12, id="slow-and-fast", marks=pytest.mark.chaos),
    ],
    indirect=["skewed"],
)
def test_no_tree_of_calls_takes_longer_than_its_budget(skewed: Stage, examples: int) -> None:
    """No path runs longer, nothing starts after the end, no child has more time than its parent.

    It is so on hosts whose clocks differ by many times the budgets.
    """

    @settings(
        max_examples=examples, deadline=None, database=None, phases=[Phase.explicit, Phase.generate]
    )
    @given(calls)
    def one(wanted: list[tuple[Tree, float]]) -> None:
        play(skewed, wanted)

    one()
    assert skewed.seen["ran"] > examples * AT_ONCE / 2, "too little happened to say anything"
    assert skewed.seen["cut"]
    assert skewed.seen["not begun"]
    assert {round(seconds) for seconds in skewed.offsets.values()} == skewed.skews
