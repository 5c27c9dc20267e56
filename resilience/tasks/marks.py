"""What a process notes on the request of a job while the job runs there.

Celery makes each header of a message an attribute of the request. So a note that was an attribute
of its own could come from a publisher, and let a job pass for one that has been begun.
"""

from typing import Any, Final

from celery.app.task import Context

NAME: Final = "resilience_marks"


class Marks(dict[str, Any]):
    """The notes, by name. No message holds an object of this class."""


def marks_of(request: Context) -> Marks:
    """Return the notes on *request*, to read and to change."""
    marks = vars(request).get(NAME)
    if not isinstance(marks, Marks):
        marks = Marks()
        request.update({NAME: marks})
    return marks
