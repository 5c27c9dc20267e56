"""Why answers are not FULL, in words: what is wrong, what users get, and what to do."""

from collections.abc import Mapping
from shlex import quote
from typing import Any

from resilience.flags import Source
from resilience.levels import Level
from resilience.tasks.degradation import Reason, levels_without
from resilience.tasks.resilience import Resilience

LATE_SECONDS = 60.0
"""Jobs that nobody takes, and retries that nobody publishes, are late after so long."""
FORGOTTEN_SECONDS = 3600.0
"""Somebody may have forgotten an order to hold that is in force for so long."""
TASKS_SHOWN = 3
GETS = {
    Level.FULL: "what they asked for",
    Level.STALE: "older answers, or the same later",
    Level.REDUCED: "answers with less in them",
    Level.STATIC: "prepared answers",
    Level.FAILED: "errors",
}


def reason_row(adopted: Resilience, one: Reason, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return *one* reason as `look` shows it.

    Args:
        adopted: What the app declared.
        one: The reason.
        found: The rows of breakers, holds and flags that belong to it.
    """
    row = {
        "kind": one.kind,
        "name": one.name,
        "level": one.level.name,
        "why": one.why,
        "since": one.since,
        "until": one.until,
        "users": f"get {GETS[one.level]}",
    }
    if one.kind == "open":
        rows = {row["dependency"]: row for row in found["breakers"]}
        return row | _open(adopted, one, rows[one.name])
    if one.kind == "held":
        actors = {row["name"]: row["actor"] for row in found["holds"]}
        return row | _held(adopted, one, actors.get(one.name, "somebody"))
    sources = {flag["feature"]: flag["source"] for flag in found["flags"]}
    orders = {
        Source.BROWNOUT: "resilience brownout off --reason …",
        Source.ORDER: f"resilience flag auto {one.name} --reason …",
    }
    on = f"resilience flag on {one.name} --for 30m --reason …"
    mend = orders.get(sources[one.name], on)
    return row | {"next": [mend]}


def _open(adopted: Resilience, one: Reason, row: Mapping[str, Any]) -> dict[str, Any]:
    levels = levels_without(adopted.app, adopted.dependencies[one.name])
    users = _users(levels) if levels else f"get {GETS[one.level]}"
    if row["state"] == "forced_open":
        return {"users": users, "next": [f"resilience breaker reset {one.name} --reason …"]}
    why = f"{one.why}: {row['why']}" if row["why"] else one.why
    if row["error"]:
        why += f"; the last error was {row['error']}"
    since = row["since"] or one.since
    mends = [f"resilience breaker history {one.name}"]
    return {"why": why, "since": since, "users": users, "next": mends}


def _users(levels: Mapping[str, Level]) -> str:
    """Return what users get, worst first: `get errors (load), prepared answers (read)`."""
    texts = []
    for level in sorted(set(levels.values()), reverse=True):
        names = [name for name, own in levels.items() if own is level]
        more = f" and {len(names) - TASKS_SHOWN} more" if len(names) > TASKS_SHOWN else ""
        texts.append(f"{GETS[level]} ({', '.join(names[:TASKS_SHOWN])}{more})")
    return f"get {', '.join(texts)}"


def _held(adopted: Resilience, one: Reason, actor: str) -> dict[str, Any]:
    why = f"{actor} ordered to hold it: {one.why}"
    if one.since is not None and adopted.fleet_time() - one.since > FORGOTTEN_SECONDS:
        why += " (was it forgotten?)"
    users = "wait: jobs stay in the queue until it is released"
    return {"why": why, "users": users, "next": [f"resilience release {quote(one.name)}"]}
