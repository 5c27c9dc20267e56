"""The app of `parked_app`, as `celery -A` finds it."""

import os

from benchmarks.parked_app import make_app

app = make_app(os.environ["BENCHMARK_URL"], os.environ["BENCHMARK_LEDGER_URL"])  # noqa: TID251 - an entry point
