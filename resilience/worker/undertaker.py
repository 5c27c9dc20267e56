"""What RabbitMQ gives up goes to the ledger's dead letters."""

from collections import deque
from typing import Any

from celery.exceptions import TaskRevokedError, WorkerLostError
from celery.utils.imports import symbol_by_name
from kombu.exceptions import OperationalError
from kombu.message import Message

from resilience.broker.beside import Outage
from resilience.broker.quorum import (
    DELIVERY_LIMIT,
    EXPIRED,
    REJECTED,
    RETURNED,
    dead_queue,
    set_aside_because,
)
from resilience.broker.transports import on_rabbitmq
from resilience.errors import ConfigurationError
from resilience.tasks.envelope import ledger_header
from resilience.tasks.fire import LEDGER_ERRORS
from resilience.tasks.kept import give_up, job_in
from resilience.tasks.publishing import BROKER_ERRORS
from resilience.tasks.resilience import Resilience
from resilience.text import get_logger
from resilience.worker.beside import BesideWorker
from resilience.worker.poison import end
from resilience.worker.request import ResilientRequest
from resilience.worker.results import logged, store_revoked

logger = get_logger(__name__)

LOOK_SECONDS = 5.0
SAID_MAX = 1000
"""Messages that are known to be no jobs."""


class Undertaker(BesideWorker):
    """Takes what the broker set aside, and makes dead letters of what has not ended otherwise.

    While the ledger is away the broker keeps it.
    """

    thread_name = "undertaker"

    def __init__(self, parent: Any, **options: Any) -> None:  # noqa: ANN401 - Celery's signature
        """Prepare."""
        super().__init__(parent, **options)
        self._said: deque[int] = deque(maxlen=SAID_MAX)
        self._broker = Outage(
            logger,
            "nobody looks after what the broker sets aside",
            "what the broker sets aside is looked after again",
        )
        self._queues: dict[str, Outage] = {}
        self._first = 0  # where the next look begins

    def wanted(self, resilience: Resilience) -> bool:
        """Tell whether the broker sets messages aside."""
        return on_rabbitmq(resilience.app)

    def look(self, resilience: Resilience) -> float:
        """Bury what was set aside of this worker's queues; return the seconds until the next look.

        Others look after theirs: all workers together ask once for each queue and its workers.
        A queue that cannot be emptied ends the look, and the next look begins behind it. After a
        crash RabbitMQ may have a queue that never answers: the others must not wait for it, and the
        process, which forks between two looks only, for no more than one wait.
        """
        own = resilience.app.amqp.queues.consume_from
        queues = [
            (one.name, queue)
            for one in resilience.dependencies.values()
            for queue in one.queues
            if queue in own
        ]
        lost: Exception | None = None
        try:
            for dependency, queue in queues[self._first :] + queues[: self._first]:
                if not self._look_into(resilience, dependency, queue):
                    self._first = queues.index((dependency, queue)) + 1
                    break
        except BROKER_ERRORS as error:
            lost = error
        self._broker.note(lost)
        return LOOK_SECONDS

    def _look_into(self, resilience: Resilience, dependency: str, name: str) -> bool:
        """Empty the queue and return true, or note why not.

        Raises:
            Exception: The broker's; there is no connection, for this queue or for another.
        """
        stays = f"what the broker set aside of queue {name} stays there"
        goes = f"what the broker set aside of queue {name} is taken again"
        outage = self._queues.setdefault(name, Outage(logger, stays, goes))
        lost: Exception | None = None
        channel: Any = None
        try:
            with resilience.app.connection_or_acquire() as connection:
                channel = connection.default_channel
                self._empty(resilience, channel, dependency, name)
        except (ConfigurationError, *LEDGER_ERRORS, *BROKER_ERRORS) as error:
            if channel is None:
                raise
            lost = error
        outage.note(lost)
        return lost is None

    def _empty(self, resilience: Resilience, channel: Any, dependency: str, name: str) -> None:  # noqa: ANN401 - kombu's
        queue: Any = dead_queue(name)(channel)
        queue.declare()
        odd: list[Message] = []
        try:
            while (message := queue.get()) is not None:
                try:
                    self._bury(resilience, message, dependency, name)
                except LEDGER_ERRORS:
                    _give_back(message)
                    raise
                except Exception as error:  # noqa: BLE001 - it is no job, in whatever way
                    odd.append(message)  # kept in hand, to be given what is behind it
                    self._say_once(queue.name, message, error)
                else:
                    message.ack()
        finally:
            for message in odd:
                _give_back(message)

    def _say_once(self, queue: str, message: Message, error: Exception) -> None:
        """Say that a *message* is no job, but not with every look."""
        known = hash((queue, message.body))
        if known not in self._said:
            self._said.append(known)
            logger.error("what is in queue %s is no job, and stays there: %r", queue, error)

    def _bury(self, resilience: Resilience, message: Message, dependency: str, queue: str) -> None:
        job = job_in(resilience.app, message, queue=queue, dependency=dependency)
        cause = set_aside_because(message.headers)
        if cause == REJECTED:  # the job has ended, and whoever waited for it knows
            logger.info("%s[%s] rejected its message, which is dropped", job.task, job.id)
            return
        reason, error = _why(cause)
        lost = cause != EXPIRED or ledger_header(message.headers)
        if lost:
            give_up(resilience, job, reason, error)
        task = resilience.app.tasks.get(job.task)
        kind: Any = symbol_by_name(task.Request) if task is not None else object
        if not issubclass(kind, ResilientRequest):
            return
        request = kind(message, app=resilience.app, task=task)
        if isinstance(error, TaskRevokedError):
            store_revoked([(request, error)])
            request.give_up(error)
        else:
            with logged(job.id):
                end(request, error)


def _why(cause: str) -> tuple[str, Exception]:
    """Return the reason of the dead letter that the broker set aside for *cause*, and its error."""
    if cause == RETURNED:
        times = f"it came back to the broker more than {DELIVERY_LIMIT} times"
        return "poison", WorkerLostError(times)
    if cause == EXPIRED:
        return "too_old", TaskRevokedError("expired before a worker took it")
    return "set_aside", OperationalError(f"the broker set it aside: {cause}")


def _give_back(message: Message) -> None:
    """Hand *message* back where it is: a copy for each look would be more every time."""
    channel: Any = message.channel
    channel.basic_reject(message.delivery_tag, requeue=True)
