"""Cuts from another thread that arrive while their call ends."""

import functools
import sys
import threading

import pytest

from resilience.budget.interrupts import Interruptible, Reaper
from resilience.budget.threads import AbandonedError
from resilience.budget.timer import Cut, has_cut
from tests.tracing import cuts_a_thread

SECONDS = 60.0
AGAIN_SECONDS = 0.02


class CutsComing:
    """A lock at which the first cuts of a call arrive that is about to end."""

    def __init__(self, cuts: int) -> None:
        self._cuts = cuts

    def __enter__(self) -> None:
        if self._cuts:
            self._cuts -= 1
            raise Cut(self, 1.0, AbandonedError)

    def __exit__(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("cuts", [1, 3])
def test_call_whose_cuts_arrive_as_it_ends_has_ended(cuts: int) -> None:
    """It is cut no more: its thread may do something else by then."""
    limited = Interruptible(1.0, AbandonedError)
    limited._lock = CutsComing(cuts)  # type: ignore[assignment]  # noqa: SLF001 - the moment is in there

    assert limited.call(lambda: 7) == 7
    assert limited.ended


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # lost in finalisers
@cuts_a_thread
def test_call_that_starts_threads_is_cut_and_none_of_them_is(
    request: pytest.FixtureRequest,
) -> None:
    """A cut one would never begin, and whoever started it would wait for that for ever."""
    request.addfinalizer(functools.partial(sys.setswitchinterval, sys.getswitchinterval()))
    sys.setswitchinterval(1e-6)
    for _ in range(20):
        limited, begun = Interruptible(1.0, AbandonedError), threading.Event()
        thread = threading.Thread(target=_start_threads, args=(limited, begun), daemon=True)
        thread.start()
        assert begun.wait(SECONDS)
        while not limited.ended:
            limited.cut()
            thread.join(AGAIN_SECONDS)


def _start_threads(limited: Interruptible, begun: threading.Event) -> None:
    def one_by_one() -> None:
        begun.set()
        while True:
            thread = threading.Thread(target=int)
            thread.start()
            thread.join()

    with pytest.raises((Cut, RuntimeError)) as ended:
        limited.call(one_by_one)
    assert has_cut(limited, ended.value)


@cuts_a_thread
def test_reaper_whose_thread_was_cut_before_it_ran_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else nothing that is left behind would ever be cut again in this process."""
    reaper = Reaper()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda _: None)
        reaper.add(Interruptible(1.0, AbandonedError))
    waiting, cut = threading.Event(), Interruptible(1.0, AbandonedError)

    def wait() -> None:
        waiting.set()
        while True:
            threading.Event().wait(0.01)

    def call() -> None:
        with pytest.raises((Cut, RuntimeError)) as ended:
            cut.call(wait)
        assert has_cut(cut, ended.value)

    thread = threading.Thread(target=call)
    thread.start()
    assert waiting.wait(SECONDS)
    reaper.add(Interruptible(1.0, AbandonedError))
    reaper._calls.append(cut)  # noqa: SLF001 - so that the reaper alone cuts it
    thread.join(SECONDS)

    assert cut.ended
    reaper._calls.clear()  # noqa: SLF001 - let it end
