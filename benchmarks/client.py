"""What both sides of a comparison have in common; nothing here imports this library.

A side is a module with a Celery app. Its workers import the module, and `python -m` runs it as a
client that executes the commands on its standard input.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

from celery.signals import worker_ready

ENV = os.environ  # noqa: TID251 - of the entry points that import this
READY = "the side's worker is ready"
STDERR = 2
EQUAL: Mapping[str, Any] = {
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    "worker_prefetch_multiplier": 1,
}
"""Settings that adopted apps have, too. Without them plain Celery loses a killed worker's jobs."""
CONFIRMED: Mapping[str, Any] = {"broker_transport_options": {"confirm_publish": True}}
STOCK, PLAIN, DEPENDENCY = "stock", "plain", "noop"
"""Queues: of the app that never saw this library, and of adopted ones."""
QUORUM = {"x-queue-type": "quorum"}
_done: list[int] = []


def note_done() -> None:
    """Count a job: add a byte to the file that `BENCHMARK_DONE` names."""
    if not _done:
        path = Path(ENV["BENCHMARK_DONE"])
        _done.append(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT))
    os.write(_done[0], b".")


@worker_ready.connect(weak=False)
def _announce(**_: object) -> None:
    # Not through sys.stderr: Celery turns that into log records of level WARNING.
    os.write(STDERR, f"{READY}\n".encode())


def serve(commands: Mapping[str, Callable[..., float | None]]) -> None:
    """Run the command of each line, `["name", argument, …]`.

    Prints what the command returns, or else the seconds that it took.
    """
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        began = perf_counter()
        answer = commands[name](*arguments)
        print(perf_counter() - began if answer is None else answer, flush=True)
