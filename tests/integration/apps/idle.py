"""An app whose workers look for fan-outs that are due only when they have a reason to."""

import os
from typing import Any

from celery import Celery

from resilience import Dependency, Resilience, ResilientTask, Settings
from resilience.worker import sweeper

URL = os.environ.get("CELERY_BROKER_URL", "")  # noqa: TID251 - of a worker
sweeper.IDLE_SECONDS = 3600.0


def make_app(url: str) -> Celery:
    """Return the app, at *url*."""
    app = Celery("idle", broker=url, backend=url, set_as_current=False)
    settings = Settings(store_url=url, store_timeout_seconds=10.0)
    Resilience(app, dependencies=[Dependency("users")], settings=settings)

    @app.task(name="echo", base=ResilientTask, dependency="users", shared=False)
    def echo(value: Any) -> Any:  # noqa: ANN401 - any value
        return value

    return app


app = make_app(URL) if URL else None
