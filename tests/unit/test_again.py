"""How a run ends whose job will run again."""

import copy
import traceback
from collections.abc import Callable
from types import CodeType

from resilience.tasks.again import KeptError, drop_frames, end_kept


def end_otherwise() -> None:
    """Raise what is not ours to shorten."""
    raise KeyError


def frames_after(end: Callable[[], None]) -> list[CodeType]:
    """Return whose frames an error has, once it was caught and shortened."""
    try:
        end()
    except Exception as error:  # noqa: BLE001 - as Celery does
        drop_frames()
        return [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    return []


def test_kept_job_hands_on_one_frame() -> None:
    """Celery copies all frames of an error that it handles; of this one there is one."""
    assert frames_after(lambda: end_kept(OSError("down"), 2.0)) == [end_kept.__code__]


def test_other_errors_keep_their_frames() -> None:
    """What else a task ends in is shown as it was."""
    assert frames_after(end_otherwise) == [frames_after.__code__, end_otherwise.__code__]


def test_kept_job_says_the_same_in_another_process() -> None:
    """What ended the run travels to the worker's main process."""
    there = copy.copy(KeptError(OSError("down"), 2.0))  # by the same protocol

    assert (str(there), there.when) == ("kept in the ledger for 2 s", 2.0)
    assert str(there.exc) == "down"
