"""Ends a worker that is to stop, when its grace period is over at the latest."""

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

from resilience.tasks.resilience import Resilience
from resilience.worker.liveness import worker_mark

logger = logging.getLogger(__name__)

SPARE_SECONDS = 5.0
"""How much longer than the longest timeout the grace period is, unless a setting says it."""
HAND_BACK_SECONDS = 5.0
"""What a process manager adds to the grace period before it kills: jobs are handed back in it."""


def grace_seconds(resilience: Resilience) -> float:
    """Return how long after SIGTERM running jobs may end: as set, or to suit all timeouts."""
    if resilience.settings.grace_seconds is not None:
        return resilience.settings.grace_seconds
    timeouts = [one.timeout for one in resilience.dependencies.values() if one.timeout]
    return max(timeouts, default=0.0) + SPARE_SECONDS


def stop_seconds(resilience: Resilience) -> float:
    """Return how long after SIGTERM a process manager may kill a worker without loss of time."""
    return grace_seconds(resilience) + HAND_BACK_SECONDS


class GracefulStop(bootsteps.StartStopStep):
    """Hands back to the broker what a worker that stops will not end.

    Celery waits for running jobs as long as they take. Here, jobs that were not begun go back as
    soon as the worker stops, and those that still run after the grace period are cut and go back.
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
        left = tuple(state.active_requests)
        logger.warning(
            "the grace period of %g s is over: %d jobs are cut and handed back: %s",
            grace,
            len(left),
            ", ".join(f"{one.name}[{one.id}]" for one in left),
        )
        if isinstance(parent.pool, prefork.TaskPool):
            _kill(parent.pool, left)
        elif parent.pool.is_green:
            _kill_greenlets(parent.pool, left)
        else:
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
            # Acknowledges what has ended.
            prefork._run_ready_callbacks(parent.hub)  # type: ignore[attr-defined] # noqa: SLF001
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
