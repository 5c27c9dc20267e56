"""Forks while a sweeper asks the store, and fails if a child might not be able to ask as well."""

import os
import signal
from types import SimpleNamespace
from typing import Any

from resilience import Dependency, Resilience, Settings
from resilience.worker import sweeper
from tests.integration.apps.fresh import new_app

ENV = os.environ  # noqa: TID251 - an entry point
FORKS = 20
HUNG_SECONDS = 10


class Busy(sweeper.FanInSweeper):
    """A sweeper that shows whether it looks: what it holds then, a child would wait for."""

    looks = False

    def look(self, resilience: Resilience) -> float:
        """Look, and show it."""
        self.looks = True
        try:
            super().look(resilience)
        finally:
            self.looks = False
        return 0.0


def main() -> None:
    """Fork so many times, and let each child ask the store what is due."""
    app = new_app()
    settings = Settings(store_url=ENV["CELERY_BROKER_URL"], store_timeout_seconds=HUNG_SECONDS)
    resilience = Resilience(app, dependencies=[Dependency("users")], settings=settings)
    worker: Any = SimpleNamespace(app=app)
    step = Busy(worker)
    step.start(worker)
    for _ in range(FORKS):
        child = os.fork()
        if child == 0:
            signal.alarm(HUNG_SECONDS)
            resilience.fan_in.take_due()
            os._exit(step.looks)
        _, status = os.waitpid(child, 0)
        assert status == 0, f"a forked process ended with {status}: it hung, or might have"
    step.stop(worker)


if __name__ == "__main__":
    main()
