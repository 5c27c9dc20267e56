"""How long a fire-and-forget job takes to publish when the broker is down.

In fresh processes: the first job of each also pays once for what Celery, the broker's client and
the ledger's import and open, whatever the broker does. Every job is in the outbox: that is counted.
"""

import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from benchmarks.figure import Figure
from benchmarks.publish_app import JOBS
from resilience.ledger import Ledger, State
from resilience.testing.ports import LOCALHOST, free_port
from resilience.testing.process import import_path, inherited_env

BLACK_HOLE_SECONDS = 1.0
AT_ONCE_SECONDS = 0.02
REFUSED_SECONDS = 0.02

Seconds = dict[str, list[float]]


def run(*, quick: bool) -> Iterator[Figure]:
    """Measure; *quick* takes fewer processes."""
    processes = 3 if quick else 12
    with _black_hole() as url:
        hole = _measure(url, processes)
    yield _figure("publish_black_hole_first", hole["first"], BLACK_HOLE_SECONDS)
    yield _figure("publish_black_hole_again", hole["again"], BLACK_HOLE_SECONDS)
    yield _figure("publish_black_hole_at_once", hole["at_once"], AT_ONCE_SECONDS)
    refused = _measure(f"redis://{LOCALHOST}:{free_port()}/0", processes)
    yield _figure("publish_refused_first", refused["first"], None)
    yield _figure("publish_refused_again", refused["again"], REFUSED_SECONDS)
    yield _figure("publish_refused_at_once", refused["at_once"], AT_ONCE_SECONDS)


def _measure(url: str, processes: int) -> Seconds:
    """Return what the jobs of *processes* processes took, one process after the other.

    Raises:
        RuntimeError: A job is not in the outbox.
    """
    measured: Seconds = {"first": [], "at_once": [], "again": []}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        ledger_url = f"sqlite:///{Path(directory) / 'ledger.sqlite3'}"
        ledger = Ledger(ledger_url)
        ledger.upgrade()
        for _ in range(processes):
            done = subprocess.run(  # noqa: S603 - a module of this package
                [sys.executable, "-m", "benchmarks.publish_app", url, ledger_url],
                check=True,
                stdout=subprocess.PIPE,
                env=inherited_env({"PYTHONPATH": import_path()}),
            )
            for name, seconds in json.loads(done.stdout).items():
                measured[name] += seconds
        kept = {count.state: count.jobs for count in ledger.counts(limit=None)}
        ledger.close()
    if kept != {State.OUTBOX: processes * JOBS}:
        msg = f"not all jobs are in the outbox: {kept}"
        raise RuntimeError(msg)
    return measured


def _figure(name: str, seconds: list[float], bound: float | None) -> Figure:
    return Figure(
        name=name,
        value=max(seconds),
        unit="s",
        bound=bound,
        sides={"median": round(median(seconds), 4), "jobs": len(seconds)},
    )


@contextmanager
def _black_hole() -> Iterator[str]:
    """Listen on a free port and never answer; yield the address as a broker's."""
    with socket.create_server((LOCALHOST, 0), backlog=64) as listener:
        yield f"redis://{LOCALHOST}:{listener.getsockname()[1]}/0"
