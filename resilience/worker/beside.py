"""Work beside a worker's event loop."""

import functools
from typing import Any

from celery import bootsteps

from resilience.broker.beside import Beside
from resilience.tasks.resilience import Resilience


class BesideWorker(bootsteps.StartStopStep):
    """A thread that looks, again and again, for what is to be done; see `Beside`."""

    thread_name = "beside-worker"
    _beside: Beside | None = None

    def start(self, parent: Any) -> None:  # noqa: ANN401 - Celery's signature
        """Start to look, if there is anything to look for.

        Raises:
            ConfigurationError: The app's declaration cannot work; the worker then ends.
        """
        resilience = Resilience.of(parent.app)
        if self.wanted(resilience):
            self._beside = Beside(self.thread_name, functools.partial(self.look, resilience))
            self._beside.start()

    def stop(self, parent: Any) -> None:  # noqa: ANN401, ARG002 - Celery's signature
        """Stop to look; a look under way may take a second."""
        if self._beside is not None:
            self._beside.stop(wait_seconds=1.0)

    terminate = stop

    def hasten(self) -> None:
        """Look now."""
        if self._beside is not None:
            self._beside.hasten()

    def wanted(self, resilience: Resilience) -> bool:
        """Tell whether there is anything to look for."""
        raise NotImplementedError

    def look(self, resilience: Resilience) -> float:
        """Do what is to be done; return the seconds until the next look."""
        raise NotImplementedError
