"""An app whose processes write down what a flag was, and when.

Workers, web processes and the scripts below import it. Where the store is is in the environment.
Run as a script it is a process without Celery: `idle` evaluates once for each line that it reads,
`fork PATH` forks children while a thread evaluates.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from celery import Celery

from resilience import Dependency, Feature, Level, Resilience, SheddingPolicy
from resilience.clock import SystemClock

FEATURE = "ranking"
LOOK_SECONDS = 0.01
GAP_SECONDS = 0.2
CHILDREN = 6
WATCH_SECONDS = 60.0
"""Nobody evaluates for longer, whatever became of the test."""
monotonic = SystemClock.monotonic
Seen = list[tuple[bool, float, float]]
"""Runs of the same answer: which, when first asked, when last, in monotonic seconds."""

app = Celery("flip", set_as_current=False)
resilience = Resilience(
    app,
    dependencies=[Dependency("search")],
    features=[Feature(FEATURE, level=Level.REDUCED)],
    shedding=SheddingPolicy(load=None),  # a busy machine must shed nothing here
)


def enabled() -> bool:
    """Tell whether the feature is on."""
    return resilience.flags.enabled(FEATURE)


if os.environ.get("EVALUATE_BEFORE_FORK"):  # noqa: TID251 - an entry point
    os.register_at_fork(before=enabled)


@app.task(name="watch", shared=False)
def watch(path: str) -> Seen:
    """Evaluate all the time until the file *path* exists; a file beside it says that this began."""
    seen: Seen = []
    ask(seen, enabled)
    Path(f"{path}-{uuid4()}").touch()
    while not Path(path).exists() and monotonic() < seen[0][1] + WATCH_SECONDS:
        ask(seen, enabled)
        time.sleep(LOOK_SECONDS)  # noqa: TID251 - paces the look
    return seen


@app.task(name="look", shared=False)
def look() -> tuple[bool, float, int]:
    """Evaluate once."""
    asked = monotonic()
    return enabled(), asked, os.getpid()


def ask(seen: Seen, answer: Callable[[], bool]) -> None:
    """Add an answer to *seen*, as of when it was asked for: a machine may delay it as it likes.

    Nothing is known of a time in which the machine let nobody ask: no run of answers goes over it.
    """
    asked = monotonic()
    value = answer()
    if seen and seen[-1][0] == value and asked < seen[-1][2] + GAP_SECONDS:
        seen[-1] = value, seen[-1][1], asked
    else:
        seen.append((value, asked, asked))


def fork(path: str) -> list[Seen]:
    """Fork children while a thread evaluates; return what each saw until *path* exists."""
    ended = threading.Event()
    enabled()  # nobody forks in the middle of an import: Python's own locks do not survive that

    def evaluate() -> None:
        while not ended.is_set():
            resilience.flags.restart()  # so that it asks
            enabled()

    threading.Thread(target=evaluate, daemon=True).start()
    pipes = [_child(lambda: watch(path)) for _ in range(CHILDREN)]
    ended.set()
    return [json.loads(os.fdopen(pipe).read()) for pipe in pipes]


def _child(work: Callable[[], Seen]) -> int:
    ours, its = os.pipe()
    if os.fork() == 0:
        os.write(its, json.dumps(work()).encode())
        os._exit(0)
    os.close(its)
    return ours


if __name__ == "__main__":
    print("ready", flush=True)  # noqa: T201 - to its parent
    if sys.argv[1] == "fork":
        json.dump(fork(sys.argv[2]), sys.stdout)
    for _ in sys.stdin:
        print(json.dumps(enabled()), flush=True)  # noqa: T201 - as above
