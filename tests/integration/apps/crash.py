"""An app whose jobs are long, or kill their worker."""

import os
import signal
from pathlib import Path
from threading import Event
from typing import Any

from celery import Celery

from resilience import Dependency, Resilience, ResilientTask
from resilience.broker.transports import on_rabbitmq
from resilience.clock import SystemClock
from resilience.settings import Settings

QUEUE = "long"
SILENT_SECONDS = 2.0


def make_app(settings: Settings | None = None, **options: Any) -> Celery[Any]:  # noqa: ANN401
    """Return an app with the tasks of this module; *options* are those of `Celery`."""
    made: Celery[Any] = Celery("crash", **options)
    if not on_rabbitmq(made):
        made.conf.broker_transport_options = {"visibility_timeout": SILENT_SECONDS}
    Resilience(
        made, dependencies=[Dependency(QUEUE, concurrency=2, timeout=None)], settings=settings
    )
    for function in (last, kill, tick):
        how = {"base": ResilientTask, "dependency": QUEUE, "shared": False}
        made.task(name=function.__name__, **how)(function)
    return made


def last(seconds: float, diary: str) -> float:
    """Run for so long, and note that it began and ended."""
    note(diary, "begun")
    Event().wait(seconds)
    note(diary, "done")
    return seconds


def tick(seconds: float, diary: str) -> float:
    """Run for so long, and return the longest time that nothing went on."""
    note(diary, "begun")
    began = last = SystemClock.monotonic()
    longest = 0.0
    while last < began + seconds:
        Event().wait(0.02)
        now = SystemClock.monotonic()
        last, longest = now, max(longest, now - last)
    return longest


def kill(diary: str) -> None:
    """Kill the worker, pool and all."""
    note(diary, "begun")
    os.killpg(os.getpgid(os.getppid()), signal.SIGKILL)


def note(diary: str, text: str) -> None:
    """Write a line that outlives a kill."""
    with Path(diary).open("a") as file:
        file.write(f"{text}\n")
        file.flush()
        os.fsync(file.fileno())


app = make_app()
