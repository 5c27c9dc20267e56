"""Records the events and jobs of a process, and which jobs the broker has acknowledged."""

from typing import Any

from celery import Celery, signals

from resilience.chaos.gameday.checker import ACCEPTED
from resilience.chaos.proving.records import Recorder, path_of


def record(app: Celery[Any]) -> None:
    """Record what happens in this process and its children, from now on.

    Raises:
        ConfigurationError: The app was never adopted, or has no runtime directory.
    """
    recorder = Recorder(app, path_of(app))

    def accepted(sender: str, headers: dict[str, Any] | None = None, **_: object) -> None:
        recorder.write(ACCEPTED, task=sender, id=(headers or {}).get("id"))

    signals.after_task_publish.connect(accepted, weak=False)
