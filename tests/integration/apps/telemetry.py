"""An app that brings its events to the log and to Celery's events, and to a sink for each."""

import os
import threading
from pathlib import Path
from typing import Any

from celery import Celery

from resilience import Dependency, Resilience, ResilientTask, TimeoutBudget, fallback
from resilience.events import JobUnkept, StoreLost, log_event
from resilience.monitor.celery_events import CeleryEvents
from tests.every_event import EVERY, make

QUEUES = ["celery", "search"]
STORM = 3_000

app = Celery("telemetry")
events = CeleryEvents(app)
resilience = Resilience(app, dependencies=[Dependency("search")], listeners=[log_event, events])


@app.task(
    base=ResilientTask,
    name="degrade",
    dependency="search",
    fallbacks=[fallback.static("none")],
    shared=False,
)
def degrade() -> str:
    """Fail, and leave the answer to the chain."""
    msg = "search is down"
    raise ConnectionError(msg)


@app.task(base=ResilientTask, name="halve", shared=False)
def halve() -> Any:  # noqa: ANN401 - of a budget
    """Answer with a default, within the budget of the job."""
    budget = TimeoutBudget(5)
    return budget.outcome(budget.run(degrade.run, default="half"))


@app.task(name="walk", shared=False)
def walk(text: str) -> int:
    """Announce one event of each class, with *text* in each of its texts."""
    for kind in EVERY:
        resilience.announce(make(kind, text))
    return len(EVERY)


@app.task(name="wanted", shared=False)
def wanted() -> bool:
    """Return whether this process makes Celery events."""
    return events.channel is not None and events.channel.wanted


@app.task(name="linger", shared=False)
def linger(directory: str) -> None:
    """Give a degraded answer, announce something else, and more when told to, until told to end."""
    calls = resilience.pipeline("search", fallbacks=[fallback.static("none")])
    calls.call(degrade.run)
    for name in ("first", "second"):
        resilience.announce(StoreLost(error=f"{directory} {name}"))
        await_file(Path(directory) / name)


def await_file(path: Path) -> None:
    """Wait until somebody has made *path*."""
    pause = threading.Event()
    while not path.exists():
        pause.wait(0.02)


@app.task(name="storm", shared=False)
def storm(directory: str) -> None:
    """Announce a crowd of events once told to, and leave a mark when they are out."""
    home = Path(directory)
    (home / "begun").touch()
    await_file(home / "go")
    for _ in range(STORM):
        events(JobUnkept(task="storm", id="1", error="x" * 500))
    (home / "ended").write_text(str(os.getpid()))


def in_log(log: str, kind: str, text: str) -> int:
    """Return how many lines of *log* tell of an event of class *kind* with *text*."""
    return sum(f"event={kind}" in line.split() and text in line for line in log.splitlines())


def in_celery_events(received: list[dict[str, Any]], kind: str, text: str) -> int:
    """Return how many of the *received* events are of class *kind* with *text*."""
    classes = {"task-degraded": "AnswerDegraded", "task-partial": "FanOutFinished"}
    return sum(
        one.get("event", classes.get(one["type"])) == kind and text in ("", *one.values())
        for one in received
    )


def in_page(received: list[dict[str, Any]], kind: str, text: str) -> int:
    """Return how many events of class *kind* with *text* Flower's page would show."""
    from resilience.monitor.flower.state import DegradationState  # noqa: PLC0415 - no worker's

    state = DegradationState(max_tasks_in_memory=1000)
    for one in received:
        state.event(dict(one))
    shown = [{**one["fields"], "type": one["kind"]} for one in (*state.answers, *state.incidents)]
    return in_celery_events(shown, kind, text)
