"""What degrades now, why, and what to do next: all that can be known, as plain values."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from enum import IntEnum
from shlex import quote
from typing import Any

import click
from redis import RedisError

from resilience.broker.unreadable import unreadable_name
from resilience.dependency import DEFAULT_WORKER
from resilience.errors import ResilienceError, StoreUnavailableError, text_of
from resilience.ledger import State
from resilience.levels import Level
from resilience.monitor.circuits import breaker_rows
from resilience.monitor.drills import drill_rows
from resilience.monitor.objective import objective_rows
from resilience.monitor.queues import Workers, read_queues, unserved
from resilience.monitor.reasons import LATE_SECONDS, reason_row
from resilience.monitor.rows import connected, count_row, flag_rows, held_queues
from resilience.tasks.publishing import PUBLISH_ERRORS
from resilience.tasks.resilience import Resilience

BROKER_SECONDS = 3.0
"""Longest wait for the broker and the workers."""
LISTS = (
    *("reasons", "notes", "next"),
    *("breakers", "holds", "flags", "drills", "faults", "jobs", "more_dead"),
)
MAPPINGS = (
    *("queues", "oldest", "consumers", "unserved", "unreadable"),
    *("dead", "unknown", "objectives"),
)
Report = dict[str, Any]
Ask = Callable[[], Mapping[str, Any]]
AWAY = (ResilienceError, RedisError, *PUBLISH_ERRORS)


class Verdict(IntEnum):
    """What a status amounts to; its number is the exit code of the command."""

    WELL = 0
    DEGRADED = 1
    BROKEN = 2
    UNKNOWN = 3


def look(adopted: Resilience, command: str = "celery", *, workers: Workers = None) -> Report:
    """Return all that is known; what cannot be asked is named, and the rest is there.

    All values are those of JSON; texts of others are as they were written, and must be escaped
    where they are shown. Times are fleet time in seconds since 1970. These are the keys:

    - `at`: when the look was made; `verdict`: `well`, `degraded`, `broken` or `unknown`.
    - `level`: name of the worst level of all reasons, None if the store does not answer and
      nothing else is wrong; `since`: when the first reason of that level began, if known.
    - `reasons`: what keeps answers from being FULL. Each has `kind` (`open`, `held`, `shed`,
      `no_consumer`, `overdue`), `name` (of the dependency, queue or feature), `level`, `why` (a
      sentence), `since`, `until`, `users` (what they get: a phrase whose subject is "users") and
      `next`, commands.
    - `notes`: what degrades no answer, but needs somebody, with the same keys; `level` and `users`
      are None. `kind` is `dead`, `drill`, `fault`, `no_consumer`, `set_aside` or `unreadable`.
    - `breakers`: as `circuits.breaker_rows`; `holds`: `name`, `until`, `actor`, `reason`, `since`;
      `flags`: as `rows.flag_rows`; `drills`: as `drills.drill_rows`;
      `faults`: those that are set on purpose, with the fields of `FaultOrder`.
    - `queues`: messages by queue; `oldest`: when the oldest of them was published, where a broker
      knows that; `consumers`: workers by queue, of those with messages that were counted;
      `unserved`: since when a queue with messages and without a worker has been seen so;
      `unreadable`: how many messages of a queue were set aside.
    - `jobs`: counts of the ledger: `dependency`, `state`, `jobs`, `more`, `overdue_seconds`.
    - `objectives`: by name, as `objective.objective_rows`.
    - `dead`: dead letters by dependency, and in `more_dead` those where counting ended early.
    - `next`: all commands of reasons and notes, each once.
    - `unknown`: why a source (`store`, `broker`, `ledger`) could not be asked, by its name.

    It takes a tenth of a second at most where the store is away, `BROKER_SECONDS` where the broker
    is, and the ledger's own timeout.

    Args:
        adopted: What the app declared.
        command: Begins each command: `celery -A shop`.
        workers: If the caller knows. Else they are asked, if jobs wait in Redis: that takes a
            second, and each worker answers.
    """
    report: Report = {name: [] for name in LISTS} | {name: {} for name in MAPPINGS}
    sources: dict[str, Ask] = {
        "store": lambda: _from_store(adopted),
        "broker": lambda: read_queues(adopted, BROKER_SECONDS, workers),
        "ledger": lambda: _from_ledger(adopted),
    }
    for name, ask in sources.items():
        report |= answer_of(name, ask, report["unknown"])
    report["at"] = adopted.fleet_time()
    _judge(adopted, report)
    for row in (*report["reasons"], *report["notes"]):
        row["next"] = [f"{command} {words}" for words in row["next"]]
        report["next"] += (words for words in row["next"] if words not in report["next"])
    return report


def answer_of(source: str, ask: Ask, unknown: dict[str, str]) -> Mapping[str, Any]:
    """Return what a source answers; if it does not, nothing, and say in *unknown* why."""
    try:
        return ask()
    except AWAY as error:
        unknown[source] = text_of(error) or repr(error)
        return {}


def _from_store(adopted: Resilience) -> Mapping[str, Any]:
    connected(adopted)
    report: Report = {
        "level": Level.FULL.name,
        "holds": [asdict(one) for one in adopted.holds.all().values()],
        "objectives": objective_rows(adopted),
        "drills": drill_rows(adopted),
        "faults": [one.model_dump() for one in adopted.faults.ordered().values()],
        "breakers": breaker_rows(adopted),
        "flags": flag_rows(adopted),
    }
    reasons = adopted.degradation.reasons
    return report | {"reasons": [reason_row(adopted, one, report) for one in reasons]}


def _from_ledger(adopted: Resilience) -> Mapping[str, Any]:
    counts = adopted.ledger.counts()
    dead = [one for one in counts if one.state is State.DEAD]
    return {
        "jobs": [count_row(one) for one in counts],
        "dead": {one.dependency: one.jobs for one in dead},
        "more_dead": [one.dependency for one in dead if one.more],
    }


def _judge(adopted: Resilience, report: Report) -> None:
    """Add what no single source knows: more reasons, the notes, the level and the verdict."""
    reasons = report["reasons"]
    rows = (*_without_consumer(adopted, report), *_overdue(report), *_to_see_to(report))
    for row in rows:
        (reasons if row["level"] else report["notes"]).append(row)
    worst = max((Level[one["level"]] for one in reasons), default=Level.FULL)
    report["level"] = worst.name if reasons or "level" in report else None
    began = (one["since"] for one in reasons if one["level"] == worst.name)
    report["since"] = min((at for at in began if at), default=None)
    verdict = Verdict.DEGRADED if reasons else Verdict.WELL
    if report["unknown"]:
        verdict = Verdict.UNKNOWN
    if worst is Level.FAILED:
        verdict = Verdict.BROKEN
    report["verdict"] = verdict.name.lower()


def _row(kind: str, name: str, why: str, *mends: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - below
    """Return a note; with a `level`, and maybe a `since`, it is a reason for which jobs wait."""
    row = {"kind": kind, "name": name, "level": None, "why": why, "since": None, "until": None}
    row |= more
    users = "wait: these jobs do not run" if row["level"] else None
    return {**row, "users": users, "next": list(mends)}


def _without_consumer(adopted: Resilience, report: Report) -> Iterator[dict[str, Any]]:
    owners = {queue: one.name for one in adopted.dependencies.values() for queue in one.queues}
    owners.setdefault(adopted.app.conf.task_default_queue, DEFAULT_WORKER)
    held = held_queues(adopted)
    with suppress(StoreUnavailableError, ValueError):  # then nobody knows since when
        report["unserved"] = unserved(adopted, report["consumers"])
    for queue, workers in report["consumers"].items():
        if workers or queue in held:
            continue
        mends = [f"worker -Q {quote(queue)} -n {quote(queue)}@%h"]
        if queue in owners:  # it may be there, and hang
            mends = [f"resilience {command} {owners[queue]}" for command in ("health", "worker")]
        why = f"no worker takes the {report['queues'][queue]} job(s) in this queue"
        since = report["unserved"].get(queue)
        late = since is not None and report["at"] - since > LATE_SECONDS
        level = Level.FAILED.name if late else None
        yield _row("no_consumer", queue, why, *mends, level=level, since=since)


def _overdue(report: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    on_purpose = {row["name"] for row in report["reasons"] if row["kind"] in {"open", "held"}}
    for row in report["jobs"]:
        late, name = row["overdue_seconds"] or 0.0, row["dependency"]
        if late > LATE_SECONDS and name not in on_purpose:
            jobs = f"{row['jobs']}{'+' if row['more'] else ''}"
            why = f"no relay publishes {jobs} job(s) of the ledger that are due ({row['state']})"
            level, since = Level.STALE.name, report["at"] - late
            mends = ("resilience ledger status", "resilience relay")
            yield _row("overdue", name, why, *mends, level=level, since=since)


def _to_see_to(report: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name, jobs in report["dead"].items():
        more = "+" if name in report["more_dead"] else ""
        why = f"{jobs}{more} dead letter(s) are to be replayed or discarded"
        yield _row("dead", name, why, f"resilience dead list --dependency {quote(name)}")
    for queue, messages in report["unreadable"].items():
        why = f"{messages} message(s) could not be read; they are in {unreadable_name(queue)}"
        yield _row("set_aside", queue, why)
    for row in report["drills"]:
        last = row["last"]
        if last is not None and last["level"] == Level.FAILED.name:
            reasons = "; ".join(f"{step}: {why}" for step, why in last["reasons"].items())
            why = f"its last drill found that no fallback would have answered ({reasons})"
            yield _row("drill", row["task"], why, since=last["at"])
    for row in report["faults"]:
        ordered = f"by {row['actor']}: {row['reason']}"
        why = f"{row['rate']:.0%} of its calls have a fault on purpose ({row['kind']}), {ordered}"
        times = {"since": row["at"], "until": row["until"]}
        mend = f"resilience fault clear {quote(row['name'])}"
        yield _row("fault", row["dependency"], why, mend, **times)
    for row in report["breakers"]:
        if row["unreadable"]:
            name = row["dependency"]
            why = "the store keeps what is no circuit of this version; it counts as closed"
            yield _row("unreadable", name, why, f"resilience breaker reset {name} --reason …")


def app_command(app: Any) -> str:  # noqa: ANN401 - Celery's
    """Return the beginning of a command about *app*: `celery -A shop`.

    Of the command line that runs now only the app is repeated: an address of a broker may hold a
    password.
    """
    context = click.get_current_context(silent=True)
    given = context.find_root().params.get("app") if context else None
    name = given if isinstance(given, str) else app.main
    return f"celery -A {quote(name)}" if name else "celery"
