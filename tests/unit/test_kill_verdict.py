"""What is said of jobs that were killed in the middle, by what they wrote down."""

from typing import Any

from tests.chaos.verdict import Verdict, judge

JOB = "job"


def verdict(*steps: tuple[str, int], killed: tuple[int, ...] = ()) -> Verdict:
    """Return what is said of one idempotent job with these steps: what, and in which process."""
    diary: list[dict[str, Any]] = [{"what": what, "job": JOB, "pid": pid} for what, pid in steps]
    return judge(diary, plain=(), once=(JOB,), dead=(), killed=killed)


def test_each_further_run_needs_an_excuse_of_its_own() -> None:
    """Done three times is fine if two of those processes were killed, and not if one was."""
    steps = [(what, pid) for pid in (1, 2, 3) for what in ("begun", "done")]

    assert verdict(*steps, killed=(1, 2)).repeated == []
    assert verdict(*steps, killed=(1, 2)).cut == 2
    assert verdict(*steps, killed=(1,)).repeated == [JOB]


def test_run_that_was_not_recorded_is_one_excuse_however_often_it_is_said() -> None:
    """The claim and the row are two records of one run."""
    once = [("begun", 1), ("done", 1), ("JobUnkept", 1), ("JobUnkept", 1)]
    again = [("begun", 2), ("done", 2)]

    assert verdict(*once, *again).repeated == []
    assert verdict(*once, *again, *again).repeated == [JOB]


def test_run_that_was_recorded_is_none() -> None:
    """A process that was killed in a later job had recorded this one."""
    later = {"what": "begun", "job": "later", "pid": 1}
    steps = [("begun", 1), ("done", 1)]
    diary = [{"what": what, "job": JOB, "pid": pid} for what, pid in steps]
    again = [{"what": what, "job": JOB, "pid": 2} for what in ("begun", "done")]

    said = judge([*diary, later, *again], plain=(), once=(JOB,), dead=(), killed=(1,))

    assert said.repeated == [JOB]
