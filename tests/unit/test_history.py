"""The checker of histories: what it accuses, and what it lets pass."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.history import (
    LAG_TOO_SMALL,
    MONOTONIC_READS,
    READ_YOUR_WRITES,
    WRITES_FOLLOW_READS,
    Operation,
    Outcome,
    read_history,
    violations,
)


def wrote(at: float, session: str, key: str, *shows: str, outcome: Outcome = "ok") -> Operation:
    """A write, the last that is shown, which took a tenth of a second."""
    shown = shows if outcome == "ok" else ()
    return Operation(
        session=session, op="write", key=key, write=shows[-1], shows=shown, outcome=outcome,
        started=at, ended=at + 0.1,
    )  # fmt: skip


def saw(at: float, session: str, key: str, *shows: str) -> Operation:
    """A read, which took a tenth of a second."""
    return Operation(session=session, op="read", key=key, shows=shows, started=at, ended=at + 0.1)


def stale(read: Operation, lag: float | None = None) -> Operation:
    """The same read, marked as stale."""
    return replace(read, marked=True, lag=lag)


def accused(*history: Operation, lost: Sequence[str] = ()) -> list[tuple[str, str, float]]:
    """What was broken, in whose answer, which began when."""
    return [
        (found.guarantee, found.answer.session, found.answer.started)
        for found in violations(history, lost=lost)
    ]


@pytest.mark.parametrize(
    ("history", "broken"),
    [
        pytest.param(
            [wrote(1, "ann", "x", "x1"), saw(2, "ann", "x")],
            (READ_YOUR_WRITES, "ann", 2),
            id="own-write-missing",
        ),
        pytest.param(
            [
                wrote(1, "bob", "x", "x1"),
                wrote(2, "ann", "x", "x1", "x2"),
                wrote(3, "bob", "x", "x1", "x2", "x3"),
                saw(4, "ann", "x", "x1"),
            ],
            (READ_YOUR_WRITES, "ann", 4),
            id="own-write-missing-among-those-of-others",
        ),
        pytest.param(
            [
                wrote(1, "bob", "x", "x1"),
                wrote(2, "bob", "x", "x1", "x2"),
                saw(3, "ann", "x", "x1", "x2"),
                saw(4, "ann", "x", "x1"),
            ],
            (MONOTONIC_READS, "ann", 4),
            id="back-behind-what-was-seen",
        ),
        pytest.param(
            [wrote(1, "bob", "x", "x1"), stale(saw(2, "ann", "x", "x1")), saw(3, "ann", "x")],
            (MONOTONIC_READS, "ann", 3),
            id="back-behind-what-a-stale-answer-showed",
        ),
        pytest.param(
            [
                wrote(1, "ann", "x", "x1"),
                saw(2, "bob", "x", "x1"),
                wrote(3, "bob", "y", "y1"),
                saw(4, "cid", "y", "y1"),
                saw(5, "cid", "x"),
            ],
            (WRITES_FOLLOW_READS, "cid", 5),
            id="answer-without-the-question",
        ),
        pytest.param(
            [
                wrote(1, "ann", "x", "x1"),
                wrote(2, "ann", "y", "y1"),
                saw(3, "bob", "y", "y1"),
                wrote(4, "bob", "z", "z1"),
                saw(5, "cid", "z", "z1"),
                saw(6, "cid", "x"),
            ],
            (WRITES_FOLLOW_READS, "cid", 6),
            id="over-two-sessions",
        ),
        pytest.param(
            [
                wrote(1, "ann", "x", "x1"),
                wrote(2, "ann", "y", "y1"),
                wrote(3, "bob", "y", "y1", "y2"),
                saw(4, "cid", "y", "y1", "y2"),
                saw(5, "cid", "x"),
            ],
            (WRITES_FOLLOW_READS, "cid", 5),
            id="behind-a-version-that-another-followed",
        ),
        pytest.param(
            [
                wrote(1, "ann", "x", "x1"),
                replace(wrote(2, "ann", "y", "y1"), ended=9),
                saw(3, "cid", "y", "y1"),
                saw(4, "cid", "x"),
            ],
            (WRITES_FOLLOW_READS, "cid", 4),
            id="seen-before-its-session-knew-that-it-was-committed",
        ),
        pytest.param(
            [
                wrote(1, "ann", "x", "x1"),
                wrote(2, "ann", "y", "y1", outcome="unknown"),
                saw(3, "cid", "y", "y1"),
                saw(4, "cid", "x"),
            ],
            (WRITES_FOLLOW_READS, "cid", 4),
            id="behind-a-write-of-unknown-outcome-that-was-seen",
        ),
        pytest.param(
            [
                wrote(1, "bob", "x", "x1"),
                wrote(2, "ann", "x", "x1", "lost"),
                wrote(3, "bob", "x", "x1", "x2"),
                saw(4, "ann", "x", "x1", "x2"),
            ],
            (READ_YOUR_WRITES, "ann", 4),
            id="a-failover-gave-its-number-to-another",
        ),
        pytest.param(
            [wrote(1, "bob", "x", "x1"), stale(saw(3, "ann", "x"), lag=1.8)],
            (LAG_TOO_SMALL, "ann", 3),
            id="lag-smaller-than-the-age-of-what-is-missing",
        ),
        pytest.param(
            [
                wrote(1, "bob", "x", "x1"),
                wrote(2, "bob", "x", "x1", "x2"),
                wrote(3, "bob", "x", "x1", "x2", "x3"),
                stale(saw(4, "ann", "x", "x1"), lag=1.5),
            ],
            (LAG_TOO_SMALL, "ann", 4),
            id="lag-of-the-newest-that-is-missing",
        ),
    ],
)
def test_checker_accuses_the_answer_that_breaks_a_guarantee(
    history: list[Operation], broken: tuple[str, str, float]
) -> None:
    """It names the guarantee and the answer, and no other, in whatever order it is told."""
    assert accused(*history) == [broken]
    assert accused(*reversed(history)) == [broken]


@pytest.mark.parametrize(
    "history",
    [
        pytest.param(
            [wrote(1, "ann", "x", "x1"), saw(2, "bob", "x"), saw(3, "ann", "x", "x1")],
            id="others-may-not-see-it-yet",
        ),
        pytest.param(
            [wrote(1, "ann", "x", "x1"), stale(saw(2, "ann", "x")), saw(3, "ann", "x", "x1")],
            id="a-stale-answer-of-unknown-lag",
        ),
        pytest.param(
            [wrote(1, "ann", "x", "x1"), stale(saw(3, "ann", "x"), lag=1.9)],
            id="a-lag-that-covers-what-is-missing",
        ),
        pytest.param(
            [replace(wrote(1, "bob", "x", "x1"), ended=3.5), stale(saw(3, "ann", "x"), lag=0.1)],
            id="what-may-have-been-committed-later-is-not-missing",
        ),
        pytest.param(
            [wrote(1, "ann", "x", "x1", outcome="unknown"), saw(2, "ann", "x")],
            id="unknown-outcome-not-shown",
        ),
        pytest.param(
            [wrote(1, "ann", "x", "x1", outcome="unknown"), saw(2, "ann", "x", "x1")],
            id="unknown-outcome-shown",
        ),
        pytest.param(
            [
                wrote(1, "ann", "x", "x1", outcome="unknown"),
                stale(saw(3, "bob", "x"), lag=0.1),
            ],
            id="unknown-outcome-does-not-age",
        ),
        pytest.param(
            [
                wrote(1, "bob", "x", "x1"),
                saw(2, "ann", "x", "x1"),
                replace(saw(3, "ann", "x"), error="DatabaseUnavailableError"),
            ],
            id="no-answer",
        ),
        pytest.param(
            [
                saw(1, "bob", "x"),
                wrote(2, "bob", "y", "y1"),
                wrote(3, "ann", "x", "x1"),
                saw(4, "cid", "y", "y1"),
                saw(5, "cid", "x"),
            ],
            id="the-writer-had-not-seen-it",
        ),
        pytest.param(
            [
                wrote(1, "bob", "y", "y1"),
                wrote(2, "ann", "x", "x1"),
                saw(3, "bob", "x", "x1"),
                saw(4, "cid", "y", "y1"),
                saw(5, "cid", "x"),
            ],
            id="the-writer-saw-it-later",
        ),
    ],
)
def test_checker_accuses_nobody_of_what_is_allowed(history: list[Operation]) -> None:
    """What a guarantee does not demand is no violation."""
    assert accused(*history) == []


def test_checker_takes_no_lag_for_too_small_because_of_what_a_failover_lost() -> None:
    """A lag speaks of what is there; that the own write is gone must be marked all the same."""
    wrote_and_read = (wrote(1, "ann", "x", "x1"), stale(saw(9, "ann", "x"), lag=1.0))

    assert accused(*wrote_and_read, lost=["x1"]) == []
    assert accused(*wrote_and_read, saw(10, "ann", "x"), lost=["x1"]) == [
        (READ_YOUR_WRITES, "ann", 10)
    ]


def test_checker_demands_no_lost_write_of_who_only_saw_what_was_written_after_it() -> None:
    """The database cannot know what led to a write; who saw the lost one is still to be told."""
    history = (
        wrote(1, "ann", "x", "x1"),
        wrote(2, "ann", "y", "y1"),
        saw(3, "bob", "y", "y1"),
    )

    assert accused(*history, saw(4, "bob", "x"), lost=["x1"]) == []
    assert accused(*history, saw(4, "ann", "x"), lost=["x1"]) == [(READ_YOUR_WRITES, "ann", 4)]


def test_history_is_read_as_it_was_written(tmp_path: Path) -> None:
    """All processes' files make one history."""
    one, two = wrote(1, "ann", "x", "x1"), stale(saw(2, "bob", "x", "x1"), lag=0.25)
    for name, operation in (("1", one), ("2", two)):
        (tmp_path / name).write_text(operation.to_json() + "\n")

    assert read_history([tmp_path / "1", tmp_path / "2"]) == [one, two]


