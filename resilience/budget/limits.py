"""Cut a call that takes too long, by whatever can cut it where it runs.

| where the call runs | how it is cut | what is not cut |
|---|---|---|
| coroutine | cancelled by `asyncio.timeout` | code that does not await |
| main thread (prefork, solo, a script) | SIGALRM unwinds it | C code that never returns |
| greenlet (gevent) | a timer of its hub unwinds it | code that does not yield |
| job thread (threads pool) | an exception set from outside unwinds the job's body | see `Job` |
| any other thread | the call runs in a helper thread that is left behind | see `HelperThreads` |
| the same, on a connection | its socket is shut down: the call ends | a call that waits for more |

Code that handles or stores what cuts it is cut again every `AGAIN_SECONDS` until it ends. A call
that was cut ends in its limit's error even if it returns something in the end.
"""

import asyncio
import functools
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import CoroutineType, TracebackType
from typing import Any

from resilience.budget.jobs import NEVER, current_job
from resilience.budget.threads import AbandonedError, helper_threads
from resilience.budget.timer import AGAIN_SECONDS, Alarm, Cut, has_cut
from resilience.budget.watching import hung_up_after
from resilience.errors import ConfigurationError, as_bug

SECONDS_MAX = 366 * 86_400.0
"""Longer limits are none."""


_get_ident = threading.get_ident


def _note_main_thread() -> None:
    """Note which thread the main one is; in a forked child the one that forked."""
    global _main_thread  # noqa: PLW0603 - to ask `threading` each time is slower than the rest
    _main_thread = threading.main_thread().ident


_main_thread: int | None = None
_note_main_thread()
os.register_at_fork(after_in_child=_note_main_thread)


def call_within(
    seconds: float,
    error: Callable[[], BaseException],
    function: Callable[..., Any],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    owner: object = None,
    file: int | None = None,
) -> Any:  # noqa: ANN401 - what the function returns
    """Return `function(*args, **kwargs)`, or raise *error()* once that has taken *seconds*.

    In a job thread a limit of its *owner* cuts where the job runs; see `Job`. With no seconds left
    nothing is called. Nests: of two limits the one that ends first cuts. The module's table says
    what cuts where. A function that waits for an answer on one socket, *file*, is never left behind
    in a helper thread; its connection cannot be used again after it was cut.

    Raises:
        TooManyAbandonedError: In a thread that is not the main one: so many calls that were cut
            still run that no other is begun.
    """
    if seconds <= 0:  # which timers take for "never"
        raise error()
    kwargs = kwargs or {}
    if "gevent" in sys.modules and _greenlets_switch():
        return _call_in_greenlet(seconds, error, function, args, kwargs)
    if _get_ident() == _main_thread:
        with Alarm(seconds, error):
            return function(*args, **kwargs)
    call = functools.partial(function, *args, **kwargs)
    return _call_in_thread(seconds, error, call, owner, file)


def synchronous(value: Any, what: str) -> Any:  # noqa: ANN401 - handed on
    """Return *value*, unless it is still to be awaited: past every limit and fallback.

    Raises:
        TypeError: It is a coroutine.
    """
    if isinstance(value, CoroutineType):
        value.close()
        msg = f"{what} called a coroutine function; await the asynchronous form of this call"
        raise as_bug(TypeError(msg))
    return value


def _greenlets_switch() -> bool:
    """Tell whether gevent has replaced what blocks: only then does a call let others run."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and monkey.is_module_patched("threading")


def _call_in_thread(
    seconds: float,
    error: Callable[[], BaseException],
    function: Callable[[], Any],
    owner: object,
    file: int | None,
) -> Any:  # noqa: ANN401 - what the function returns
    job = current_job()
    if job is not None and job.takes(owner):
        return job.call_within(seconds, error, function)
    outer = NEVER if job is None else job.left()
    try:
        if file is not None:
            return hung_up_after(min(seconds, outer), file, function)
        return helper_threads.run(function, min(seconds, outer), interrupt=True)
    except AbandonedError as abandoned:
        if job is not None and outer < seconds:
            job.cut_here()
        raise error() from abandoned


def _call_in_greenlet(
    seconds: float,
    error: Callable[[], BaseException],
    function: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> Any:  # noqa: ANN401 - what the function returns
    import gevent  # type: ignore[import-untyped] # noqa: PLC0415 - optional, and loaded already

    limit, greenlet = object(), gevent.getcurrent()
    cut = False

    def ring() -> None:
        nonlocal cut
        cut = True
        greenlet.throw(Cut(limit, seconds, error))

    # What `gevent.Timeout` does, which raises once only.
    timer = gevent.get_hub().loop.timer(seconds, AGAIN_SECONDS)
    timer.start(ring, update=True)
    try:
        value = function(*args, **kwargs)
    except BaseException as raised:
        if has_cut(limit, raised):
            raise error() from raised
        raise
    finally:
        timer.stop()
        timer.close()
    if cut:
        raise error()
    return value


def time_limit_async(
    seconds: float, error: Callable[[], BaseException]
) -> AbstractAsyncContextManager[None]:
    """Raise *error()* once the block has run for *seconds*, and cancel what it awaits."""
    return _AsyncLimit(seconds, error)


class _AsyncLimit(AbstractAsyncContextManager[None]):
    """Does what `asyncio.timeout` does, but cancels the block until it ends."""

    __slots__ = ("_before", "_cut", "_error", "_loop", "_seconds", "_task", "_timer")

    def __init__(self, seconds: float, error: Callable[[], BaseException]) -> None:
        self._seconds = seconds
        self._error = error
        self._cut = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            msg = "a limit in time needs a running task"
            raise RuntimeError(msg)
        self._task = task
        self._before = task.cancelling()
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(self._seconds, self._ring)

    def _ring(self) -> None:
        self._task.cancel()
        if self._cut:
            self._task.uncancel()  # all the cuts count as one request
        self._cut = True
        self._timer = self._loop.call_later(AGAIN_SECONDS, self._ring)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        if not self._cut:
            return
        others = self._task.uncancel() > self._before  # somebody else cancels the task, too
        if error is None or isinstance(error, TimeoutError):
            raise self._error() from error
        if isinstance(error, asyncio.CancelledError) and not others:
            raise self._error() from error


def is_number(value: object) -> bool:
    """Tell whether *value* is a number, which a bool is not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def checked_seconds(seconds: float, where: str) -> float:
    """Return *seconds* if they are a length of time.

    Raises:
        ConfigurationError: They are none.
    """
    if not is_number(seconds) or not 0 < seconds <= SECONDS_MAX:
        msg = f"{where}: seconds must be more than 0 and at most a year, got {seconds!r}"
        raise ConfigurationError(msg)
    return float(seconds)
