"""docs/telemetry.md is the contract of events: it says what the code does."""

import logging
import re
from dataclasses import fields
from pathlib import Path

from resilience.events import Event
from resilience.monitor import celery_events
from resilience.monitor.celery_events import type_of
from resilience.monitor.opentelemetry import event_name
from tests.every_event import EVERY

PAGE = Path(__file__).parents[2] / "docs" / "telemetry.md"
HEAD = "| event | when | level | Celery event | event of the span | fields |"
OF_TASKS = {
    "AnswerDegraded": celery_events.TASK_DEGRADED,
    "FanOutFinished": celery_events.TASK_PARTIAL,
}


def row(kind: type[Event]) -> str:
    """Return what the page says of events of class *kind*."""
    name = kind.__name__ + (" *" if kind.crowds else "")
    [when, *_] = (kind.__doc__ or "").split("\n\n")
    level = logging.getLevelName(kind.severity)
    sent = OF_TASKS.get(kind.__name__, type_of(kind))
    names = ", ".join(f"`{one.name}`" for one in fields(kind)) or "—"
    when = " ".join(when.split())
    return f"| `{name}` | {when} | {level} | `{sent}` | `{event_name(kind)}` | {names} |"


def test_table_of_events_is_equal_to_the_code() -> None:
    """Neither an event or a field without a word, nor a word of one that is gone."""
    said = re.findall(r"<!-- events: .* -->\n(.*?)\n<!-- end", PAGE.read_text(), re.DOTALL)
    expected = "\n".join([HEAD, "|---" * 6 + "|", *map(row, EVERY)])

    assert said == [expected], f"the table should be:\n{expected}"


def test_page_names_every_field_that_is_not_an_events() -> None:
    """Of lines, of Celery events and of spans."""
    text = PAGE.read_text()
    for name in (
        "left_out",
        "trace_id",
        "uuid",
        "RESILIENCE_LOG_FORMAT",
        "feature_flag.evaluation",
    ):
        assert f"`{name}`" in text
