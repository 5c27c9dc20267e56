"""A process that forks while its sweeper asks the store; it fails if a child cannot ask at once."""

import os
import signal
from types import SimpleNamespace
from typing import Any

from resilience import Dependency, Resilience, Settings
from resilience.worker import sweeper
from tests.integration.apps.fresh import new_app

ENV = os.environ  # noqa: TID251 - an entry point
FORKS = 40
HUNG_SECONDS = 10


def main() -> None:
    """Fork so many times, and let each child ask the store what is due."""
    app = new_app()
    settings = Settings(store_url=ENV["CELERY_BROKER_URL"], store_timeout_seconds=HUNG_SECONDS)
    resilience = Resilience(app, dependencies=[Dependency("users")], settings=settings)
    sweeper.LOOK_SECONDS = 0.0
    worker: Any = SimpleNamespace(app=app)
    step = sweeper.FanInSweeper(worker)
    step.start(worker)
    for _ in range(FORKS):
        child = os.fork()
        if child == 0:
            signal.alarm(HUNG_SECONDS)
            resilience.fan_in.take_due()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert status == 0, f"a forked process ended with {status}: it hung"
    step.stop(worker)


if __name__ == "__main__":
    main()
