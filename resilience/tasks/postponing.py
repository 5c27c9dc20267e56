"""A job whose task says so waits a moment for a replica to replay what the job is to see."""

import logging
from typing import Any, Final

from celery.app.task import Context
from celery.exceptions import Retry

from resilience.tasks.admission import going_on
from resilience.tasks.envelope import POSTPONED_HEADER, deadline_of, header, position_of
from resilience.tasks.positions import begin
from resilience.tasks.refusal import refusal_of

logger = logging.getLogger(__name__)

POSTPONE_SECONDS: Final = 1.0
"""So long, once; then the primary answers."""


def begin_reading(task: Any, request: Context) -> None:  # noqa: ANN401 - a ResilientTask
    """Enter the session of the job with *request*, and decide where the job reads.

    Raises:
        Retry: Nowhere yet: the job has gone back, and no attempt is spent.
    """
    begin(task)  # a signal has done so already in an app with databases
    if task.data_consistency is None or refusal_of(request) is not None:
        return
    decision = _decide(task, request)
    request.update(resilience_reads=decision)
    level = logging.INFO if decision == "postponed" else logging.DEBUG
    logger.log(level, "%s[%s] reads: %s", task.name, request.id, decision)
    if decision == "postponed":
        request.update({POSTPONED_HEADER: True})
        try:
            task.put_off(request, POSTPONE_SECONDS)
        except Retry:
            raise
        except Exception as error:  # noqa: BLE001 - a broker's, a ledger's: then it runs now
            logger.warning("%s[%s] is not postponed: %r", task.name, request.id, error)


def publish_again(task: Any, request: Context, seconds: float) -> None:  # noqa: ANN401 - a ResilientTask
    """Publish the job with *request* once more, as it is, to be run in *seconds*.

    Raises:
        Retry: It is published.
        Exception: The broker's: it is not.
    """
    with going_on():
        task.signature_from_request(
            request, countdown=seconds, retries=request.retries
        ).apply_async()
    msg = f"postponed for {seconds:g} s, for a replica to catch up"
    raise Retry(msg, when=seconds)  # type: ignore[arg-type] # any number


def _decide(task: Any, request: Context) -> str:  # noqa: ANN401 - as above
    """Return where the job reads: `primary` or `replica`; or that it is to be `postponed`."""
    if task.data_consistency == "always":
        return "primary"
    token = position_of(request)
    sources = task.resilience.sources.values()
    if token is None or all(databases.covers(token) for databases in sources):
        return "replica"
    return (
        "postponed"
        if task.data_consistency == "delayed" and _may_wait(task, request)
        else "primary"
    )


def _may_wait(task: Any, request: Context) -> bool:  # noqa: ANN401 - as above
    if request.is_eager or request.expires or header(request, POSTPONED_HEADER):
        return False
    deadline = deadline_of(request)
    return deadline is None or deadline.left(task.resilience.fleet_time()) > 2 * POSTPONE_SECONDS
