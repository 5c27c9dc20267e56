"""Finds out what became of every job that was published.

After Jepsen's total-queue checker (jepsen.io): a job that was put into a queue and acknowledged
must come out of it, once. A job that the broker did not acknowledge may come out or not.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from resilience.chaos.proving.records import Record

ENDS: Final = {
    "succeeded": "ok",
    "failed": "failed",
    "revoked": "failed",
    "BudgetExceeded": "failed",
}
KEPT: Final = frozenset({"JobKept", "JobParked", "JobBuried"})
"""Records that the ledger has taken the job, and must hold it until the job ends."""
ACCEPTED: Final = "accepted"
"""A record of a job that the broker has acknowledged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Jobs:
    """The jobs of a game day, sorted by what became of them: job ids with their task names.

    Attributes:
        ok: Jobs whose body ran to its end.
        degraded: Jobs whose body ran to its end, and in which a fallback answered.
        failed: Jobs that ended in an error, were revoked, or exceeded their budget.
        kept: Jobs that wait in the ledger, or are dead letters there.
        refused: Jobs that the broker never acknowledged and that have not ended.
        lost: Jobs that were accepted, but neither ended nor are in the ledger.
        duplicated: Jobs whose body ran to its end more than once; also among ok or degraded.
        unexpected: Jobs that ended although nobody published them.
    """

    ok: Mapping[str, str]
    degraded: Mapping[str, str]
    failed: Mapping[str, str]
    kept: Mapping[str, str]
    refused: Mapping[str, str]
    lost: Mapping[str, str]
    duplicated: Mapping[str, str]
    unexpected: Mapping[str, str]


def unfinished(records: Iterable[Record]) -> set[str]:
    """Return the ids of jobs that were accepted or kept, and have not ended.

    If the ledger keeps a job, a failed attempt does not end that job.
    """
    ids: dict[str, set[str]] = {}
    for one in records:
        ids.setdefault(one["record"], set()).add(one.get("id", ""))
    kept = set().union(*(ids.get(name, ()) for name in KEPT))
    failed = ids.pop("failed", set()) - kept
    return (ids.get(ACCEPTED, set()) | kept) - failed.union(*(ids.get(name, ()) for name in ENDS))


def check(records: Collection[Record], in_ledger: Collection[str]) -> Jobs:
    """Return what became of each job.

    Args:
        records: The records of all processes.
        in_ledger: Ids of the `unfinished` jobs that the ledger still has.
    """
    published = {one["id"]: one["task"] for one in records if one["record"] == "published"}
    published |= {one["id"]: one["task"] for one in records if one["record"] in KEPT}
    ends: dict[str, set[str]] = {}
    for one in records:
        if one["record"] in ENDS and one["id"] is not None:
            ends.setdefault(one["id"], set()).add(ENDS[one["record"]])
    tasks = {one["id"]: one["task"] for one in records if one["record"] in ENDS} | published
    ran = Counter(one["id"] for one in records if one["record"] == "succeeded")
    marked = {one["job"] for one in records if one["record"] == "AnswerDegraded"}
    waiting = unfinished(records)
    ends = {job: how for job, how in ends.items() if job not in waiting}
    found: dict[str, dict[str, str]] = {name: {} for name in Jobs.__dataclass_fields__}
    for job, task in tasks.items():
        if job not in published:
            kind = "unexpected"
        elif "ok" in ends.get(job, ()):
            kind = "degraded" if job in marked else "ok"
        elif job in ends:
            kind = "failed"
        elif job in in_ledger:
            kind = "kept"
        else:
            kind = "lost" if job in waiting else "refused"
        found[kind][job] = task
        if ran[job] > 1:
            found["duplicated"][job] = task
    return Jobs(**found)
