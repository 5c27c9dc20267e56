"""What a job has written and seen travels with all that is published by it and because of it.

Each job runs in a session of its own, which begins with what its publisher had seen and ends with
the job. The body of a chord begins with what all members have seen.
"""

import json
import weakref
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

from celery import Task, signals
from celery._state import get_current_app, get_current_task
from celery.app.task import Context

from resilience.clock import SystemClock
from resilience.consistency import Token, current_session
from resilience.consistency.session import PRIMARY, enter, lag_of
from resilience.errors import StoreUnavailableError
from resilience.levels import Level
from resilience.outcome import Outcome
from resilience.tasks.carried import carry
from resilience.tasks.envelope import POSITION_HEADER, lost_token, position_of
from resilience.tasks.marks import marks_of
from resilience.tasks.publisher import app_here
from resilience.text import get_logger

logger = get_logger(__name__)

READ_STALE: Final = "ReadStale"
"""Reason of an answer that was made from a read that was marked."""
UNLOCK: Final = "celery.chord_unlock"
"""Celery's task that publishes the body of a chord, on a result backend that counts no members."""


def watch_jobs() -> None:
    """Let every job of an adopted app that this process begins from now on run in a session."""
    for signal, receiver in ((signals.task_prerun, begin), (signals.task_postrun, end)):
        signal.connect(receiver, weak=False, dispatch_uid=f"{__name__}.{receiver.__name__}")


def begin(task: Any, **_: object) -> None:  # noqa: ANN401 - a task
    """Enter the session of the job that *task* runs, if it has not entered it."""
    request = task.request_stack.top
    if request is not None:
        enter_session(task, request)


def enter_session(task: Any, request: Context) -> None:  # noqa: ANN401 - a task
    """Do so for the job with *request*, which *task* runs."""
    resilience = getattr(task.app, "resilience", None)
    if resilience is None or _session(request) is not None:
        return
    token = position_of(request, resilience.fleet_time)
    if token is None and not resilience.sources:
        return
    # Without databases here the signals are not connected yet, and task_postrun must end this
    # session.
    watch_jobs()
    session = resilience.consistent_session(token=token)
    # Only a job that runs eagerly has anybody around it; a thread is used again.
    outer = current_session() if request.is_eager else None
    if outer is not None:
        session.outer = outer
        session.join(outer.token())
    consistency = getattr(task, "data_consistency", None)
    if consistency == "always":
        session.using = PRIMARY
    elif consistency is not None:
        session.sticky = True
    marks_of(request)["session"] = session
    enter(session)


def end(task: Any, **_: object) -> None:  # noqa: ANN401 - a task
    """Leave the session of the job that *task* ran, which is over with it."""
    request = task.request_stack.top
    session = None if request is None else _session(request)
    if session is not None:
        enter(session.outer)
        session.close()


def token_here() -> Token | None:
    """Return what the code that runs here has written and seen; None: nobody knows of anything."""
    session, job = current_session(), _job_here()
    if session is not None:
        try:
            return session.token()
        except Exception:  # whatever a driver raises: what is published must not seem to know
            logger.exception("what the session has read is not known")
            return lost_token(_fleet_time())
    return None if job is None else position_of(job[1], _fleet_time)


def hand_on_position(headers: dict[str, Any]) -> None:
    """Let the message with *headers*, which is published here, carry what has been seen here."""
    job = _job_here()
    if job is None and current_session() is None:
        return
    group = None if job is None else _chord_to_publish(job[1], headers)
    if job is not None and group is not None:
        resilience, request = job
        marks_of(request)["chord_seen"] = True
        _see(request, _seen_by_members(resilience, group))
    token, given = token_here(), position_of(headers, _fleet_time)
    if token is not None:
        token = token if given is None else given.merged(token)
        if token:
            headers[POSITION_HEADER] = token.to_json()


