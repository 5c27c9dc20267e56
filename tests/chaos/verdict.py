"""What became of the jobs, by what really ran and by what the ledger holds."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of the jobs.

    Attributes:
        accepted: Jobs that `fire` took.
        done: Of those, jobs that were done, at least once.
        dead: Of those, dead letters.
        both: Done and dead: a copy was done, and another one was given up.
        lost: Neither.
        duplicated: Plain jobs that were done more than once, as "at least once" allows.
        recovered: Jobs whose process was killed in them, and that ended all the same.
        outbox: Jobs that no broker took, and that ended all the same.
        cut: How often idempotent jobs were done again, as what was done could not be recorded: the
            process was killed, or the database lost, in between.
        repeated: Idempotent jobs that were done again without such an excuse for each time.
    """

    accepted: int
    done: int
    dead: int
    both: int
    lost: list[str]
    duplicated: int
    recovered: int
    outbox: int
    cut: int
    repeated: list[str]

    def __str__(self) -> str:
        """Return it as one line."""
        return " ".join(f"{name}={value}" for name, value in asdict(self).items())


def judge(
    diary: Sequence[Mapping[str, Any]],
    *,
    plain: Collection[str],
    once: Collection[str],
    dead: Collection[str],
    killed: Collection[int],
) -> Verdict:
    """Return what became of the accepted jobs.

    Args:
        diary: All lines of it, in order.
        plain: Accepted jobs that are not idempotent.
        once: Accepted jobs that are.
        dead: All dead letters.
        killed: Processes that were killed.
    """
    accepted = {*plain, *once}
    done = Counter(line["job"] for line in diary if line["what"] == "done")
    last = {line["pid"]: line for line in diary if line["what"] in {"begun", "failed", "done"}}
    interrupted = [line for pid, line in last.items() if pid in killed]
    kept = {line["job"] for line in diary if line["what"] == "JobKept"}
    again = {job for job in once if done[job] > 1}
    excused = _excused(diary, killed)
    ended = accepted & (done.keys() | dead)
    return Verdict(
        accepted=len(accepted),
        done=len(accepted & done.keys()),
        dead=len(accepted & set(dead)),
        both=len(accepted & done.keys() & set(dead)),
        lost=sorted(accepted - ended),
        duplicated=sum(done[job] > 1 for job in plain),
        recovered=len({line["job"] for line in interrupted} & ended),
        outbox=len(kept & ended),
        cut=sum(min(done[job] - 1, excused[job]) for job in again),
        repeated=sorted(job for job in again if done[job] - 1 > excused[job]),
    )


def _excused(diary: Sequence[Mapping[str, Any]], killed: Collection[int]) -> Counter[str]:
    """Return how many times each job was done by a process that could not record it."""
    now: dict[int, Mapping[str, Any]] = {}
    excused: dict[int, str] = {}
    for line in diary:
        mine = now.get(line["pid"])
        if line["what"] in {"begun", "failed", "done"}:
            now[line["pid"]] = line
        elif line["what"] == "JobUnkept" and mine and _is_done(mine, line["job"]):
            excused[id(mine)] = line["job"]
    for pid, line in now.items():
        if pid in killed and _is_done(line, line["job"]):
            excused[id(line)] = line["job"]
    return Counter(excused.values())


def _is_done(line: Mapping[str, Any], job: str) -> bool:
    return bool(line["what"] == "done" and line["job"] == job)
