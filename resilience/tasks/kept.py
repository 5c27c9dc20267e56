"""A job as the ledger keeps it: the message itself, ready to be published by any relay."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from celery import Celery, Task, signals
from celery.app.task import Context
from celery.app.trace import get_actual_ignore_result  # type: ignore[attr-defined] # missing in stubs
from celery.utils.time import maybe_make_aware
from kombu import Producer
from kombu.exceptions import ContentDisallowed
from kombu.message import Message
from kombu.serialization import registry  # type: ignore[attr-defined] # missing in the stubs
from kombu.utils.functional import maybe_list

from resilience.broker import CRASHES_HEADER
from resilience.consistency import Token
from resilience.errors import text_of
from resilience.events import JobBuried
from resilience.ledger import Job
from resilience.tasks.captured import Captured
from resilience.tasks.envelope import (
    BUDGET_HEADER,
    JOB_HEADER,
    POSITION_HEADER,
    ledger_header,
    position_of,
    repeated,
)
from resilience.tasks.publisher import publishing
from resilience.tasks.resilience import Resilience
from resilience.tasks.serialization import dumps, escaped, loads, why_refused

RENAMED: Final = {"link": "callbacks", "link_error": "errbacks"}
"""Options of `apply_async` that Celery's message calls otherwise."""
FUNCTIONS_MAX = 512
"""To look at a signature takes as long as a write: so many are remembered."""
PROPERTIES: Final = ("priority", "delivery_mode", "compression")


