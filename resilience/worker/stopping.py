"""Ends the jobs of dependencies in a worker that is to stop, after a grace period at the latest."""

import functools
import logging
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

from celery import bootsteps
from celery.bootsteps import TERMINATE  # type: ignore[attr-defined] # missing in the stubs
from celery.concurrency import prefork
from celery.signals import worker_shutting_down
from celery.worker import state

from resilience.compat import acknowledge_ended
from resilience.tasks.resilience import Resilience
from resilience.text import get_logger
from resilience.worker.liveness import worker_mark

logger = get_logger(__name__)

SPARE_SECONDS = 5.0
"""How much longer than the longest timeout the grace period is, unless a setting says it."""
LOOK_SECONDS = 0.25
"""How often a pool of threads is looked at for plain jobs that still run."""
HAND_BACK_SECONDS = 5.0
"""What a process manager adds to the grace period before it kills: jobs are handed back in it."""


def grace_seconds(resilience: Resilience) -> float:
    """Return how long after SIGTERM jobs of dependencies may run: as set, or as timeouts need."""
    if resilience.settings.grace_seconds is not None:
        return resilience.settings.grace_seconds
    timeouts = [one.timeout for one in resilience.dependencies.values() if one.timeout]
    return max(timeouts, default=0.0) + SPARE_SECONDS


def stop_seconds(resilience: Resilience) -> float:
    """Return how long after SIGTERM a process manager may kill a worker without loss of time."""
    return grace_seconds(resilience) + HAND_BACK_SECONDS


class GracefulStop(bootsteps.StartStopStep):
    """Hands back to the broker what a worker that stops will not end.

    Celery waits for running jobs as long as they take, and so it does here for those of tasks
    without a dependency. Jobs that were not begun go back as soon as the worker stops. Jobs of
    dependencies that still run after the grace period are cut and go back.
    """

    def __init__(self, parent: Any, **options: Any) -> None:  # noqa: ANN401 - Celery's signature
        """Prepare; nothing happens before the worker is told to stop."""
        super().__init__(parent, **options)
        # Its `put` may interrupt itself, as a second signal does; no lock could be taken there.
        self._told: SimpleQueue[None] = SimpleQueue()
        self._reserved: Sequence[Any] = ()
        self._is_process = False

    def start(self, parent: Any) -> None:  # noqa: ANN401 - Celery's signature
        """Await the stop, if this worker is the process: one in a test's thread must not end it."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._is_process = True
        worker_shutting_down.connect(self._on_signal, weak=False)
        threading.Thread(
            target=self._await_end,
            args=(parent, grace_seconds(Resilience.of(parent.app))),
            name="graceful-stop",
            daemon=True,
        ).start()

    def close(self, parent: Any) -> None:  # noqa: ANN401 - Celery's signature
        """Hand back what the pool does not have; the event loop has ended, so it gets no more."""
        self._told.put(None)
        if self._is_process and state.should_stop is None:
            # Told by remote control: the broker's channel is to know that running jobs end, too.
            state.should_stop = os.EX_OK  # type: ignore[assignment] # as Celery does
        if isinstance(parent.pool, prefork.TaskPool):
            pool: Any = parent.pool
            pool.flush = functools.partial(_flush, pool)
        for request in self._reserved:
            # Without a result to come it was not given to the pool, and is in no child's pipe.
            if (
                request._apply_result is None  # noqa: SLF001 - as above
                and not request.acknowledged
                and request not in state.active_requests
            ):
                request.reject(requeue=True)

    def _on_signal(self, **_: object) -> None:
        # Celery forgets them before it calls `close`.
        self._reserved = self._reserved or tuple(state.reserved_requests)
        self._told.put(None)

    def _await_end(self, parent: Any, grace: float) -> None:  # noqa: ANN401 - Celery's
        self._told.get()
        threading.Event().wait(grace)
        if parent.blueprint.state == TERMINATE:
            return
        running = tuple(state.active_requests)
        left = [one for one in running if is_bounded(one)]
        plain = [one for one in running if not is_bounded(one)]
        logger.warning(
            "the grace period of %g s is over: %d jobs are cut and handed back: %s; "
            "%d jobs of tasks without a dependency run on until they end: %s",
            grace,
            len(left),
            _named(left),
            len(plain),
            _named(plain),
        )
        if isinstance(parent.pool, prefork.TaskPool):
            _kill(parent.pool, left)
        elif parent.pool.is_green:
            _kill_greenlets(parent.pool, left)
        elif not plain:
            _leave(parent)
        else:
            _leave_behind(parent, plain)


def is_bounded(request: Any) -> bool:  # noqa: ANN401 - Celery's
    """Tell whether the job of *request* is one of a dependency, and has the grace period to end."""
    return getattr(request.task, "dependency", None) is not None


def _named(requests: Sequence[Any]) -> str:
    return ", ".join(f"{one.name}[{one.id}]" for one in requests) or "none"


def _leave_behind(parent: Any, plain: Sequence[Any]) -> None:  # noqa: ANN401 - Celery's
    """End the process when the *plain* jobs have ended, and are acknowledged.

    Threads of other jobs cannot be cut before.
    """
    while any(one in state.active_requests or not one.acknowledged for one in plain):
        threading.Event().wait(LOOK_SECONDS)
    if any(is_bounded(one) for one in tuple(state.active_requests)):
        _leave(parent)


def _flush(pool: Any) -> None:  # noqa: ANN401 - Celery's
    """Forget jobs that no child has, as Celery does, but not those that one has just been sent.

    Celery forgets these, too, if the child has not said yet that it began. It runs them all the
    same, nobody acknowledges them, and the child waits half a minute for somebody to hear of it.
    """
    billiard = pool._pool  # noqa: SLF001 - there is no other way to tell
    sent = {number: job for number, job in billiard._cache.items() if _was_sent(billiard, job)}  # noqa: SLF001
    billiard.flush()
    billiard._cache.update(sent)  # noqa: SLF001


def _was_sent(billiard: Any, job: Any) -> bool:  # noqa: ANN401 - billiard's
    find = getattr(job, "_writer", None)
    is_sent = find is not None and find() not in billiard._active_writers  # noqa: SLF001
    return is_sent and job._write_to is not None  # noqa: SLF001


def _kill(pool: Any, requests: Sequence[Any]) -> None:  # noqa: ANN401 - Celery's
    """Kill the children that run *requests*; the main thread reads what they said, and goes on.

    A message that is not acknowledged by then goes back when the connection is closed.
    """
    for request in requests:
        request.cancel(pool, signal="KILL", emit_retry=False)


def _kill_greenlets(pool: Any, requests: Sequence[Any]) -> None:  # noqa: ANN401 - Celery's
    """Kill the greenlets that run *requests*; the main greenlet then goes on."""
    for request in requests:
        # Celery would acknowledge a job whose greenlet was killed, as if it had ended well.
        request.acknowledged = True
        request._already_cancelled = True  # noqa: SLF001 - as Celery does
        pool.terminate_job(request.worker_pid)


def _leave(parent: Any) -> None:  # noqa: ANN401 - Celery's
    """End the process: a thread cannot be cut."""
    try:
        if parent.hub is not None:
            acknowledge_ended(parent.hub)
        else:
            parent.consumer.perform_pending_operations()
        parent.consumer.connection.close()  # hands back the rest
        worker_mark(parent).unlink(missing_ok=True)
        if parent.pidlock:
            parent.pidlock.release()
    except Exception:
        logger.exception(
            "jobs could not be handed back; they run again when the broker misses this worker"
        )
    with suppress(Exception):
        logging.shutdown()
    os._exit(os.EX_OK)
