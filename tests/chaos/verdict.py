"""What became of the jobs, by what really ran and by what the ledger holds."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.chaos.appendonly import dropped


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of the jobs.

    Attributes:
        accepted: Jobs that `fire` took.
        done: Of those, jobs that were done, at least once.
        dead: Of those, dead letters.
        both: Done and dead: a copy was done, and another one was given up.
        lost: Neither.
        dropped: Neither, as the broker's client lost them, see `appendonly`: nobody in the fleet
            ever knew of these.
        duplicated: Plain jobs that were done more than once, as "at least once" allows.
        recovered: Jobs whose process was killed in them, and that ended all the same.
        outbox: Jobs that no broker took, and that ended all the same.
        cut: Idempotent jobs that were done twice, as what was done could not be recorded: the
            process was killed, or the database lost, in between.
        repeated: Idempotent jobs that were done twice without such an excuse.
    """

    accepted: int
    done: int
    dead: int
    both: int
    lost: list[str]
    dropped: list[str]
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
    broker: Path | None,
) -> Verdict:
    """Return what became of the accepted jobs.

    Args:
        diary: All lines of it, in order.
        plain: Accepted jobs that are not idempotent.
        once: Accepted jobs that are.
        dead: All dead letters.
        killed: Processes that were killed.
        broker: Where its append-only file is; None: it has none.
    """
    accepted = {*plain, *once}
    done = Counter(line["job"] for line in diary if line["what"] == "done")
    last = {line["pid"]: line for line in diary if line["what"] in {"begun", "failed", "done"}}
    interrupted = [line for pid, line in last.items() if pid in killed]
    unkept = {line["job"] for line in diary if line["what"] == "JobUnkept"}
    kept = {line["job"] for line in diary if line["what"] == "JobKept"}
    again = {job for job in once if done[job] > 1}
    excused = {line["job"] for line in interrupted if line["what"] == "done"} | unkept
    ended = accepted & (done.keys() | dead)
    missing = accepted - ended
    gone = dropped(broker, missing) if broker and missing else set()
    return Verdict(
        accepted=len(accepted),
        done=len(accepted & done.keys()),
        dead=len(accepted & set(dead)),
        both=len(accepted & done.keys() & set(dead)),
        lost=sorted(missing - gone),
        dropped=sorted(gone),
        duplicated=sum(done[job] > 1 for job in plain),
        recovered=len({line["job"] for line in interrupted} & ended),
        outbox=len(kept & ended),
        cut=sum(done[job] - 1 for job in again & excused),
        repeated=sorted(job for job in again if done[job] > 2 or job not in excused),
    )
