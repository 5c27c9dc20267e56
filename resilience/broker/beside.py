"""Work beside a process's main thread."""

import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from resilience.errors import text_of
from resilience.text import get_logger

logger = get_logger("resilience")

AGAIN_SECONDS = 1.0


class Beside:
    """A thread that looks, again and again, for what is to be done.

    The process forks between two looks, never during one: a process forked while this thread holds
    a lock of a client would wait for that lock for ever.
    """

    def __init__(
        self,
        name: str,
        look: Callable[[], float | None],
        *,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        """Prepare.

        Args:
            name: Of the thread.
            look: Does what is to be done, and returns the seconds until the next look; None: there
                will be nothing to do any more.
            wait: Waits for so many seconds, or for a reason to look earlier; `stop` does not end
                it. None: nothing but `stop` ends a wait.
        """
        self.looking = threading.RLock()
        self._look = look
        self._woken = threading.Event()
        self._is_stopped = False
        self._wait = wait or self._woken.wait
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        _forks.add(self)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def hasten(self) -> None:
        """Look now; during a look: once more at once."""
        self._woken.set()

    def stop(self, *, wait_seconds: float = 0.0) -> None:
        """Look no more; wait at most so long for a look under way."""
        self._is_stopped = True
        self._woken.set()
        self._thread.join(timeout=wait_seconds)

    def _run(self) -> None:
        wait: float | None = 0.0
        while wait is not None:
            self._wait(wait)
            self._woken.clear()
            if self._is_stopped:
                break
            with self.looking:
                try:
                    wait = self._look()
                except Exception:
                    # A defect: whatever else there is to do must not end with it.
                    logger.exception("%s", self._thread.name)
                    wait = AGAIN_SECONDS


class Outage:
    """Logs that something begins to fail, or fails in another way, and that it works again.

    Not each time that it fails: what is tried every second would fill the log in a day.
    """

    def __init__(self, logger: logging.Logger, begins: str, ends: str) -> None:
        """Prepare.

        Args:
            logger: Where to log.
            begins: What does not work; the error is added.
            ends: That it works again.
        """
        self._logger, self._begins, self._ends = logger, begins, ends
        self._kind: type[BaseException] | None = None

    @property
    def is_on(self) -> bool:
        """Whether it failed the last time."""
        return self._kind is not None

    def note(self, error: BaseException | None) -> None:
        """Note that it failed with *error*; None: it worked."""
        kind = None if error is None else type(error)
        if kind is self._kind:
            return
        self._kind = kind
        if error is None:
            self._logger.warning(self._ends)
        else:
            text = f"{type(error).__name__}: {text_of(error)}"
            self._logger.error("%s: %s", self._begins, text)


class _Forks:
    """Holds all looks while the process forks."""

    def __init__(self) -> None:
        self._all: weakref.WeakSet[Beside] = weakref.WeakSet()
        self._held: ExitStack | None = None
        os.register_at_fork(
            before=self._hold, after_in_parent=self._release, after_in_child=self._release
        )

    def add(self, one: Beside) -> None:
        self._all.add(one)

    def _hold(self) -> None:
        with ExitStack() as stack:
            for one in list(self._all):
                stack.enter_context(_held(one.looking))
            self._held = stack.pop_all()

    def _release(self) -> None:
        if self._held is not None:
            self._held.close()


@contextmanager
def _held(lock: "threading.RLock") -> Iterator[None]:
    with lock:
        yield


_forks = _Forks()
