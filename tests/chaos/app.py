"""The app of `jobs` as `celery -A` and the relay's process find it."""

import os
from pathlib import Path

from benchmarks.diary import Diary
from resilience.settings import Settings
from tests.chaos.jobs import make_app

app = make_app(
    os.environ["CELERY_BROKER_URL"],  # noqa: TID251 - an entry point
    Settings.from_environment(),
    Diary(Path(os.environ["DIARY"]), durable=True),  # noqa: TID251 - as above
    pause_seconds_max=float(os.environ["PAUSE_SECONDS_MAX"]),  # noqa: TID251 - as above
)