def share_at_end(backend: Any) -> None:  # noqa: ANN401 - of any class
    """Let *backend* share what a job has seen before anybody can hear that it has ended."""
    itself, kind = weakref.ref(backend), type(backend)

    def sharing(name: str) -> Any:  # noqa: ANN401 - a method
        method = getattr(kind, name)

        def end_job(task_id: str, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - as Celery's
            job = _job_here()
            if job is not None and job[1].id == task_id:
                _share(*job)
            return method(itself(), task_id, *args, **options)

        return end_job

    def set_chord_size(group: str, members: int) -> Any:  # noqa: ANN401 - as Celery's
        resilience = itself().app.resilience  # type: ignore[union-attr] # it is called
        if resilience.sources or token_here():
            with suppress(StoreUnavailableError):  # the body then learns that nobody knows
                resilience.chords.expect(group, members)
        return kind.set_chord_size(itself(), group, members)

    backend.mark_as_done, backend.mark_as_failure = map(
        sharing, ("mark_as_done", "mark_as_failure")
    )
    backend.set_chord_size = set_chord_size


def stale_reads() -> Outcome[Any] | None:
    """Return how good the reads of the job that runs were, without a value; None: no fault."""
    if current_session() is None:
        return None  # it has read nothing; to look for the job would take ten times as long
    job = _job_here()
    session = None if job is None else _session(job[1])
    if session is None or not session.marks:
        return None
    worst = max(session.marks, key=lag_of)
    return Outcome(
        value=None,
        level=Level.STALE,
        reason=READ_STALE,
        source=worst.source,
        age=worst.lag_seconds,
    )


def with_reads(value: Any) -> Any:  # noqa: ANN401 - of any task
    """Return *value*, as an outcome if a read of the job that runs was marked."""
    stale = stale_reads()
    return value if stale is None else carry(stale, value)


def token_of_parts(resilience: Any, texts: Iterable[str | bytes]) -> Token:  # noqa: ANN401 - a `Resilience`
    """Return the least token that stands for all of *texts*, which `Token.to_json` made."""
    whole = Token()
    for text in texts:
        try:
            whole = whole.merged(Token.from_json(json.loads(text)))
        except (ValueError, RecursionError):
            whole = whole.merged(lost_token(resilience.fleet_time()))
    return whole


def primaries_now(resilience: Any) -> Token:  # noqa: ANN401 - a `Resilience`
    """Return a token for all that has been committed until now where there are replicas."""
    token = Token()
    for name, databases in resilience.sources.items():
        if databases.replicas:
            position = databases.measure_primary()
            lost = {name: resilience.fleet_time()} if position is None else {}
            known = {} if position is None else {name: position}
            token = token.merged(Token(positions=known, unknown=lost))
    return token


def _job_here() -> tuple[Any, Context] | None:
    """Return the `Resilience` and the request of the job that runs here, if its app is adopted."""
    task: Task[Any, Any] | None = get_current_task()
    resilience = None if task is None else getattr(task.app, "resilience", None)
    request = None if task is None else task.request_stack.top
    if resilience is None or request is None or request.called_directly:
        return None
    return resilience, request


def _fleet_time() -> float:
    """Return fleet time as the app counts it that runs or publishes here."""
    resilience = getattr(app_here() or get_current_app(), "resilience", None)
    return SystemClock.now() if resilience is None else float(resilience.fleet_time())


def _session(request: Context) -> Any:  # noqa: ANN401 - a `UserSession`, None: none was entered
    return marks_of(request).get("session")


def _share(resilience: Any, request: Context) -> None:  # noqa: ANN401 - a `Resilience`
    """Share what the job with *request* has seen with the body of its chord, and with its user."""
    session = _session(request)
    if session is not None:
        session.share()
    if request.chord and request.group:
        token = token_here()
        if token is not None:
            text = json.dumps(token.to_json())
            with suppress(StoreUnavailableError):  # then it is missing when they are counted
                resilience.chords.add(str(request.group), str(request.id), text)


def _chord_to_publish(request: Context, headers: dict[str, Any]) -> str | None:
    """Return the chord whose body the job with *request* begins to publish, with *headers*."""
    if "chord_seen" in marks_of(request):
        return None
    if request.get("task") == UNLOCK and headers.get("task") != UNLOCK:
        return str((request.args or ("",))[0])
    group: str | None = marks_of(request).get("chord")
    return group


def _seen_by_members(resilience: Any, group: str) -> Token:  # noqa: ANN401 - a `Resilience`
    """Return what the members of a chord have seen, all of whom have ended."""
    try:
        members, texts = resilience.chords.collect(group)
    except StoreUnavailableError:
        members, texts = None, []
    if members is None and not texts and not resilience.sources:
        return Token()  # nobody in this app reads or writes anything
    whole = token_of_parts(resilience, texts)
    if members is None or len(texts) < members:
        whole = whole.merged(lost_token(resilience.fleet_time()))
    return whole


def _see(request: Context, token: Token) -> None:
    """Let the job with *request*, and what it publishes, see all that *token* stands for."""
    session = current_session()
    if session is not None:
        session.join(token)
    elif token:
        given = position_of(request, _fleet_time)
        whole = token if given is None else given.merged(token)
        request.update({POSITION_HEADER: whole.to_json()})
