"""Jobs of tasks that a worker does not know: Celery drops them."""

from typing import Any

from kombu.message import Message

from resilience.errors import UnkeepableError, text_of
from resilience.events import JobUnkept
from resilience.tasks.envelope import ledger_header, slot_of
from resilience.tasks.fire import LEDGER_ERRORS
from resilience.tasks.kept import give_up, job_in
from resilience.tasks.reporting import report_failure
from resilience.tasks.resilience import Resilience

REASON = "unknown_task"


def keep_unknown(resilience: Resilience, message: Message, error: Exception) -> bool:
    """Make a dead letter of *message* if its job must not get lost; tell whether it is safe.

    An operator replays the letter when the workers know its task.
    """
    if not ledger_header(message.headers):
        return True
    queue = str((message.delivery_info or {}).get("routing_key"))
    owners = (one.name for one in resilience.dependencies.values() if queue in one.queues)
    try:
        job = job_in(resilience.app, message, queue=queue, dependency=next(owners, ""))
        give_up(resilience, job, REASON, error)
    except (*LEDGER_ERRORS, UnkeepableError) as lost:
        headers: Any = message.headers
        said = {"task": str(headers.get("task")), "id": str(headers.get("id"))}
        resilience.announce(JobUnkept(error=text_of(lost), **said))
        return isinstance(lost, UnkeepableError)
    return True


def report_unknown(resilience: Resilience, message: Message, error: Exception) -> None:
    """Report to the fan-out whose part *message* is, if it is one, that it will not run."""
    slot = slot_of(message.headers)
    if slot is not None:
        report_failure(resilience, slot, error)
