"""What happened during a proof, in all processes: each appends lines to one file."""

import inspect
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import celery
from celery import Celery, signals
from celery.utils.dispatch import Signal

from resilience.errors import ConfigurationError
from resilience.events import Event
from resilience.events.plain import plain_fields
from resilience.tasks.envelope import SLOT_HEADER, deadline_of, header
from resilience.tasks.once import key_of
from resilience.tasks.resilience import Resilience
from resilience.worker.probe import why_foreign

FILE: Final = "records.jsonl"

FILLER: Final = "resilience.proving.fill"
"""Name of a task that does nothing; its jobs fill a queue."""

SIGNALS: Final = {
    "succeeded": signals.task_success,
    "failed": signals.task_failure,
    "retried": signals.task_retry,
    "revoked": signals.task_revoked,
}
"""By the name of the record: what Celery sends when a job ends, or is published once more."""

Record = dict[str, Any]


class Recorder:
    """Writes what one process announces, publishes and finishes.

    A line is written in one piece before the process goes on, so that it survives SIGKILL. Forked
    processes write to the same file.
    """

    def __init__(self, app: Celery[Any], path: Path) -> None:
        """Append to *path* what happens in *app* here, from now on.

        Raises:
            ConfigurationError: The app was never adopted.
        """
        self._listeners = Resilience.of(app).listeners
        flags = os.O_APPEND | os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW
        self._file = os.open(path, flags, 0o600)
        self._listeners.append(self.hear)
        self._signals: list[tuple[Signal, Callable[..., None]]] = [
            (signals.before_task_publish, self.published),
            *((signal, partial(self.ended, record)) for record, signal in SIGNALS.items()),
        ]
        for signal, receiver in self._signals:
            signal.connect(receiver, weak=False)

    def close(self) -> None:
        """Write no more."""
        self._listeners.remove(self.hear)
        for signal, receiver in self._signals:
            signal.disconnect(receiver)
        os.close(self._file)

    def write(self, record: str, **fields: object) -> None:
        """Write one line."""
        fields = {"record": record, "pid": os.getpid(), **fields}
        os.write(self._file, json.dumps(fields, default=str).encode() + b"\n")

    def hear(self, event: Event) -> None:
        """Write a line of *event*, and of the job that announces it."""
        task: Any = celery.current_task  # a proxy, of None outside of a job
        request = task.request if task else None
        budget = getattr(deadline_of(request), "total", None)
        fields = {"job": getattr(request, "id", None), "budget": budget, **plain_fields(event)}
        self.write(type(event).__name__, **fields)

    def published(self, sender: str, headers: dict[str, Any] | None = None, **_: object) -> None:
        """Write a line of a job that is being published."""
        slot = header(headers, SLOT_HEADER)
        slot = slot if isinstance(slot, dict) else {}
        about = {"part": slot.get("part"), "stale": bool(slot.get("stale_seconds"))}
        self.write("published", task=sender, id=(headers or {}).get("id"), **about)

    def ended(self, record: str, *, sender: Any, **about: Any) -> None:  # noqa: ANN401 - of Celery
        """Write a line of a job that ended, or is published once more."""
        request, error = about.get("request") or sender.request, about.get("exception")
        self.write(
            record,
            task=request.task if "request" in about else sender.name,
            id=about.get("task_id") or request.id,
            key=_key(sender, request) if record == "succeeded" else None,
            error=type(error).__name__,
            dependency=getattr(error, "dependency", None),
        )


def _key(task: Any, request: Any) -> str | None:  # noqa: ANN401 - Celery's
    """Return the idempotency key of a job, None if it has none."""
    template = getattr(task, "idempotency_key", None)
    if template is None:
        return None
    bound = inspect.signature(task.run).bind(*(request.args or ()), **(request.kwargs or {}))
    bound.apply_defaults()
    return key_of(str(task.name), template, bound.arguments)


def path_of(app: Celery[Any]) -> Path:
    """Return where the processes of *app* write their records: into its runtime directory.

    Raises:
        ConfigurationError: The app was never adopted, or its settings name no such directory, or
            one that another user may have made.
    """
    directory = Resilience.of(app).settings.runtime_directory
    if directory is None:
        msg = "nothing says where to write records; set RESILIENCE_RUNTIME_DIRECTORY"
        raise ConfigurationError(msg)
    if why_not := why_foreign(directory):
        raise ConfigurationError(why_not)
    return directory / FILE


class Records:
    """The lines of all processes, as the proof reads them."""

    def __init__(self, path: Path) -> None:
        """Read *path*, which may not exist yet."""
        self._path = path

    def position(self) -> int:
        """Return where the next line will begin."""
        return self._path.stat().st_size if self._path.exists() else 0

    def since(self, position: int) -> list[Record]:
        """Return the whole lines from *position* on."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(position)
            lines = file.read().split(b"\n")
        return [json.loads(line) for line in lines[:-1] if line]
