"""What becomes of a job that is refused where it is published."""

from collections.abc import Mapping, Sequence
from typing import Any

from billiard.einfo import (  # type: ignore[attr-defined] # one is missing in the stubs
    ExceptionInfo,
    ExceptionWithTraceback,
)
from celery import Task, states
from celery.app.trace import trace_task
from celery.backends.base import DisabledBackend
from celery.result import EagerResult
from celery.utils import uuid

from resilience.errors import BulkheadFullError
from resilience.tasks.kept import message_of
from resilience.tasks.publishing import PUBLISH_ERRORS
from resilience.tasks.refusal import NOTHING, REFUSED, Refusal


def end_here(
    task: Task[Any, Any],
    error: BulkheadFullError,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    options: Mapping[str, Any],
) -> EagerResult[Any]:
    """Run a job as a worker would, but with *error* in the place of its body.

    So its result is stored, its fan-out and its chord hear of it, and what follows it in a chain,
    its callbacks or its errbacks are published.

    Raises:
        TypeError: The task does not take these arguments.
    """
    if task.typing and hasattr(task, "__header__"):
        task.__header__(*args, **kwargs)
    options = {**task._get_exec_options(), **options}  # type: ignore[attr-defined] # noqa: SLF001
    options.setdefault("ignore_result", task.ignore_result)
    task_id = options["task_id"] = options.get("task_id") or uuid()
    parent = task.app.current_worker_task
    if parent is not None:
        root = parent.request.root_id or parent.request.id
        options["root_id"] = options.get("root_id") or root
        options["parent_id"] = options.get("parent_id") or parent.request.id
    dump = getattr(task, "_dump_pydantic_arguments", None)
    if dump is not None:
        args, kwargs = dump(args, kwargs)
    refusal = Refusal(error, may_retry=False)
    headers, _, (sent_args, sent_kwargs, embed) = message_of(task, args, kwargs, options)
    own = options.get("headers") or {}
    request = {
        **headers,
        **embed,
        "args": sent_args,
        "kwargs": sent_kwargs,
        "headers": dict(own),
        "delivery_info": {},
        REFUSED: refusal,
    }
    ended: Any = trace_task(task, task_id, sent_args, sent_kwargs, request, app=task.app)
    value: Any = ended.retval
    traceback = None
    if isinstance(value, ExceptionInfo):
        traceback = value.traceback
        error_or_wrap: Any = value.exception
        wrapped = isinstance(error_or_wrap, ExceptionWithTraceback)
        value = error_or_wrap.exc if wrapped else error_or_wrap
    if refusal.answer is not NOTHING and not isinstance(value, PUBLISH_ERRORS):
        # Also if the backend could not be told: who published it has the answer all the same.
        return EagerResult(task_id, refusal.answer, states.SUCCESS, name=task.name)
    state = states.SUCCESS if ended.info is None else ended.info.state
    return EagerResult(task_id, value, state, traceback=traceback, name=task.name)


def is_awaited(task: Task[Any, Any], options: Mapping[str, Any]) -> bool:
    """Tell whether others wait for a job with these *options*, and can hear that it failed.

    A member of a group or chord, or the beginning of a chain that is one: the other members are
    published whatever becomes of it.
    """
    ignored = options.get("ignore_result")
    if task.ignore_result if ignored is None else ignored:
        return False
    if isinstance(task.backend, DisabledBackend):
        return False
    follow: Sequence[Any] = options.get("chain") or ()
    return any(
        one.get("group_id") or one.get("chord")
        for one in (options, *(sig.get("options") or {} for sig in follow))
    )