def job_of(
    task: Task[Any, Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    queue: str,
    ledger: Mapping[str, Any],
    age_seconds: float,
) -> Job:
    """Return what the ledger keeps of a call of *task*.

    Args:
        task: Of an adopted app.
        args: As given.
        kwargs: As given.
        options: Of `apply_async`, `task_id` and headers among them; a relative `expires` counts
            from now.
        queue: Where a relay publishes it.
        ledger: What is in its `JOB_HEADER`.
        age_seconds: Since it was first published.

    Raises:
        kombu.exceptions.EncodeError: An argument cannot be sent.
    """
    headers, properties, body = message_of(task, args, kwargs, options)
    headers |= {**(options.get("headers") or {}), JOB_HEADER: {**ledger}}
    properties |= {name: options[name] for name in PROPERTIES if options.get(name) is not None}
    # Whoever adds to messages, to trace them for one, adds to this one now.
    with publishing(task.app):
        signals.before_task_publish.send(
            sender=task.name,
            body=body,
            exchange="",
            routing_key=queue,
            headers=headers,
            declare=[],
            properties=properties,
            retry_policy={},
        )
    message = Captured(body, headers, properties, queue, None)
    return keep_message(task, message, ledger=ledger, age_seconds=age_seconds)


def keep_message(
    task: Task[Any, Any], message: Captured, *, ledger: Mapping[str, Any], age_seconds: float = 0.0
) -> Job:
    """Return what the ledger keeps of a *message* of *task*.

    Raises:
        kombu.exceptions.EncodeError: An argument cannot be kept.
    """
    args, kwargs, embed = message.body
    content = {
        "args": list(args),
        "kwargs": kwargs,
        "embed": embed,
        "headers": message.headers,
        "properties": message.properties,
        "names": None if getattr(task, "is_remote", False) else _positional(task.run),
        "following": _following(task.app, embed),
    }
    if message.routing_key is not None:
        content["routing_key"] = message.routing_key
    return Job(
        id=str(message.headers["id"]),
        task=str(task.name),
        dependency=str(getattr(task, "dependency", None) or ""),
        queue=message.queue,
        message=dumps(content),
        origin=ledger.get("origin"),
        attempts=int(ledger.get("attempts", 0)),
        dispatches=int(ledger.get("dispatches", 0)),
        age_seconds=age_seconds,
    )


def message_of(
    task: Task[Any, Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    options: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """Return the headers, the properties and the body of the message for a call of *task*."""
    amqp: Any = task.app.amqp
    known = _parameters(type(amqp).as_task_v2)
    renamed = {RENAMED.get(name, name): value for name, value in options.items()}
    renamed |= {name: maybe_list(renamed.get(name)) for name in RENAMED.values()}
    stamps = {name: options[name] for name in options.get("stamped_headers") or ()}
    said = {name: value for name, value in renamed.items() if name in known and value is not None}
    headers, properties, body, _ = amqp.as_task_v2(
        name=task.name, args=args, kwargs=kwargs, **(stamps | said)
    )
    return headers, properties, body


def options_of(task: Task[Any, Any], request: Context) -> dict[str, Any]:
    """Return what `apply_async` was given for *request*, as Celery takes it for a retry."""
    options = request.as_execution_options()
    options["headers"] = repeated(request)
    options["ignore_result"] = get_actual_ignore_result(task, request)
    options["priority"] = (request.delivery_info or {}).get("priority")
    # As the publisher wrote them: it may have hidden something.
    options |= {name: request.get(name) for name in ("argsrepr", "kwargsrepr")}
    return options


def give_up(resilience: Resilience, job: Job, reason: str, error: BaseException) -> None:
    """Make a dead letter of *job*, and announce it unless another copy of the job was first.

    Raises:
        LedgerUnavailableError: It is none; or SchemaError, or UnkeepableError.
    """
    if resilience.ledger.bury(job, reason=reason, error=error):
        event = JobBuried(
            task=job.task,
            id=job.id,
            dependency=job.dependency,
            reason=reason,
            attempts=job.attempts,
            error=text_of(error),
        )
        resilience.announce(event)


def job_in(app: Celery[Any], message: Message, *, queue: str, dependency: str) -> Job:
    """Return what the ledger keeps of a *message* that no worker of *app* has begun.

    Args:
        app: Adopted.
        message: A job's.
        queue: Where it was, and will be when it is replayed.
        dependency: Whose queue that is.

    Raises:
        Exception: It is no message of a job.
    """
    args, kwargs, embed = message.payload
    headers = dict(message.headers)
    ledger, task = ledger_header(headers), app.tasks.get(headers["task"])
    ledger["serializer"] = registry.type_to_name.get(message.content_type)
    properties = {
        name: message.properties[name] for name in PROPERTIES if name in message.properties
    }
    content = {
        "args": list(args),
        "kwargs": kwargs,
        "embed": embed,
        "headers": {name: headers[name] for name in headers if not name.startswith("x-")},
        "properties": properties,
        "names": None if task is None else _positional(task.run),
        "following": _following(app, embed),
    }
    return Job(
        id=str(headers["id"]),
        task=str(headers["task"]),
        dependency=dependency,
        queue=queue,
        message=dumps(content),
        origin=ledger.get("origin"),
        attempts=int(ledger.get("attempts", 0)),
        dispatches=int(ledger.get("dispatches", 0)),
        age_seconds=0.0,
    )


def delay_of(app: Celery[Any], options: dict[str, Any]) -> float | None:
    """Return in how many seconds a job with these *options* is due, and take that out of them.

    As Celery reads them: `countdown` counts before `eta`, which may be a text in ISO 8601, and is
    in the app's time zone if it names none.

    Returns:
        Seconds, more than 0; None: it is due now.
    """
    countdown, eta = options.pop("countdown", None), options.pop("eta", None)
    if countdown:
        seconds = float(countdown)
    elif eta:
        due = datetime.fromisoformat(eta) if isinstance(eta, str) else eta
        seconds = (maybe_make_aware(due, app.timezone) - app.now()).total_seconds()
    else:
        return None
    return seconds if seconds > 0 else None


def serializer_of(task: Task[Any, Any] | None, app: Celery[Any]) -> str:
    """Return the serializer of jobs of *task* whose publisher asked for none."""
    return str(getattr(task, "serializer", None) or app.conf.task_serializer)


def publish_kept(app: Celery[Any], producer: Producer, job: Job, seen: Token | None = None) -> None:
    """Publish what `job_of` made, with what the ledger has learnt since in its header.

    It sees what had been *seen* by now, and what its publisher had.

    Its queue is declared already: to do that for each job costs a third more.

    Raises:
        Exception: The broker's, or one that says that the message is no such one.
    """
    message = loads(job.message)
    headers = {**message["headers"], "id": job.id}
    known = {name: said for name, said in ledger_header(headers).items() if said is not None}
    known["attempts"] = job.attempts
    if job.origin != known.get("origin"):
        # A replay begins again: what its letter died of does not count against it.
        known["born"] = Resilience.of(app).fleet_time()
        known.pop("lost", None)
        headers |= {BUDGET_HEADER: None, "expires": None, CRASHES_HEADER: 0}
    if seen:
        given = position_of(headers, Resilience.of(app).fleet_time)
        headers[POSITION_HEADER] = (seen if given is None else given.merged(seen)).to_json()
    headers[JOB_HEADER] = {**known, "dispatches": job.dispatches, "origin": job.origin}
    serializer = known.get("serializer") or serializer_of(app.tasks.get(job.task), app)
    refused = why_refused(app, serializer)
    if refused is not None:
        raise ContentDisallowed(refused)
    queue = app.amqp.queues[job.queue]
    properties = {**message["properties"], "correlation_id": job.id}
    # By its name, as Celery does, a queue is found also if the broker has lost its bindings: Redis
    # would drop the message in silence.
    by_name = queue.exchange.type == "direct"
    producer.publish(
        escaped((message["args"], message["kwargs"], message["embed"])),
        exchange="" if by_name else queue.exchange,
        routing_key=queue.name if by_name else message.get("routing_key") or queue.routing_key,
        headers=headers,
        serializer=serializer,
        retry=False,
        **properties,
    )


@functools.lru_cache(FUNCTIONS_MAX)
def _parameters(function: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)


def _following(app: Celery[Any], embed: object) -> dict[str, list[str]]:
    """Return what positional arguments of the tasks that follow are called, by task."""
    found: dict[str, list[str]] = {}
    values = [embed]
    while values:
        value = values.pop()
        if isinstance(value, Mapping):
            task = app.tasks.get(str(value.get("task")))
            if task is not None:
                found[task.name] = _positional(task.run)
            values += value.values()
        elif isinstance(value, list | tuple):
            values += value
    return found


@functools.lru_cache(FUNCTIONS_MAX)
def _positional(function: Callable[..., Any]) -> list[str]:
    """Return what positional arguments are called, so that views can redact them."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return [one.name for one in parameters if one.kind in kinds]
