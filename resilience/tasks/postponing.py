"""A job whose task says so waits a moment for a replica to replay what the job is to see."""

from typing import Any, Final

from celery.app.task import Context
from celery.exceptions import Retry

from resilience.tasks.admission import going_on
from resilience.tasks.envelope import POSTPONED_HEADER, deadline_of, header, position_of
from resilience.tasks.positions import enter_session
from resilience.tasks.refusal import refusal_of
from resilience.text import get_logger

logger = get_logger(__name__)

POSTPONE_SECONDS: Final = 1.0
"""So long, once; then the primary answers."""


def begin_reading(task: Any, request: Context) -> None:  # noqa: ANN401 - a ResilientTask
    """Enter the session of the job with *request*, and postpone the job if it is to wait.

    Raises:
        Retry: The job has gone back, and no attempt is spent.
    """
    enter_session(task, request)  # a signal has done so already in an app with databases
    if (
        task.data_consistency != "delayed"
        or refusal_of(request) is not None
        or not _may_wait(task, request)
        or _is_covered(task, request)
    ):
        return
    request.update({POSTPONED_HEADER: True})
    try:
        task.postpone(request, POSTPONE_SECONDS)
    except Retry:
        raise
    except Exception as error:  # noqa: BLE001 - a broker's, a ledger's: then it runs now
        logger.warning("%s[%s] is not postponed: %r", task.name, request.id, error)


def publish_postponed(task: Any, request: Context, seconds: float) -> None:  # noqa: ANN401 - a ResilientTask
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


def _may_wait(task: Any, request: Context) -> bool:  # noqa: ANN401 - as above
    if request.is_eager or request.expires or header(request, POSTPONED_HEADER):
        return False
    deadline = deadline_of(request)
    return deadline is None or deadline.left(task.resilience.fleet_time()) > 2 * POSTPONE_SECONDS


def _is_covered(task: Any, request: Context) -> bool:  # noqa: ANN401 - as above
    """Tell whether replicas have replayed what the job with *request* is to see."""
    token = position_of(request, task.resilience.fleet_time)
    sources = task.resilience.sources.values()
    return token is None or all(databases.covers(token) for databases in sources)
