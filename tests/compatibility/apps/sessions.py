"""An app that keeps a session by thread, as Flask-SQLAlchemy's users do; see Celery's docs."""

import gc
import threading
import time
from typing import Any

from celery import Celery, Task
from celery.signals import task_postrun, task_prerun
from sqlalchemy import create_engine, text
from sqlalchemy.orm import scoped_session, sessionmaker
from sqlalchemy.pool import QueuePool

from resilience import Dependency, Resilience, ResilientTask, TimeoutBudget, fallback
from resilience.budget.threads import helper_threads
from resilience.events import log_event
from resilience.testing.waiting import wait_until

TIMEOUT_SECONDS = 2.0
SECONDS = 120

app = Celery("sessions")
dependencies = [Dependency("alpha", timeout=TIMEOUT_SECONDS, breaker=None)]
Resilience(app, dependencies=dependencies, listeners=[log_event])

engine = create_engine(
    "sqlite://", poolclass=QueuePool, pool_size=20, connect_args={"check_same_thread": False}
)
Session = scoped_session(sessionmaker(bind=engine))
_signals: dict[str, list[tuple[str, int, str | None]]] = {}


@task_prerun.connect
def note_begin(task_id: str, **_: object) -> None:
    """Note the thread that a job begins in."""
    _signals.setdefault(task_id, []).append(("prerun", threading.get_ident(), None))


@task_postrun.connect
def remove(task_id: str, state: str | None, **_: object) -> None:
    """Give the session of the job back, as every tutorial has it, and note the thread."""
    Session.remove()
    _signals.setdefault(task_id, []).append(("postrun", threading.get_ident(), state))


def query() -> bool:
    """Begin a transaction; return whether somebody else's session was found."""
    foreign = bool(Session.registry.has())
    Session.execute(text("SELECT 1"))
    time.sleep(0.01)  # noqa: TID251 - so that all threads of the pool are in use
    return foreign


def tell(task: Task[Any, Any]) -> dict[str, Any]:
    """Run the body of a job; say what it found and where it ran."""
    foreign, began = query(), _signals[task.request.id][0][1]
    return {"foreign": foreign, "same_thread": began == threading.get_ident()}


@app.task(bind=True, shared=False)
def plain(self: Task[Any, Any]) -> dict[str, Any]:
    """Query, in a task of Celery's own class."""
    return tell(self)


@app.task(bind=True, shared=False, base=ResilientTask, dependency="alpha")
def guarded(self: Task[Any, Any]) -> dict[str, Any]:
    """Query, under the timeout of a dependency."""
    return tell(self)


@app.task(bind=True, shared=False, base=ResilientTask)
def limited(self: Task[Any, Any]) -> dict[str, Any]:
    """Query, under the budget of the job alone."""
    return tell(self)


@app.task(bind=True, shared=False, base=ResilientTask)
def shared_out(self: Task[Any, Any]) -> dict[str, Any]:
    """Query under a share of a budget, which may be left behind and so has a thread of its own."""
    foreign = TimeoutBudget(10).run(query, seconds=5)
    return {"foreign": foreign, "same_thread": bool(self)}


@app.task(
    bind=True,
    shared=False,
    base=ResilientTask,
    dependency="alpha",
    fallbacks=[fallback.call(lambda _: from_database())],
)
def degraded(self: Task[Any, Any], how: str) -> None:
    """Query, fail, and let a step of the chain query again."""
    query()
    raise ConnectionError(how, self.name)


def from_database() -> dict[str, Any]:
    """Answer from the app's own database, in the session of the job."""
    found = bool(Session.registry.has())
    return {"foreign": not found, "same_thread": True}


_blocked = threading.Event()


@app.task(
    bind=True,
    shared=False,
    base=ResilientTask,
    dependency="alpha",
    fallbacks=[fallback.static("static")],
)
def blocked(self: Task[Any, Any], how: str) -> str:
    """Query, and wait where nothing can be cut, until `release`."""
    query()
    if how == "body":
        _wait_in_c()
    return str(self.name)


def _wait_in_c() -> None:
    while not _blocked.is_set():
        time.sleep(4.0)  # noqa: TID251 - what cannot be cut


@app.task(shared=False)
def release(task_id: str) -> dict[str, Any]:
    """Let what is blocked end, wait until it has, and say what became of it."""
    _blocked.set()
    wait_until(lambda: not helper_threads.abandoned, SECONDS, "it has ended")
    _blocked.clear()
    return {"signals": _signals[task_id]}


@app.task(shared=False)
def checked_out() -> int:
    """Return how many connections of the engine's pool are in use.

    A session of a thread that has ended is part of a cycle, and has its connection until that is
    collected.
    """
    gc.collect()
    return engine.pool.checkedout()  # type: ignore[attr-defined] # of a QueuePool
