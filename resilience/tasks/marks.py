"""The marks that a process puts on the request of a job that it runs.

Celery makes each message header an attribute of the request. If a mark were such an attribute, a
publisher could forge it with a header, and for example make a new job look as if it had begun. So
all marks are in one object of a class that no message can contain.
"""

from typing import Any, Final

from celery.app.task import Context

NAME: Final = "resilience_marks"


class Marks(dict[str, Any]):
    """The marks, by name. No message can contain an object of this class."""


def marks_of(request: Context) -> Marks:
    """Return the marks on *request*; the caller may change them."""
    marks = vars(request).get(NAME)
    if not isinstance(marks, Marks):
        marks = Marks()
        request.update({NAME: marks})
    return marks