@dataclass(frozen=True, slots=True)
class Step:
    """What a session does next in a database that keeps one log."""

    session: str
    key: str
    writes: bool
    behind: int
    """How many entries of the log the replica lacks that is read from, if it may."""


steps = st.lists(
    st.builds(
        Step,
        session=st.sampled_from("abc"),
        key=st.sampled_from("xyz"),
        writes=st.booleans(),
        behind=st.integers(0, 6),
    ),
    max_size=30,
)


def played(steps: Sequence[Step]) -> list[Operation]:
    """What happens where a replica answers once it has replayed all that its session knows of."""
    log: list[tuple[str, str]] = []
    knows: dict[str, int] = {}
    history = []
    for at, step in enumerate(steps):
        if step.writes:
            log.append((step.key, f"w{at}"))
        reached = (
            len(log) if step.writes else max(knows.get(step.session, 0), len(log) - step.behind)
        )
        knows[step.session] = reached
        shows = [write for key, write in log[:reached] if key == step.key]
        made = wrote if step.writes else saw
        history.append(made(float(at), step.session, step.key, *shows))
    return history


@given(steps)
def test_checker_never_accuses_sessions_that_wait_for_the_position_that_they_know(
    steps: list[Step],
) -> None:
    """Replaying one log up to the session's position keeps all guarantees, however late it is."""
    assert violations(played(steps)) == []


@given(steps, st.data())
def test_checker_always_accuses_an_answer_that_lacks_the_last_version_that_its_session_knew(
    steps: list[Step], data: st.DataObject
) -> None:
    """Take from any answer the newest of what its session had written or seen, and it is found."""
    # At least the last answer can lack something: its session has just written it.
    own_write = [Step("a", "x", writes=writes, behind=0) for writes in (True, False)]
    history = played([*steps, *own_write])
    candidates = [
        number
        for number, one in enumerate(history)
        if one.op == "read"
        and one.shows
        and any(
            earlier.shows == one.shows and (earlier.session, earlier.key) == (one.session, one.key)
            for earlier in history[:number]
        )
    ]
    number = data.draw(st.sampled_from(candidates))
    history[number] = replace(history[number], shows=history[number].shows[:-1])

    found = {(one.answer, one.guarantee) for one in violations(history)}
    assert found & {(history[number], READ_YOUR_WRITES), (history[number], MONOTONIC_READS)}
