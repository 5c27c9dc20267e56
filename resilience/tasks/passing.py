"""A task is given the value of an answer; how good the answer is travels beside it, in a header.

So a task of Celery's own that follows a resilient one works as it did before the app was adopted.
The header is written down for the whole line when the first value is passed on: into the message,
and into the signatures of all that follow in the chain, the callbacks and the chord's body. A task
that knows nothing of it, of another app or language, hands it on like any other option.
"""

import functools
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from celery import Celery
from celery._state import get_current_task
from celery.app.task import Context
from celery.states import SUCCESS

from resilience.compat import callback_publish
from resilience.events import DegradedValuePassed, Event
from resilience.levels import Level
from resilience.outcome import Outcome
from resilience.tasks.carried import carry, values_of, worse, worst
from resilience.tasks.envelope import LEVEL_HEADER, level_header, level_of
from resilience.tasks.marks import marks_of
from resilience.tasks.once import check_texts
from resilience.tasks.positions import share_at_end, stale_reads
from resilience.tasks.routing import check_when_final
from resilience.tasks.serialization import escaped

Announce = Callable[[Event], None]


def pass_values(app: Celery[Any], announce: Announce) -> None:
    """Let every message of *app* hold values where its publisher gave outcomes."""
    _pass_values_to_chords(app)
    check_when_final(app, functools.partial(_pass_values_eagerly, app))
    if app.finalized:  # type: ignore[attr-defined] # missing in the stubs
        _pass_values_eagerly(app)
    amqp: Any = app.amqp
    base: Any = type(amqp)

    @functools.wraps(base.as_task_v2)
    def as_task_v2(  # as Celery's
        self: Any,  # noqa: ANN401
        task_id: Any,  # noqa: ANN401
        name: str,
        args: Any = None,  # noqa: ANN401
        kwargs: Any = None,  # noqa: ANN401
        *more: Any,  # noqa: ANN401
        **options: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        given = worst([*(args or ()), *(kwargs or {}).values()])
        if given is not None:
            args, kwargs = values_of(args, kwargs)
        elif options.get("replaced_task_nesting"):
            given = _given_to(getattr(get_current_task(), "request", None))
        elif callback_publish.get():
            given = stale_reads()  # a plain value was made from them, which follows the job
        message = base.as_task_v2(self, task_id, name, args, kwargs, *more, **options)
        if given is None:
            return _readable(app, name, message)
        own = options.get("headers") or {}
        level = level_header(worse(given, level_of(own)))
        if LEVEL_HEADER in own:  # of a line that is more degraded by now; Celery merges it last
            own.update(level)
        message.headers.update(level)
        _write_down(message.body[2], level)
        if given.level > Level.FULL:
            announce(_passed(name, task_id, given))
        return _readable(app, name, message)

    amqp.__class__ = type(base.__name__, (base,), {"as_task_v2": as_task_v2})
    amqp.task_protocols = {**amqp.task_protocols, 2: amqp.as_task_v2}
    vars(amqp).pop("create_task_message", None)


def _pass_values_to_chords(app: Celery[Any]) -> None:
    """Let the body of a chord of *app* learn how good what its members were given was.

    A member that is a task of Celery's own returns a plain value: what it was made from is in the
    headers of its request. The body learns as well what its members have seen.
    """
    make = app._get_backend  # type: ignore[attr-defined] # noqa: SLF001 - see decision 022

    def make_backend() -> Any:  # noqa: ANN401 - of any class
        backend: Any = make()
        end_part, itself = type(backend).on_chord_part_return, weakref.ref(backend)  # no cycle

        def on_chord_part_return(
            request: Context,
            state: str,
            result: Any,  # noqa: ANN401 - of any task
            **options: Any,  # noqa: ANN401 - as Celery's
        ) -> Any:  # noqa: ANN401 - as Celery's
            given = _given_to(request) if state == SUCCESS else None
            if given is not None and not isinstance(result, Outcome):
                result = carry(given, result)
            marks_of(request)["chord"] = request.group
            try:
                return end_part(itself(), request, state, result, **options)
            finally:
                del marks_of(request)["chord"]

        backend.on_chord_part_return = on_chord_part_return
        share_at_end(backend)
        return backend

    app._get_backend = make_backend  # type: ignore[attr-defined] # noqa: SLF001 - as above


def _pass_values_eagerly(app: Celery[Any]) -> None:
    """Let plain tasks of *app* that run eagerly, without a message, be given values as well.

    How good they are does not travel further then.
    """
    kind: Any = app.Task
    apply = kind.apply
    if getattr(apply, "passes_values", False):
        return

    @functools.wraps(apply)
    def apply_value(
        self: Any,  # noqa: ANN401 - a task
        args: Any = None,  # noqa: ANN401 - as Celery's
        kwargs: Any = None,  # noqa: ANN401 - as Celery's
        *more: Any,  # noqa: ANN401 - as Celery's
        **options: Any,  # noqa: ANN401 - as Celery's
    ) -> Any:  # noqa: ANN401 - as Celery's
        return apply(self, *values_of(args, kwargs), *more, **options)

    apply_value.passes_values = True  # type: ignore[attr-defined] # a mark
    kind.apply = apply_value


def _given_to(request: Context | None) -> Outcome[Any] | None:
    """Return what the job with *request* was given or has read; None: neither says how good."""
    return worst([stale_reads(), level_of(request)])


def _passed(name: str, task_id: object, given: Outcome[Any]) -> DegradedValuePassed:
    return DegradedValuePassed(
        task=name,
        id=str(task_id),
        dependency=given.dependency,
        level=given.level,
        reason=given.reason,
        source=given.source,
        age=given.age,
    )


def _readable(app: Celery[Any], name: str, message: Any) -> Any:  # noqa: ANN401 - Celery's
    """Return *message* so that its arguments arrive as given; of Celery's own tasks as it is."""
    task: Any = app.tasks.get(name)
    if not hasattr(task, "dependency"):
        return message
    if task.idempotency_key is not None:
        check_texts(task, *message.body[:2])
    body = escaped(message.body)
    return message if body is message.body else message._replace(body=body)


def _write_down(embed: dict[str, Any], level: Mapping[str, Any]) -> None:
    """Write the header *level* into all signatures of a message that will get its task's value."""
    if embed["callbacks"]:
        embed["callbacks"] = [_marked(sig, level) for sig in embed["callbacks"]]
    if embed["chord"]:
        embed["chord"] = _marked(embed["chord"], level)
    if embed["chain"]:  # the next one is the last
        embed["chain"] = _marked_line(embed["chain"][::-1], level)[::-1]


def _marked_line(sigs: Sequence[Any], level: Mapping[str, Any]) -> list[Any]:
    """Return signatures that follow each other, marked up to the first that takes no value."""
    line = list(sigs)
    for number, sig in enumerate(line):
        if sig.get("immutable"):
            break
        line[number] = _marked(sig, level)
    return line


def _marked(sig: Mapping[str, Any], level: Mapping[str, Any]) -> dict[str, Any]:
    """Return the signature *sig* with the header *level*, and so all within and behind it."""
    if sig.get("immutable"):
        return dict(sig)
    kind, inner, options = sig.get("subtask_type"), dict(sig["kwargs"]), dict(sig["options"])
    if kind == "chain":
        inner["tasks"] = _marked_line(inner["tasks"], level)
    elif kind == "group":
        inner["tasks"] = [_marked(one, level) for one in inner["tasks"]]
    elif kind == "chord":
        header = inner["header"]
        many = isinstance(header, (list, tuple))
        inner["header"] = (
            [_marked(one, level) for one in header] if many else _marked(header, level)
        )
        inner["body"] = _marked(inner["body"], level)
    else:
        options["headers"] = {**(options.get("headers") or {}), **level}
    if options.get("link"):
        links = options["link"]
        links = links if isinstance(links, (list, tuple)) else [links]
        options["link"] = [_marked(one, level) for one in links]
    if options.get("chord"):
        options["chord"] = _marked(options["chord"], level)
    if options.get("chain"):
        options["chain"] = _marked_line(options["chain"][::-1], level)[::-1]
    return {**sig, "kwargs": inner, "options": options}
