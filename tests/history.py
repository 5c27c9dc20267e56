"""A checker of what sessions saw of a replicated database.

Every key holds the list of all writes to it, in the order in which the database committed them. So
an answer says exactly which writes it shows, also when a failover lost some and their numbers were
given to others. Version n of a key is the write at place n of its list.

The guarantees are those of Terry et al., "Session guarantees for weakly consistent replicated data"
(1994), demanded of answers that were not marked as stale.
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
    """What one session did; it does one thing at a time, in whichever process it is.

    Attributes:
        session: Whose it was.
        op: `read` or `write`.
        key: What was read or written.
        write: The name of a write, which no other has.
        shows: All writes to the key that the answer shows, oldest first; of a write that was
            committed: those up to itself.
        outcome: Of a write, `unknown` where nobody answered the commit; `failed`: there was none.
        marked: The answer was said to be stale.
        lag: It was said to show everything that was committed so many seconds ago; None: unknown.
        server: Who answered, as the server itself said.
        error: What was raised instead of an answer.
        needed: What the router held the session to need when the operation was over, for people.
        started: When it began, by the clock that all processes of this machine share.
        ended: When it was over.
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
STORY_OPERATIONS = 8


def story(violation: Violation, history: Iterable[Operation]) -> str:
    """Return what the session did around an answer that breaks a guarantee, a line each.

    The writes to its key that were made meanwhile by others are among it.
    """
    answer = violation.answer
    history = sorted(history, key=lambda one: one.started)
    own = [one for one in history if one.session == answer.session]
    place = own.index(answer)
    around = own[max(0, place - STORY_OPERATIONS) : place + STORY_OPERATIONS // 2]
    writes = (one for one in history if one.op == "write" and one.key == answer.key)
    meanwhile = [one for one in writes if around[0].started <= one.ended <= around[-1].ended]
    told = sorted({*around, *meanwhile}, key=lambda one: one.started)
    first = f"{violation.guarantee}, {answer.session}: {answer.key} lacks {violation.missing}"
    return "\n".join([first, *(_told(one, answer) for one in told)])


def _told(one: Operation, answer: Operation) -> str:
    said = one.error or f"{len(one.shows)} …{','.join(one.shows[-3:])}"
    mark = f" marked {one.lag}" if one.marked else ""
    outcome = "" if one.outcome == "ok" else f" {one.outcome}"
    return (
        f"{'>' if one is answer else ' '} {one.started - answer.started:+8.3f}"
        f"{one.ended - answer.started:+8.3f} {one.session} {one.op} {one.key} {one.write}{outcome}"
        f" on {one.server or 'primary'}{mark}: {said} ({one.needed})"
    )


def read_history(paths: Iterable[Path]) -> list[Operation]:
    """Return what the files of all processes hold, in no particular order."""
    # A line without its end is still being written.
    texts = (path.read_text().rpartition("\n")[0] for path in paths)
    lines = (json.loads(line) for text in texts for line in text.splitlines())
    return [Operation(**{**line, "shows": tuple(line["shows"])}) for line in lines]


def violations(history: Iterable[Operation], *, lost: Collection[str] = ()) -> list[Violation]:
    """Return every answer that breaks a guarantee.

    Args:
        history: What all sessions did.
        lost: Writes that a failover lost. A lag says nothing of them, and what was written after it
            by somebody who had seen them is there without them. But who wrote or saw one himself is
            to be told that it is missing.
    """
    history = list(history)
    return [*_broken_guarantees(history, lost), *_small_lags(history, lost)]


def _broken_guarantees(history: Iterable[Operation], lost: Collection[str]) -> list[Violation]:
    found: list[Violation] = []
    sessions: Mapping[str, _Session] = defaultdict(_Session)
    behind: dict[str, Floor] = {}
    """What the session of each write had written and seen when it began."""
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
    """Return when each operation began and ended, as one sequence.

    Whoever saw a write was answered after it began, though perhaps before its own session knew that
    it had been committed.
    """
    begun = [(operation.started, False, operation) for operation in history]
    over = [(operation.ended, True, operation) for operation in history]
    return sorted(begun + over, key=lambda step: step[:2])


class _Session:
    """What a session must see from now on, and why."""

    def __init__(self) -> None:
        self._floors: dict[str, Floor] = {
            READ_YOUR_WRITES: {},
            MONOTONIC_READS: {},
            WRITES_FOLLOW_READS: {},
        }

    def floor(self, lost: Collection[str]) -> Floor:
        merged: Floor = {}
        for floor in self._floors.values():
            _raise(merged, floor)
        return {key: version for key, version in merged.items() if version.write not in lost}

    def missing(self, answer: Operation) -> list[Violation]:
        return [
            Violation(guarantee, answer, f"{version.write} as version {version.number}")
            for guarantee, floor in self._floors.items()
            if (version := floor.get(answer.key)) and not _has(answer.shows, version)
        ]

    def take(self, answer: Operation, behind: Mapping[str, Floor]) -> None:
        seen, shows = self._floors[MONOTONIC_READS], answer.shows
        known = seen.get(answer.key)
        new = shows[known.number :] if known and _has(shows, known) else shows
        for write in new:
            _raise(self._floors[WRITES_FOLLOW_READS], behind.get(write, {}))
        if shows:
            last = {answer.key: Version(len(shows), shows[-1])}
            _raise(self._floors[READ_YOUR_WRITES] if answer.op == "write" else seen, last)


def _has(shows: tuple[str, ...], version: Version) -> bool:
    return len(shows) >= version.number and shows[version.number - 1] == version.write


def _raise(floor: Floor, other: Mapping[str, Version]) -> None:
    for key, version in other.items():
        floor[key] = max(version, floor.get(key, version))


def _small_lags(history: Iterable[Operation], lost: Collection[str]) -> list[Violation]:
    committed: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for one in history:
        if one.op == "write" and one.outcome == "ok" and one.write not in lost:
            # It was committed then at the latest: more cannot be held against an answer.
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
