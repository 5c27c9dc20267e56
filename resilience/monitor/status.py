"""What degrades now, why, and what to do next: all that can be known, as plain values."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from enum import IntEnum
from typing import Any

from redis import RedisError

from resilience.errors import ResilienceError, text_of
from resilience.ledger import Count, State
from resilience.levels import Level
from resilience.monitor.circuits import breaker_rows
from resilience.monitor.queues import Queues
from resilience.monitor.reasons import LATE_SECONDS, reason_row
from resilience.monitor.rows import connected, flag_rows
from resilience.tasks.publishing import PUBLISH_ERRORS, publish_within
from resilience.tasks.resilience import Resilience

BROKER_SECONDS = 3.0
"""Longest wait for the broker and the workers."""
AWAY = (ResilienceError, RedisError, *PUBLISH_ERRORS)


class Verdict(IntEnum):
    """What a status amounts to; its number is the exit code of the command."""

    WELL = 0
    DEGRADED = 1
    BROKEN = 2
    UNKNOWN = 3


def look(
    adopted: Resilience, command: str = "celery resilience", *, ask_workers: bool = True
) -> dict[str, Any]:
    """Return all that is known; what cannot be asked is named, and the rest is there.

    All values are those of JSON; texts of others are as they were written, and must be escaped
    where they are shown. Times are fleet time in seconds since 1970. These are the keys:

    - `at`: when the look was made; `verdict`: `well`, `degraded`, `broken` or `unknown`.
    - `level`: name of the worst level of all reasons, None if the store does not answer and
      nothing else is wrong; `since`: when the first of the reasons began, if known.
    - `reasons`: what keeps answers from being FULL. Each has `kind` (`open`, `held`, `shed`,
      `no_consumer`, `overdue`), `name` (of the dependency, queue or feature), `level`, `why` (a
      sentence), `since`, `until`, `users` (what they get: a phrase whose subject is "users") and
      `next`, commands.
    - `notes`: what degrades no answer, but needs somebody: `kind` (`dead`, `no_consumer`,
      `unreadable`), `name`, `why`, `next`.
    - `breakers`: as `circuits.breaker_rows`; `holds`: `name`, `until`, `actor`, `reason`, `since`;
      `flags`: as `rows.flag_rows`.
    - `queues`: messages by queue; `waits`: seconds that the next job of a queue has waited, None
      if nobody knows; `consumers`: workers by queue, of those that were counted.
    - `jobs`: counts of the ledger: `dependency`, `state`, `jobs`, `more`, `overdue_seconds`.
    - `dead`: dead letters by dependency, and in `more_dead` those where counting ended early.
    - `next`: all commands of reasons and notes, each once.
    - `unknown`: why a source (`store`, `broker`, `ledger`) could not be asked, by its name.

    It takes a tenth of a second at most where the store is away, `BROKER_SECONDS` where the broker
    is, and the ledger's own timeout.

    Args:
        adopted: What the app declared.
        command: Begins each command: `celery -A shop resilience`.
        ask_workers: Whether workers are asked what they consume, if jobs wait in Redis: that takes
            a second, and each worker answers. RabbitMQ knows by itself.
    """
    found: dict[str, Any] = {"level": None, "since": None, "reasons": [], "notes": []}
    found |= {"breakers": [], "holds": [], "flags": [], "unknown": {}}
    found |= {"queues": {}, "waits": {}, "consumers": {}, "jobs": [], "dead": {}, "more_dead": []}
    sources: dict[str, Callable[[], Mapping[str, Any]]] = {
        "store": lambda: _from_store(adopted),
        "broker": lambda: _from_broker(adopted, ask_workers=ask_workers),
        "ledger": lambda: _from_ledger(adopted),
    }
    for name, ask in sources.items():
        try:
            found |= ask()
        except AWAY as error:
            found["unknown"][name] = text_of(error) or repr(error)
    found["at"] = adopted.fleet_time()
    _judge(adopted, found)
    for row in (*found["reasons"], *found["notes"]):
        row["next"] = [f"{command} {words}" for words in row["next"]]
        found.setdefault("next", []).extend(row["next"])
    found["next"] = list(dict.fromkeys(found.get("next", [])))
    return found


def _from_store(adopted: Resilience) -> Mapping[str, Any]:
    connected(adopted)
    found: dict[str, Any] = {
        "holds": [asdict(one) for one in adopted.holds.all().values()],
        "breakers": breaker_rows(adopted),
        "flags": flag_rows(adopted),
    }
    degradation = adopted.degradation
    found["reasons"] = [reason_row(adopted, one, found) for one in degradation.reasons]
    found["level"] = Level.FULL.name
    return found


def _from_broker(adopted: Resilience, *, ask_workers: bool) -> Mapping[str, Any]:
    queues = Queues(adopted, ask_workers=ask_workers)
    if not publish_within(BROKER_SECONDS, queues.ask):
        msg = f"the broker did not answer within {BROKER_SECONDS:g} s"
        raise TimeoutError(msg)
    return {"queues": queues.depths, "waits": queues.waits, "consumers": queues.consumers}


def _from_ledger(adopted: Resilience) -> Mapping[str, Any]:
    counts = adopted.ledger.counts()
    dead = [one for one in counts if one.state is State.DEAD]
    return {
        "jobs": [_count_row(one) for one in counts],
        "dead": {one.dependency: one.jobs for one in dead},
        "more_dead": [one.dependency for one in dead if one.more],
    }


def _count_row(one: Count) -> dict[str, Any]:
    overdue = one.overdue_seconds
    return {
        "dependency": one.dependency,
        "state": str(one.state),
        "jobs": one.jobs,
        "more": one.more,
        "overdue_seconds": None if overdue is None else round(overdue, 1),
    }


def _judge(adopted: Resilience, found: dict[str, Any]) -> None:
    """Add to *found* the reasons that no single source knows, the level and the verdict."""
    reasons, notes = found["reasons"], found["notes"]
    waits_on_purpose = {one["name"] for one in reasons if one["kind"] in ("open", "held")}
    for row in _without_consumer(adopted, found, waits_on_purpose):
        (notes if row.get("level") is None else reasons).append(row)
    reasons += _overdue(found, waits_on_purpose)
    notes += _notes(found)
    levels = [Level[one["level"]] for one in reasons]
    worst = max(levels, default=Level.FULL)
    if found["level"] is not None or levels:
        found["level"] = worst.name
    found["since"] = min((one["since"] for one in reasons if one["since"]), default=None)
    if worst is Level.FAILED:
        verdict = Verdict.BROKEN
    elif found["unknown"]:
        verdict = Verdict.UNKNOWN
    else:
        verdict = Verdict.DEGRADED if reasons else Verdict.WELL
    found["verdict"] = verdict.name.lower()


def _without_consumer(
    adopted: Resilience, found: Mapping[str, Any], waits_on_purpose: set[str]
) -> Iterable[dict[str, Any]]:
    owners = {queue: one.name for one in adopted.dependencies.values() for queue in one.queues}
    for queue, consumers in found["consumers"].items():
        owner = owners.get(queue, "default")
        if consumers or not found["queues"][queue] or {queue, owner} & waits_on_purpose:
            continue
        waits = found["waits"].get(queue)
        jobs = found["queues"][queue]
        why = f"no worker takes the {jobs} job(s) that wait in its queue"
        row = {"kind": "no_consumer", "name": queue, "next": [f"worker {owner}"]}
        if waits is None:
            level, why = Level.STALE, f"{why}; since when is not known"
        elif waits < LATE_SECONDS:
            yield row | {"why": why}
            continue
        else:
            level = Level.FAILED
        since = None if waits is None else found["at"] - waits
        users = "wait: these jobs do not run"
        yield row | _reason(level, why, since, users)


def _overdue(found: Mapping[str, Any], waits_on_purpose: set[str]) -> Iterable[dict[str, Any]]:
    for row in found["jobs"]:
        late, name = row["overdue_seconds"], row["dependency"]
        if late is None or late < LATE_SECONDS or name in waits_on_purpose:
            continue
        jobs = f"{row['jobs']}{'+' if row['more'] else ''}"
        why = f"no relay publishes its {jobs} job(s) in the ledger ({row['state']})"
        users = "wait: these jobs do not run"
        reason = _reason(Level.STALE, why, found["at"] - late, users)
        yield {"kind": "overdue", "name": name, "next": ["ledger status", "relay"]} | reason


def _reason(level: Level, why: str, since: float | None, users: str) -> dict[str, Any]:
    return {"level": level.name, "why": why, "since": since, "until": None, "users": users}


def _notes(found: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    for name, jobs in found["dead"].items():
        amount = f"{jobs}{'+' if name in found['more_dead'] else ''}"
        why = f"{amount} dead letter(s) wait for somebody to replay or discard them"
        yield {"kind": "dead", "name": name, "why": why, "next": [f"dead list --dependency {name}"]}
    for row in found["breakers"]:
        if row["unreadable"]:
            why = "the store keeps what is no circuit, or another version's; it counts as closed"
            mend = [f"breaker reset {row['dependency']} --reason …"]
            yield {"kind": "unreadable", "name": row["dependency"], "why": why, "next": mend}
