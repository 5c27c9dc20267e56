"""What degrades now, why, and what to do next: all that can be known, as plain values."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from enum import IntEnum
from shlex import quote
from typing import Any

import click
from redis import RedisError

from resilience.dependency import DEFAULT_WORKER
from resilience.errors import ResilienceError, StoreUnavailableError, text_of
from resilience.ledger import State
from resilience.levels import Level
from resilience.monitor.circuits import breaker_rows
from resilience.monitor.objective import objective_rows
from resilience.monitor.queues import Queues, unserved
from resilience.monitor.reasons import LATE_SECONDS, reason_row
from resilience.monitor.rows import connected, count_row, flag_rows
from resilience.tasks.publishing import PUBLISH_ERRORS, publish_within
from resilience.tasks.resilience import Resilience

BROKER_SECONDS = 3.0
"""Longest wait for the broker and the workers."""
LISTS = ("reasons", "notes", "breakers", "holds", "flags", "jobs", "more_dead", "next")
MAPPINGS = ("queues", "consumers", "unserved", "dead", "unknown", "objectives")
AWAY = (ResilienceError, RedisError, *PUBLISH_ERRORS)


class Verdict(IntEnum):
    """What a status amounts to; its number is the exit code of the command."""

    WELL = 0
    DEGRADED = 1
    BROKEN = 2
    UNKNOWN = 3


def look(
    adopted: Resilience,
    command: str = "celery",
    *,
    ask_workers: bool = True,
    workers: Mapping[str, int] | None = None,
) -> dict[str, Any]:
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
      are None. `kind` is `dead`, `no_consumer` or `unreadable`.
    - `breakers`: as `circuits.breaker_rows`; `holds`: `name`, `until`, `actor`, `reason`, `since`;
      `flags`: as `rows.flag_rows`.
    - `queues`: messages by queue; `consumers`: workers by queue, of those with messages that were
      counted; `unserved`: since when a queue with messages and without a worker has been seen so.
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
        ask_workers: Whether workers are asked what they consume, if jobs wait in Redis: that takes
            a second, and each worker answers. RabbitMQ knows by itself.
        workers: How many workers consume from each queue, if the caller knows.
    """
    found: dict[str, Any] = {"level": None, "since": None}
    found |= {name: [] for name in LISTS} | {name: {} for name in MAPPINGS}
    sources: dict[str, Callable[[], Mapping[str, Any]]] = {
        "store": lambda: _from_store(adopted),
        "broker": lambda: _from_broker(adopted, workers, ask_workers=ask_workers),
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
        found["next"] += (words for words in row["next"] if words not in found["next"])
    return found


def _from_store(adopted: Resilience) -> Mapping[str, Any]:
    connected(adopted)
    found: dict[str, Any] = {
        "holds": [asdict(one) for one in adopted.holds.all().values()],
        "objectives": objective_rows(adopted),
        "breakers": breaker_rows(adopted),
        "flags": flag_rows(adopted),
    }
    degradation = adopted.degradation
    found["reasons"] = [reason_row(adopted, one, found) for one in degradation.reasons]
    found["level"] = Level.FULL.name
    return found


def _from_broker(
    adopted: Resilience, workers: Mapping[str, int] | None, *, ask_workers: bool
) -> Mapping[str, Any]:
    queues = Queues(adopted, ask_workers=ask_workers)
    if not publish_within(BROKER_SECONDS, queues.ask):
        msg = f"the broker did not answer within {BROKER_SECONDS:g} s"
        raise TimeoutError(msg)
    consumers = queues.consumers
    if workers is not None and not consumers:
        consumers = {name: workers.get(name, 0) for name, jobs in queues.depths.items() if jobs}
    return {"queues": queues.depths, "consumers": consumers}


def _from_ledger(adopted: Resilience) -> Mapping[str, Any]:
    counts = adopted.ledger.counts()
    dead = [one for one in counts if one.state is State.DEAD]
    return {
        "jobs": [count_row(one) for one in counts],
        "dead": {one.dependency: one.jobs for one in dead},
        "more_dead": [one.dependency for one in dead if one.more],
    }


def _judge(adopted: Resilience, found: dict[str, Any]) -> None:
    """Add to *found* what no single source knows: more reasons, the notes, level and verdict."""
    reasons = found["reasons"]
    on_purpose = {one["name"] for one in reasons if one["kind"] in ("open", "held")}
    for row in (
        *_without_consumer(adopted, found, on_purpose),
        *_overdue(found, on_purpose),
        *_to_see_to(found),
    ):
        (reasons if row["level"] else found["notes"]).append(row)
    worst = max((Level[one["level"]] for one in reasons), default=Level.FULL)
    if found["level"] or reasons:
        found["level"] = worst.name
    began = (one["since"] for one in reasons if one["level"] == worst.name)
    found["since"] = min((at for at in began if at), default=None)
    verdict = Verdict.DEGRADED if reasons else Verdict.WELL
    if found["unknown"]:
        verdict = Verdict.UNKNOWN
    if worst is Level.FAILED:
        verdict = Verdict.BROKEN
    found["verdict"] = verdict.name.lower()


def _row(kind: str, name: str, why: str, *mends: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - below
    """Return a note; with a `level`, and maybe a `since`, it is a reason for which jobs wait."""
    row = {"kind": kind, "name": name, "level": None, "why": why, "since": None, **more}
    users = "wait: these jobs do not run" if row["level"] else None
    return {**row, "until": None, "users": users, "next": list(mends)}


def _without_consumer(
    adopted: Resilience, found: dict[str, Any], on_purpose: set[str]
) -> Iterable[dict[str, Any]]:
    owners = {queue: one.name for one in adopted.dependencies.values() for queue in one.queues}
    default = adopted.app.conf.task_default_queue
    with suppress(StoreUnavailableError, ValueError):  # then nobody knows since when
        found["unserved"] = unserved(adopted, found["consumers"])
    for queue, consumers in found["consumers"].items():
        owner, since = owners.get(queue), found["unserved"].get(queue)
        if consumers or {queue, owner} & on_purpose:
            continue
        mend = f"worker -Q {quote(queue)} -n {quote(queue)}@%h"
        if owner or queue == default:
            mend = f"resilience worker {owner or DEFAULT_WORKER}"
        why = f"no worker takes the {found['queues'][queue]} job(s) in this queue"
        late = since is not None and found["at"] - since > LATE_SECONDS
        level = Level.FAILED.name if late else None
        yield _row("no_consumer", queue, why, mend, level=level, since=since)


def _overdue(found: Mapping[str, Any], on_purpose: set[str]) -> Iterable[dict[str, Any]]:
    for row in found["jobs"]:
        late, name = row["overdue_seconds"] or 0.0, row["dependency"]
        if late > LATE_SECONDS and name not in on_purpose:
            jobs = f"{row['jobs']}{'+' if row['more'] else ''}"
            why = f"no relay publishes {jobs} job(s) of the ledger that are due ({row['state']})"
            since = found["at"] - late
            mends = ("resilience ledger status", "resilience relay")
            yield _row("overdue", name, why, *mends, level=Level.STALE.name, since=since)


def _to_see_to(found: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    for name, jobs in found["dead"].items():
        more = "+" if name in found["more_dead"] else ""
        why = f"{jobs}{more} dead letter(s) are to be replayed or discarded"
        yield _row("dead", name, why, f"resilience dead list --dependency {quote(name)}")
    for row in found["breakers"]:
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
