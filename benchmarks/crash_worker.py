"""The app of `crash_app`, as `celery -A` finds it."""

import os
from pathlib import Path

from benchmarks.crash_app import make_app

app = make_app(
    os.environ["BENCHMARK_STYLE"],  # noqa: TID251 - an entry point
    os.environ["BENCHMARK_URL"],  # noqa: TID251 - as above
    os.environ["BENCHMARK_STORE_URL"],  # noqa: TID251 - as above
    Path(os.environ["BENCHMARK_HOME"]),  # noqa: TID251 - as above
)
