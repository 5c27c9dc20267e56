"""A worker's mark: a small file that says whether it lives, loops and consumes."""

import json
import os
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

from celery.concurrency.solo import TaskPool as SoloPool
from celery.signals import worker_shutdown
from celery.worker import state

from resilience.broker.beside import Outage
from resilience.clock import SystemClock
from resilience.settings import Settings
from resilience.tasks.resilience import Resilience
from resilience.tasks.shared import NAMESPACE
from resilience.text import get_logger
from resilience.worker.beside import BesideWorker
from resilience.worker.probe import (
    SUFFIX,
    default_directory,
    expired,
    mark_path,
    read_mark,
    started_at,
    why_foreign,
)

logger = get_logger(__name__)

LOOKS = 15
"""How often in `health_seconds` the thread looks at most; that of a solo worker always does."""
LOOPS = 10
"""How often in `health_seconds` the event loop notes that it runs."""
MARKS = 5
"""How often in `health_seconds` a mark is written without news."""
ASKS = 3
"""How often in `health_seconds` the broker is asked whether jobs wait."""


def mark_directory(settings: Settings) -> Path:
    """Return where workers leave their marks, and probes find them."""
    return settings.runtime_directory or default_directory()


def identity(resilience: Resilience) -> dict[str, str]:
    """Return what tells the marks of an app from those of others on its host."""
    namespace = resilience.settings.namespace or NAMESPACE
    return {"app": str(resilience.app.main or ""), "namespace": namespace}


def worker_mark(parent: Any) -> Path:  # noqa: ANN401 - Celery's
    """Return where the worker *parent* leaves its mark."""
    resilience = Resilience.of(parent.app)
    return mark_path(mark_directory(resilience.settings), parent.hostname, **identity(resilience))


