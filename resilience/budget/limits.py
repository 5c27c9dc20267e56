"""Cut a call that takes too long, by whatever can cut it where it runs.

| where the call runs | how it is cut | what is not cut |
|---|---|---|
| coroutine | cancelled by `asyncio.timeout` | code that does not await |
| main thread (prefork, solo, a script) | SIGALRM unwinds it | C code that never returns |
| greenlet (gevent) | `gevent.Timeout` unwinds the call | code that does not yield |
| any other thread | the call runs in a helper thread that is left behind | see `HelperThreads` |
"""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from types import CoroutineType
from typing import Any

from resilience.budget.threads import AbandonedError, helper_threads
from resilience.budget.timer import Alarm
from resilience.errors import ConfigurationError

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
) -> Any:  # noqa: ANN401 - what the function returns
    """Return `function(*args, **kwargs)`, or raise *error()* once that has taken *seconds*.

    With no seconds left nothing is called. Nests: of two limits the one that ends first cuts. The
    module's table says what cuts where.

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
    try:
        return helper_threads.run(lambda: function(*args, **kwargs), seconds, interrupt=True)
    except AbandonedError as abandoned:
        raise error() from abandoned


def synchronous(value: Any, what: str) -> Any:  # noqa: ANN401 - handed on
    """Return *value*, unless it is still to be awaited: past every limit and fallback.

    Raises:
        TypeError: It is a coroutine.
    """
    if isinstance(value, CoroutineType):
        value.close()
        msg = f"{what} called a coroutine function; await the asynchronous form of this call"
        raise TypeError(msg)
    return value


def _greenlets_switch() -> bool:
    """Tell whether gevent has replaced what blocks: only then does a call let others run."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and monkey.is_module_patched("threading")


def _call_in_greenlet(
    seconds: float,
    error: Callable[[], BaseException],
    function: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> Any:  # noqa: ANN401 - what the function returns
    import gevent  # type: ignore[import-untyped] # noqa: PLC0415 - optional, and loaded already

    # A BaseException: code in the call that handles `Exception` cannot keep it.
    timeout = gevent.Timeout(seconds)
    timeout.start()
    try:
        return function(*args, **kwargs)
    except gevent.Timeout as cut:
        if cut is not timeout:
            raise
        raise error() from cut
    finally:
        timeout.close()


@asynccontextmanager
async def time_limit_async(
    seconds: float, error: Callable[[], BaseException]
) -> AsyncIterator[None]:
    """Raise *error()* once the block has run for *seconds*, and cancel what it awaits."""
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            yield
    except TimeoutError as late:
        if limit.expired():
            raise error() from late
        raise


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
