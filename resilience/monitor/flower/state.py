"""What Flower remembers of degradation, beside what it remembers of tasks."""

from collections import deque
from collections.abc import Mapping
from itertools import islice
from typing import Any

from celery.events.state import Task
from flower.events import EventsState  # type: ignore[import-untyped]

from resilience import events
from resilience.clock import SystemClock
from resilience.events.plain import plain
from resilience.levels import Level
from resilience.monitor.celery_events import TASK_DEGRADED, TASK_PARTIAL, type_of

ANSWERS = 200
INCIDENTS = 1_000
LEVEL_SECONDS = 5.0
LEVELS = 720
"""One every five seconds: an hour."""
TEXT_LENGTH = 300
FIELDS = 40
ANSWER_EVENTS = (events.AnswerDegraded, events.BudgetExceeded, events.FallbacksExhausted)
ANSWER_KINDS = (TASK_DEGRADED, TASK_PARTIAL, *map(type_of, ANSWER_EVENTS))
CELERYS = ("task", "worker")
ROUTINE = type_of(events.FallbackDrilled)
"""Nothing has happened: the page has a table of drills."""
CROWD_SECONDS, CROWD = 60.0, 20
"""Of events of one kind about one thing within so long, and so many others, one is kept."""
ENVELOPE = frozenset(
    ("type", "uuid", "clock", "hostname", "pid", "utcoffset", "timestamp", "local_received")
)
NAMES = ("dependency", "feature", "queue", "source", "name", "task", "call")
SHOWN = ("reason", "error", "source", "age", "dependency")


class DegradedTask(Task):
    """A task of Flower that shows how good its answer was.

    Attributes:
        degradation: Level and reason, for the column of the task list.
        degradation_details: What else is known, for the page of the task.
    """

    degradation: str | None = None
    degradation_details: str | None = None
    _fields = (*Task._fields, "degradation", "degradation_details")  # type: ignore[attr-defined]

    def event(self, type_: str | None, *args: Any, **options: Any) -> str | None:  # noqa: ANN401 - as Celery calls it
        """Note a degraded answer; let Celery do the rest, which would take it for a state."""
        if type_ != "degraded":
            return super().event(type_, *args, **options)
        _, _, fields = args  # the others are times
        facts = {name: short(fields[name]) for name in SHOWN if fields.get(name) not in (None, "")}
        reason, level = facts.get("reason"), level_name(fields.get("level"))
        self.degradation = f"{level}: {reason}" if reason else level
        self.degradation_details = ", ".join(f"{name}: {text}" for name, text in facts.items())
        return None


class DegradationState(EventsState):  # type: ignore[misc] # Flower has no types
    """Flower's view of the cluster, with the last answers and incidents of this library.

    Attributes:
        answers: Degraded and partial answers, oldest first.
        incidents: Other events of this library, oldest first.
        levels: Time and level of the app, oldest first; None: not known.
        heard: When the last event of any worker came, by this host's clock.
    """

    Task = DegradedTask

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as Flower has it
        super().__init__(*args, **kwargs)
        self.answers: deque[dict[str, Any]] = deque(maxlen=ANSWERS)
        self.incidents: deque[dict[str, Any]] = deque(maxlen=INCIDENTS)
        self.levels: deque[tuple[float, int | None]] = deque(maxlen=LEVELS)
        self.heard: float | None = None
        for task in self.tasks.values():  # Flower may have saved it without this library
            task.__class__ = DegradedTask

    def __reduce__(self) -> tuple[Any, ...]:
        kept = {name: getattr(self, name) for name in ("answers", "incidents", "levels")}
        return (*super().__reduce__()[:2], kept)

    def event(self, event: dict[str, Any]) -> None:
        """Take note of an *event* of any kind; a fan-out is no task, and gets no row."""
        self.heard = SystemClock().now()
        kind = str(event.get("type"))
        if kind in ANSWER_KINDS:
            self.answers.append(noted(event))
        elif kind.partition("-")[0] not in CELERYS and kind != ROUTINE:
            self._note(noted(event))
        if kind != TASK_PARTIAL:
            super().event(event)

    def _note(self, incident: dict[str, Any]) -> None:
        """Keep *incident*, or count it if one of its crowd is kept already."""
        for kept in islice(reversed(self.incidents), CROWD):
            same = all(kept[key] == incident[key] for key in ("kind", "name"))
            if same and incident["at"] - kept["at"] < CROWD_SECONDS:
                kept["times"] = kept.get("times", 1) + 1
                return
        self.incidents.append(incident)


def noted(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is kept of an *event* that some process sent: short, and nothing but JSON."""
    fields = {str(name)[:TEXT_LENGTH]: short(one) for name, one in islice(event.items(), FIELDS)}
    fields = {name: one for name, one in fields.items() if one not in (None, "")}
    at = fields.get("timestamp")
    return {
        "at": at if isinstance(at, int | float) else SystemClock().now(),
        "kind": str(fields.get("type")),
        "id": str(fields.get("uuid") or fields.get("id") or ""),
        "name": str(next((fields[name] for name in NAMES if fields.get(name)), "")),
        "level": level_name(fields["level"]) if "level" in fields else None,
        "fields": {name: one for name, one in fields.items() if name not in ENVELOPE},
    }


def short(value: object) -> Any:  # noqa: ANN401 - JSON
    """Return *value* if it is a finite number, else as a text that is cut if it is long."""
    if isinstance(value, list | tuple):
        value = ", ".join(str(short(one)) for one in value[:FIELDS])
    return plain(str(value) if isinstance(value, Mapping) else value, TEXT_LENGTH)


def level_name(value: object) -> str:
    """Return the name of the level that an event gave as a number, or what it gave."""
    try:
        return Level(value).name  # type: ignore[arg-type]
    except ValueError:
        return str(short(value))
