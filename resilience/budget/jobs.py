"""Jobs of a pool of threads: each runs in a thread that the pool's own can give up.

What frameworks keep by thread (a session, a database connection) belongs to a job: its signals and
its body must share one. So the pool's thread hands the whole job to a job thread and waits. A limit
in time that runs out cuts the body where it is. Only if it stays in C code is its thread given up:
the pool's thread then ends the job itself, and all that the other one still does is to clean up.
"""

import contextvars
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from resilience.budget.interrupts import Interruptible, reaper
from resilience.budget.threads import HelperThreads, helper_threads
from resilience.budget.timer import Cut, has_cut
from resilience.clock import SystemClock

GRACE_SECONDS = 0.1
"""A body that has not ended so long after its cut waits in C code, and its thread is given up."""

NEVER = float("inf")
_monotonic = SystemClock.monotonic
_own = threading.local()


class GivenUp(BaseException):
    """Unwinds a job whose thread was given up, so that it cleans up and reports nothing."""


class JobLimit(Interruptible):
    """The limit of a call that runs in a job thread.

    Attributes:
        due: When it is cut or given up next, in monotonic seconds.
        make_error: Makes the error that the call ends in.
    """

    __slots__ = ("due", "given_up", "make_error")

    def __init__(self, seconds: float, error: Callable[[], BaseException]) -> None:
        """Describe a call that may take *seconds* from now."""
        super().__init__(seconds, error)
        self.make_error = error
        self.due = _monotonic() + seconds
        self.given_up = False

    def give_up(self) -> bool:
        """Leave the call to itself, unless it has ended; return whether it had not."""
        with self._lock:
            self.given_up = not self.ended
        return self.given_up


class Job:
    """One job in a job thread.

    Attributes:
        owner: Whose limits hold in this thread; what others limit inside runs in a helper thread,
            as the job goes on if that is left behind.
        degrading: Turns the error of a fallback step that was cut into what `take_over` needs to
            continue with the next step; None while the body runs.
    """

    def __init__(
        self, owner: object, function: Callable[[], Any], expected_seconds: float | None
    ) -> None:
        """Describe a job whose first limit is probably *expected_seconds*; None: it has none."""
        self.owner = owner
        self.degrading: Callable[[BaseException], object] | None = None
        self._context = contextvars.copy_context()
        self._function = function
        self._mailbox: SimpleQueue[bool] = SimpleQueue()
        self._limit: JobLimit | None = None
        self._looks_at = NEVER if expected_seconds is None else _monotonic() + expected_seconds
        self._over = False
        self._value: Any = None
        self._error: BaseException | None = None

    def run(self, take_over: Callable[[object], Any]) -> Any:  # noqa: ANN401 - what the job returns
        """Return what the job returns, or *take_over(error)* if its thread is given up."""
        job_threads.give(self)
        while not self._over:
            seconds = None if self._looks_at == NEVER else max(0.0, self._looks_at - _monotonic())
            try:
                if self._mailbox.get(timeout=seconds):
                    return self._result()
            except Empty:
                pass  # it is time to look at the job
            self._look()
        limit = self._limit
        assert limit is not None  # noqa: S101 - or it would not be over
        degrading, error = self.degrading, limit.make_error()
        return take_over(error if degrading is None else degrading(error))

    def _look(self) -> None:
        """Cut or give up what is due, and note when to look again."""
        while True:
            limit = self._limit
            if limit is None or limit.ended:
                self._looks_at = NEVER
            elif _monotonic() < limit.due:
                self._looks_at = limit.due
            elif not limit.cuts:
                limit.cut()
                limit.due = self._looks_at = _monotonic() + GRACE_SECONDS
            elif self._give_up(limit):
                return
            if self._limit is limit:  # or the job has begun another meanwhile, and saw no need
                return

    def _give_up(self, limit: JobLimit) -> bool:
        helper_threads.left.add(self)  # first: it may end at once
        self._over = limit.give_up()
        if self._over:
            reaper.add(limit)
        else:
            helper_threads.left.discard(self)
        return self._over

    def work(self) -> bool:
        """Run the job; return whether its thread may be used again."""
        _own.job = self
        try:
            self._value = self._context.run(self._function)
        except BaseException as error:  # noqa: BLE001 - the pool's to handle
            self._error = error
        finally:
            _own.job = None
        if self._over:
            helper_threads.left.discard(self)
            return False
        self._mailbox.put(True)  # noqa: FBT003 - that it has ended
        return True

    def takes(self, owner: object) -> bool:
        """Tell whether a limit of *owner* holds here: it is the job's, and the outermost one."""
        return self.owner is owner and self._limit is None and not self._over

    def left(self) -> float:
        """Return the seconds that the call under a limit has left."""
        limit = self._limit
        return NEVER if limit is None or self._over else max(0.0, limit.due - _monotonic())

    def cut_here(self) -> None:
        """Do as if the cut had come: the limit runs out, and the call is back in Python code.

        Raises:
            Cut: Always.
        """
        limit = self._limit
        assert limit is not None  # noqa: S101 - `left` says how long it has
        raise Cut(limit, limit.seconds, limit.make_error)

    def call_within(
        self, seconds: float, error: Callable[[], BaseException], function: Callable[[], Any]
    ) -> Any:  # noqa: ANN401 - what the function returns
        """Return `function()`, or raise *error()* once that has taken *seconds*.

        Raises:
            TooManyAbandonedError: So many calls that were given up still run that it was not begun.
            GivenUp: The thread was given up meanwhile.
        """
        helper_threads.must_have_room()
        self._limit = limit = JobLimit(seconds, error)
        if limit.due < self._looks_at:
            self._mailbox.put(False)  # noqa: FBT003 - that there is something to look at
        try:
            value = limit.call(function)
        except BaseException as raised:
            if limit.given_up:
                self._over = True
                raise GivenUp from None
            if has_cut(limit, raised):
                raise error() from raised
            raise
        finally:
            if not limit.given_up:
                self._limit = None
        if limit.given_up:
            self._over = True
            raise GivenUp
        if limit.cuts:
            raise error()
        return value

    def _result(self) -> Any:  # noqa: ANN401 - what the job returned
        error, self._error = self._error, None
        if error is None:
            return self._value
        try:
            raise error
        finally:
            del error  # it holds this frame


def current_job() -> Job | None:
    """Return the job whose thread this is, None if it is no job thread."""
    job: Job | None = getattr(_own, "job", None)
    return job


job_threads = HelperThreads()
"""Those of this process. Nothing but jobs runs in them."""
