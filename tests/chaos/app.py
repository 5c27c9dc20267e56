"""The app of `jobs` as `celery -A` and the relay's process find it."""

import os
from pathlib import Path

from resilience.settings import Settings
from tests.chaos.jobs import Diary, make_app

app = make_app(
    os.environ["CELERY_BROKER_URL"],
    Settings.from_environment(),
    Diary(Path(os.environ["DIARY"])),
)
