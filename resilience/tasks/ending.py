"""Guards around all that Celery calls of a task, which report how a job ended.

Hooks such as `on_failure` would not do: an app may replace each of them, and they run late.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from celery import Task
from celery.app.task import Context
from celery.exceptions import Ignore, Reject, Retry

from resilience.store import Slot
from resilience.tasks.marks import marks_of
from resilience.tasks.replacing import Replaced
from resilience.tasks.reporting import report_failure, report_value
from resilience.tasks.resilience import Resilience


def guard(cls: Any) -> None:  # noqa: ANN401 - a subclass of `ResilientTask`
    """Let the calls of the task class *cls* that can end a job go through its `_settle`."""
    _guard(cls, "__call__", ends=True)
    if cls.before_start is not Task.before_start:
        _guard(cls, "before_start", ends=False)


def report_end(resilience: Resilience, slot: Slot, call: Callable[[], Any], *, ends: bool) -> Any:  # noqa: ANN401 - what *call* returns
    """Return `call()`, and report to *slot* how the job ended.

    Args:
        resilience: Of the task's app.
        slot: Where the job reports.
        call: Ends the job if it fails.
        ends: Whether it also ends the job by returning its value.
    """
    try:
        value = call()
    except (Replaced, Retry):
        raise
    except (Ignore, Reject) as error:
        if not getattr(error, "requeue", False):
            report_failure(resilience, slot, error)
        raise
    except Exception as error:
        report_failure(resilience, slot, error)
        raise
    if ends and slot.last:
        report_value(resilience, slot, value)
    return value


def _guard(cls: type, name: str, *, ends: bool) -> None:
    found: Any = inspect.getattr_static(cls, name)
    flag = f"began {name}"

    @functools.wraps(found)
    def guarded(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as *found*
        call = functools.partial(found.__get__(self, type(self)), *args, **kwargs)
        request: Context | None = self.request_stack.top
        if request is None or request.called_directly or flag in marks_of(request):
            return call()
        marks_of(request)[flag] = True
        return self._settle(request, call, ends=ends)

    setattr(cls, name, guarded)
