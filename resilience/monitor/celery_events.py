"""Events as events of Celery, for Flower and whatever else listens to workers."""

import json
import mmap
import re
import socket
from typing import Any, Final

from celery import Celery, current_task

from resilience.events import AnswerDegraded, Event, FanOutFinished
from resilience.events.plain import plain_fields
from resilience.levels import Level
from resilience.monitor.sender import Sender

TASK_DEGRADED: Final = "task-degraded"
TASK_PARTIAL: Final = "task-partial"
GROUPS: Final = {"answer", "breaker", "bulkhead", "feature", "job", "read", "store"}
"""First words of types, by which listeners choose."""
SAME: Final = {"circuit": "breaker", "jobs": "job", "queue": "bulkhead"}
"""Words in names of events, and the group that each stands for."""


class CeleryEvents:
    """Listens by sending an event of Celery, if somebody listens to the worker's events.

    In a worker an event costs its process one local datagram, and nothing while task events are
    off; the main process sends it through the dispatcher that Celery has there. Other processes
    send nothing, unless they are told to do it in a thread; see docs/telemetry.md.
    """

    def __init__(self, app: Celery[Any], *, outside_workers: bool = False) -> None:
        """Send events of *app*.

        Args:
            app: The app, whose workers get a step that passes the events on.
            outside_workers: Whether other processes (web, command line) send them as well, in a
                thread with a connection of its own, whether anybody listens or not.
        """
        app.steps["consumer"].add("resilience.monitor.relay:EventRelay")
        self.channel: Channel | None = None
        self._sender = Sender(app) if outside_workers else None

    def __call__(self, event: Event) -> None:
        """Pass *event* on without waiting for anybody."""
        sink = self._sender if self.channel is None else self.channel
        if sink is not None and sink.wanted and (message := celery_event(event)) is not None:
            sink.put(message)


class Channel:
    """Brings events from all processes of a prefork worker to its main process.

    Made before the pool forks. A message is dropped and counted if the socket's buffer is full,
    because the main process does not read.
    """

    def __init__(self) -> None:
        """Open the channel; nothing is wanted yet."""
        self._inner, self._outer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._inner.settimeout(0)
        self._outer.settimeout(0)
        self._flag = mmap.mmap(-1, 1)
        self._dropped = 0

    @property
    def wanted(self) -> bool:
        """Tell whether somebody listens, as far as the main process knows."""
        return self._flag[0] != 0

    @wanted.setter
    def wanted(self, wanted: bool) -> None:
        self._flag[0] = wanted

    def put(self, message: dict[str, Any]) -> None:
        """Write *message* if there is room, and with it how many had none."""
        try:
            self._outer.send(json.dumps([self._dropped, message]).encode())
            self._dropped = 0
        except OSError:
            self._dropped += 1

    def take(self) -> tuple[int, dict[str, Any]] | None:
        """Return how many messages were dropped, and the next one; None: there is none."""
        try:
            dropped, message = json.loads(self._inner.recv(2**20))
        except BlockingIOError:
            return None
        return dropped, message

    def close(self) -> None:
        """Close this process's ends."""
        self._inner.close()
        self._outer.close()


def celery_event(event: Event) -> dict[str, Any] | None:
    """Return type and fields of what is sent of *event*; None: nothing, as it is a full answer.

    Events of tasks have no field `event`: Celery's state, which Flower keeps, has a method of that
    name, and a field would take its place.
    """
    fields = plain_fields(event)
    if isinstance(event, FanOutFinished):
        partial = event.level is not Level.FULL
        return {"type": TASK_PARTIAL, **fields, "uuid": fields["id"]} if partial else None
    if isinstance(event, AnswerDegraded) and (job := _job()):
        return {"type": TASK_DEGRADED, **fields, **job}
    return {"type": type_of(type(event)), **fields, "event": type(event).__name__}


def type_of(event: type[Event]) -> str:
    """Return the type of what is sent of events of this class: `breaker-opened`, `job-buried`."""
    first, *others = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", event.__name__).lower().split("-")
    first = SAME.get(first, first)
    package, _, subject = event.__module__.rpartition(".")  # `features` holds those of `feature`
    has_group = first in GROUPS or package != "resilience.events"
    group = [] if has_group else [subject.removesuffix("s")]
    return "-".join([*group, first, *others])


def _job() -> dict[str, str]:
    """Return id and name of the job that runs here."""
    task: Any = current_task
    job = task.request.id if task else None
    return {"uuid": str(job), "name": str(task.name)} if job else {}
