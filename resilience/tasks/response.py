"""From what a fan-out collected to the response that everybody gets."""

from dataclasses import replace
from typing import Any

from celery import Signature, signature
from celery.canvas import _chain, chord, group
from celery.exceptions import SoftTimeLimitExceeded

from resilience.consistency import ConsistentSession, Token, current_session, in_session
from resilience.errors import BUGS, StoreUnavailableError, text_of
from resilience.events import FanOutFinished, PublishFailed
from resilience.levels import Level
from resilience.outcome import Outcome
from resilience.partial import PartAnswer, PartialResponse, assemble, outcome_of
from resilience.store import Record
from resilience.tasks.admission import going_on
from resilience.tasks.deadline import no_budget
from resilience.tasks.positions import token_of_parts
from resilience.tasks.publishing import BROKER_ERRORS
from resilience.tasks.resilience import Resilience
from resilience.tasks.serialization import loads

NOT_IN_TIME = "DeadlineExceeded"
"""Reason of a part that had not answered when the fan-out ended."""
UNREADABLE = "UnreadableAnswer"
"""Begins the reason of a part whose answer this process cannot read."""


def respond(resilience: Resilience, fan: str, record: Record) -> PartialResponse:
    """Return the response that an ended *record* amounts to; announce it if nobody has."""
    response = assemble(part_answer(record, name, required) for name, required in record.spec)
    session = current_session()
    if session is not None:  # it sees what the parts have seen
        session.join(replace(token_of_parts(resilience, record.seen), session=None))
    if record.first:
        announce_finished(resilience, fan, str(record.final), response)
    return response


def announce_finished(
    resilience: Resilience, fan: str, ended: str, response: PartialResponse
) -> None:
    """Announce the *response* of a fan-out, and why it *ended*."""
    event = FanOutFinished(
        id=fan,
        ended=ended,
        level=response.level,
        missing=tuple(response.missing),
        degraded=tuple(response.degraded),
    )
    resilience.announce(event)


def part_answer(record: Record, name: str, required: bool) -> PartAnswer:  # noqa: FBT001 - a pair of the spec
    """Return what became of the part *name*."""
    payload = record.ended.get(name)
    if payload is not None and payload.startswith(b"+"):
        return came_in(name, payload, required=required)
    why = {} if payload is None else _failure(payload)
    reason = why.get("reason", NOT_IN_TIME if record.final != "unpublished" else "Unpublished")
    if name in record.stale:
        value, age = record.stale[name]
        value = value.value if isinstance(value, Outcome) else value
        outcome = Outcome(value=value, level=Level.STALE, reason=reason, source="stale", age=age)
        return PartAnswer(name=name, outcome=outcome, reason=reason, required=required)
    return PartAnswer(
        name=name,
        outcome=None,
        reason=reason,
        retry_after=why.get("retry_after"),
        required=required,
    )


def came_in(name: str, payload: bytes, *, required: bool) -> PartAnswer:
    """Return the answer that the payload of a successful part holds; unreadable, it is missing."""
    try:
        outcome = outcome_of(loads(payload[1:]))
    except Exception as error:  # noqa: BLE001 - of any type that an app registers
        reason = f"{UNREADABLE}: {type(error).__name__}"
        return PartAnswer(name=name, outcome=None, reason=reason, required=required)
    return PartAnswer(name=name, outcome=outcome, reason=outcome.reason, required=required)


def _failure(payload: bytes) -> dict[str, Any]:
    try:
        return dict(loads(payload[1:]))
    except Exception as error:  # noqa: BLE001 - as above
        return {"reason": f"{UNREADABLE}: {type(error).__name__}"}


def publish_callback(
    resilience: Resilience, fan: str, text: str | bytes, response: PartialResponse, seen: Token
) -> None:
    """Publish the callback whose JSON is *text* with *response* as first argument.

    It sees what the parts had *seen*. Its task id is derived from the fan-out's, so that one
    published twice can be told.
    """
    callback: Signature[Any] = signature(loads(text), app=resilience.app)
    options: dict[str, Any] = {}
    if not isinstance(callback, (_chain, chord, group)) and "ignore_result" not in callback.options:
        # Its result is stored, but not waited for here: to subscribe to it would make the publish
        # depend on the result backend.
        headers = {**(callback.options.get("headers") or {}), "ignore_result": False}
        options = {"ignore_result": True, "headers": headers}
    with (
        in_session(ConsistentSession(token=seen)),
        no_budget(),
        going_on(),
    ):  # the budget of the fan-out is spent, and this is what hears of it
        callback.apply_async((response,), task_id=f"{fan}-complete", add_to_parent=False, **options)


def deliver_callback(resilience: Resilience, fan: str) -> None:
    """Publish the callback of an ended fan-out, if it has one.

    Never raises but for a soft time limit: it runs in the task of a part that happened to be the
    last. What fails because the broker is away is done again by a worker within seconds, as the
    record stays due; what would fail again is announced and given up.
    """
    try:
        record = resilience.fan_in.collect(fan)
        if record is None or record.callback is None:
            return
        try:
            response = respond(resilience, fan, record)
            seen = token_of_parts(resilience, record.seen)
            publish_callback(resilience, fan, record.callback, response, seen)
        except SoftTimeLimitExceeded:
            raise
        except Exception as error:  # noqa: BLE001 - another's task must not fail of it
            what = f"callback of fan-out {fan}"
            resilience.announce(PublishFailed(what=what, error=text_of(error)))
            if _may_pass(error):
                return
        resilience.fan_in.settle(fan)
    except StoreUnavailableError:
        return


def _may_pass(error: Exception) -> bool:
    return isinstance(error, BROKER_ERRORS) and not isinstance(error, BUGS)
