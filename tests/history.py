"""Checks what sessions saw of a replicated database against the session guarantees.

Every key holds the list of all writes to it, in the order in which the database committed them. So
an answer says exactly which writes it shows, even when a failover lost some and later writes took
their numbers. Version n of a key is the n-th write of its list.

The guarantees are those of Terry et al., "Session guarantees for weakly consistent replicated data"
(1994). Answers that were marked as stale need not keep them.
"""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NamedTuple

READ_YOUR_WRITES = "read your writes"
MONOTONIC_READS = "monotonic reads"
WRITES_FOLLOW_READS = "writes follow reads"
LAG_TOO_SMALL = "lag too small"

Outcome = Literal["ok", "failed", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A read or a write of one session, which does one at a time, in whichever process it is.

    Attributes:
        session: The session's name.
        op: `read` or `write`.
        key: What was read or written.
        write: The unique name of a write; empty for a read.
        shows: All writes to the key that the answer shows, oldest first. After a committed write:
            the writes up to itself.
        outcome: Of a write: `ok` was committed, `failed` was not, and `unknown` got no answer to
            its commit.
        marked: Whether the answer was marked as stale.
        lag: The answer shows everything that was committed this many seconds ago, as the mark says;
            None: the mark does not say.
        server: Which server answered, as it says itself.
        error: What was raised instead of an answer.
        needed: What the router believed that the session must see, after the operation; for people.
        started: When it began, by the clock that all processes of this machine share.
        ended: When it ended, by the same clock.
    """

    session: str
    op: Literal["read", "write"]
    key: str
    started: float
    ended: float
    write: str = ""
    shows: tuple[str, ...] = ()
    outcome: Outcome = "ok"
    marked: bool = False
    lag: float | None = None
    server: str = ""
    error: str = ""
    needed: str = ""

    def to_json(self) -> str:
        """Return a line of a history's file."""
        return json.dumps(asdict(self))


class Version(NamedTuple):
    """What an answer must show: a write, at its place in the list of its key."""

    number: int
    write: str


class Violation(NamedTuple):
    """An answer that breaks a guarantee."""

    guarantee: str
    answer: Operation
    missing: str
    """What it should have shown, or how its lag was wrong."""


Floor = dict[str, Version]
"""By key: the earliest version that an answer may show."""
STORY_OPERATIONS = 8


def story(violation: Violation, history: Iterable[Operation]) -> str:
    """Return what the session did around an answer that breaks a guarantee, one line for each step.

    The writes that others made to the same key at that time are among the steps.
    """
    answer = violation.answer
    history = sorted(history, key=lambda one: one.started)
    of_session = [one for one in history if one.session == answer.session]
    place = of_session.index(answer)
    around = of_session[max(0, place - STORY_OPERATIONS) : place + STORY_OPERATIONS // 2]
    writes = (one for one in history if one.op == "write" and one.key == answer.key)
    meanwhile = [one for one in writes if around[0].started <= one.ended <= around[-1].ended]
    steps = sorted({*around, *meanwhile}, key=lambda one: one.started)
    first = f"{violation.guarantee}, {answer.session}: {answer.key} lacks {violation.missing}"
    return "\n".join([first, *(_line(one, answer) for one in steps)])


def _line(one: Operation, answer: Operation) -> str:
    """Return *one* for people, its times relative to the start of *answer*."""
    shown = one.error or f"{len(one.shows)} …{','.join(one.shows[-3:])}"
    mark = f" marked {one.lag}" if one.marked else ""
    outcome = "" if one.outcome == "ok" else f" {one.outcome}"
    return (
        f"{'>' if one is answer else ' '} {one.started - answer.started:+8.3f}"
        f"{one.ended - answer.started:+8.3f} {one.session} {one.op} {one.key} {one.write}{outcome}"
        f" on {one.server or 'primary'}{mark}: {shown} ({one.needed})"
    )


def read_history(paths: Iterable[Path]) -> list[Operation]:
    """Return what the files of all processes hold, in no particular order."""
    # A last line without a newline is still being written.
    texts = (path.read_text().rpartition("\n")[0] for path in paths)
    lines = (json.loads(line) for text in texts for line in text.splitlines())
    return [Operation(**{**line, "shows": tuple(line["shows"])}) for line in lines]


def violations(history: Iterable[Operation], *, lost: Collection[str] = ()) -> list[Violation]:
    """Return every answer that breaks a guarantee.

    Args:
        history: What all sessions did.
        lost: Writes that a failover lost. They count neither for a lag, nor for what must be seen
            because a later write followed them. But a session that wrote or saw one of them itself
            must not get an unmarked answer without it.
    """
    history = list(history)
    return [*_broken_guarantees(history, lost), *_small_lags(history, lost)]


def _broken_guarantees(history: Iterable[Operation], lost: Collection[str]) -> list[Violation]:
    found: list[Violation] = []
    sessions: Mapping[str, _Session] = defaultdict(_Session)
    behind: dict[str, Floor] = {}
    """By write: what its session had written and seen when the write began."""
    for _, ended, operation in _steps(history):
        session = sessions[operation.session]
        if not ended:
            if operation.op == "write":
                behind[operation.write] = session.floor(lost)
            continue
        if operation.outcome == "ok" and not operation.error:
            if operation.op == "read" and not operation.marked:
                found += session.missing(operation)
            session.take(operation, behind)
    return found


def _steps(history: Iterable[Operation]) -> list[tuple[float, bool, Operation]]:
    """Return the beginnings (False) and ends (True) of all operations, in the order of time.

    A session may see a write of another one before that one knows that the write is committed, but
    never before the write began.
    """
    beginnings = [(operation.started, False, operation) for operation in history]
    ends = [(operation.ended, True, operation) for operation in history]
    return sorted(beginnings + ends, key=lambda step: step[:2])


class _Session:
    """What a session must see from now on, by the guarantee that demands it."""

    def __init__(self) -> None:
        self._floors: dict[str, Floor] = {
            READ_YOUR_WRITES: {},
            MONOTONIC_READS: {},
            WRITES_FOLLOW_READS: {},
        }

    def floor(self, lost: Collection[str]) -> Floor:
        """Return what all guarantees together demand, without *lost* writes."""
        merged: Floor = {}
        for floor in self._floors.values():
            _raise_floor(merged, floor)
        return {key: version for key, version in merged.items() if version.write not in lost}

    def missing(self, answer: Operation) -> list[Violation]:
        """Return the violations by an answer that was not marked."""
        return [
            Violation(guarantee, answer, f"{version.write} as version {version.number}")
            for guarantee, floor in self._floors.items()
            if (version := floor.get(answer.key)) and not _has(answer.shows, version)
        ]

    def take(self, answer: Operation, behind: Mapping[str, Floor]) -> None:
        """Demand from now on what *answer* showed, and what was *behind* the writes in it."""
        seen, shows = self._floors[MONOTONIC_READS], answer.shows
        known = seen.get(answer.key)
        new = shows[known.number :] if known and _has(shows, known) else shows
        for write in new:
            _raise_floor(self._floors[WRITES_FOLLOW_READS], behind.get(write, {}))
        if shows:
            last = {answer.key: Version(len(shows), shows[-1])}
            _raise_floor(self._floors[READ_YOUR_WRITES] if answer.op == "write" else seen, last)


def _has(shows: tuple[str, ...], version: Version) -> bool:
    return len(shows) >= version.number and shows[version.number - 1] == version.write


def _raise_floor(floor: Floor, other: Mapping[str, Version]) -> None:
    for key, version in other.items():
        floor[key] = max(version, floor.get(key, version))


def _small_lags(history: Iterable[Operation], lost: Collection[str]) -> list[Violation]:
    committed: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for one in history:
        if one.op == "write" and one.outcome == "ok" and one.write not in lost:
            # Committed by its end at the latest: judged by that, no answer is blamed in error.
            committed[one.key].append((one.ended, one.write))
    found = []
    for writes in committed.values():
        writes.sort()
    for one in history:
        if one.op != "read" or one.lag is None or one.error:
            continue
        shown = frozenset(one.shows)
        missed = (at for at, write in committed[one.key] if write not in shown)
        age = one.started - next(missed, one.started)
        if age > one.lag:
            found.append(Violation(LAG_TOO_SMALL, one, f"lag {one.lag:.4f} s, in truth {age:.4f}"))
    return found