class Liveness(BesideWorker):
    """Leaves the mark of its worker for `resilience.worker.probe`.

    A mark is written every three seconds by default, and within two seconds of a change while the
    event loop runs. A thread writes it, so that a worker whose event loop hangs can still report
    so. A timer of the worker shows that the loop runs, and wakes the thread when there is news. A
    solo worker's loop does not run while its job does: there the thread looks for news itself. The
    broker is asked on a connection of its own.

    A bootstep that holds queues puts their names into the worker's `held_queues`: a worker that
    consumes from none of its queues is healthy if they are held.
    """

    thread_name = "liveness"

    def __init__(self, parent: Any, **options: Any) -> None:  # noqa: ANN401 - Celery's signature
        """Prepare; the first mark comes with the worker's start."""
        super().__init__(parent, **options)
        self._parent = parent
        self._clock = SystemClock()
        self._writing = Lock()
        self._path: Path | None = None
        self._connection: Any = None
        self._stopping = self._asks = False
        self._looped_at: float | None = None
        self._started = started_at(os.getpid())
        self._marked: dict[str, Any] = {}
        self._marked_at = float("-inf")
        self._begun_at = self._clock.monotonic()
        self._answered_at = self._asked_at = self._progressed_at = self._begun_at
        self._received = 0
        self._limit = 0.0
        self._longest = float("inf")  # wait of the thread
        self._queues: list[str] = []
        self._unanswered = Outage(
            logger,
            "the broker does not answer whether jobs wait",
            "the broker answers again whether jobs wait",
        )
        self._unwritten = Outage(
            logger, "the mark of this worker is not left", "the mark of this worker is left again"
        )

    def start(self, parent: Any) -> None:  # noqa: ANN401 - Celery's signature
        """Begin to leave marks."""
        settings = Resilience.of(parent.app).settings
        directory, self._limit = mark_directory(settings), settings.health_seconds
        if why_not := _unusable(directory):
            logger.warning("no probe will find this worker: %s", why_not)
            return
        for path in directory.glob(f"*{SUFFIX}"):
            if (text := read_mark(path)) is not None and expired(text):
                path.unlink(missing_ok=True)
        self._path = worker_mark(parent)
        self._queues = list(parent.app.amqp.queues.consume_from)
        worker_shutdown.connect(self._remove, weak=False)
        if isinstance(parent.pool, SoloPool):
            self._longest = self._limit / LOOKS
        parent.timer.call_repeatedly(self._limit / LOOPS, self._tick)
        super().start(parent)

    def stop(self, parent: Any) -> None:  # noqa: ANN401, ARG002 - Celery's signature
        """Say from now on that the worker stops; marks go on until its jobs have ended."""
        self._stopping = True
        self.hasten()

    close = terminate = stop

    def wanted(self, resilience: Resilience) -> bool:  # noqa: ARG002 - a hook
        """Tell that every worker is to have a mark."""
        return True

    def look(self, resilience: Resilience) -> float:
        """Leave a mark if there is news, or the last one is old; return the seconds to wait."""
        now = self._clock.monotonic()
        if now - self._asked_at >= self._limit / ASKS and not self._stopping:
            self._asked_at = now
            self._asks = True
            self._mark(resilience)  # a broker that is silent keeps this thread for long
            self._ask(resilience)
            self._asks = False
            self._mark(resilience)
        elif self._state() != self._marked or now - self._marked_at >= self._limit / MARKS:
            self._mark(resilience)
        due = self._marked_at + self._limit / MARKS
        if not self._stopping:
            due = min(due, self._asked_at + self._limit / ASKS)
        return min(self._longest, max(self._limit / LOOKS, due - self._clock.monotonic()))

    def _mark(self, resilience: Resilience) -> None:
        now = self._clock.monotonic()
        if self._is_blocked_by_job():
            self._looped_at = now  # the loop runs again when the job has ended
        state = self._state()
        self._marked, self._marked_at = state, now
        self._write({**self._origin(resilience), **self._times(), **state})

    def _state(self) -> dict[str, Any]:
        return {
            "starts": self._looped_at is None,
            "consumes": self._consumed(),
            "held": sorted(getattr(self._parent, "held_queues", ())),
            "stopping": self._stopping,
            "asks": self._asks,
            "broker_is_away": self._unanswered.is_on,
        }

    def _origin(self, resilience: Resilience) -> dict[str, Any]:
        return {
            "node": self._parent.hostname,
            **identity(resilience),
            "pid": os.getpid(),
            "started": self._started,
            "limit_seconds": self._limit,
        }

    def _times(self) -> dict[str, float | None]:
        return {
            "written_at": self._clock.monotonic(),
            "begun_at": self._begun_at,
            "looped_at": self._looped_at,
            "answered_at": self._answered_at,
            "progressed_at": self._progressed_at,
        }

    def _tick(self) -> None:
        if self._parent.hub is None:
            # The timer is a thread or greenlet of its own, and says nothing of the loop.
            self._parent.consumer.call_soon(self._loop)
        else:
            self._loop()

    def _loop(self) -> None:
        self._looped_at = self._clock.monotonic()
        if self._state() != self._marked:
            self.hasten()

    def _is_blocked_by_job(self) -> bool:
        """Tell whether a job runs in the main thread, so that the loop must wait for its end."""
        return isinstance(self._parent.pool, SoloPool) and bool(state.active_requests)

    def _consumed(self) -> list[str]:
        consumer = getattr(self._parent.consumer, "task_consumer", None)
        if consumer is None:
            return []
        names = [queue.name for queue in consumer.queues]
        return [name for name in names if consumer.consuming_from(name)]

    def _ask(self, resilience: Resilience) -> None:
        """Ask the broker whether jobs wait; an idle worker that takes none of them is stuck."""
        received = sum(state.total_count.values())
        moved, self._received = received != self._received, received
        try:
            if self._connection is None:
                self._connection = resilience.app.connection_for_read()
                self._connection.ensure_connection(max_retries=1)
            waiting = self._waiting(self._connection.default_channel)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is no answer
            self._unanswered.note(error)
            self._disconnect()
            # While the broker is away, no job waits for this worker.
            self._progressed_at = self._clock.monotonic()
            return
        self._unanswered.note(None)
        self._answered_at = self._clock.monotonic()
        if moved or not waiting or state.reserved_requests:
            self._progressed_at = self._answered_at

    def _waiting(self, channel: Any) -> bool:  # noqa: ANN401 - kombu's
        """Tell whether any of the queues that are consumed holds a job.

        Raises:
            Exception: The transport's; the broker does not answer.
        """
        consumed = self._consumed()
        if hasattr(channel, "holds_any"):  # Redis
            waits = channel.holds_any(self._queues)
            return bool(waits and consumed and channel.holds_any(consumed))
        waiting = False
        for name in self._queues:
            try:
                found = channel.queue_declare(name, passive=True)
            except self._connection.channel_errors:
                # RabbitMQ closes the channel where there is no such queue.
                if not getattr(channel, "is_open", True):
                    self._disconnect()
                    break
            else:
                waiting = waiting or (name in consumed and found.message_count > 0)
        return waiting

    def _disconnect(self) -> None:
        with suppress(Exception):
            self._connection.release()
        self._connection = None

    def _write(self, mark: dict[str, Any]) -> None:
        with self._writing:
            if self._path is None:
                return
            new = self._path.with_suffix(".new")
            try:
                new.unlink(missing_ok=True)  # of a worker that was killed, or planted by somebody
                file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
                with os.fdopen(file, "w") as opened:
                    opened.write(json.dumps(mark))
                new.replace(self._path)
            except OSError as error:
                self._unwritten.note(error)
            else:
                self._unwritten.note(None)

    def _remove(self, **_: object) -> None:
        with self._writing:
            path, self._path = self._path, None
            if path is not None:
                path.unlink(missing_ok=True)


def _unusable(directory: Path) -> str | None:
    """Make *directory* if it is missing; return why no mark can be left in it."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Where all may write, somebody else may have been first.
        return why_foreign(directory)
    except OSError as error:
        return str(error)
