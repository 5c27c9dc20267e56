"""Why answers are not FULL, in words: what is wrong, what users get, and what to do."""

from collections.abc import Mapping
from dataclasses import asdict
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


def reason_row(adopted: Resilience, reason: Reason, report: Mapping[str, Any]) -> dict[str, Any]:
    """Return *reason* as `look` shows it.

    Args:
        adopted: What the app declared.
        reason: The reason.
        report: What `look` knows of breakers, holds and flags.
    """
    more = {"open": _open, "held": _held, "shed": _shed}[reason.kind]
    row = {**asdict(reason), "level": reason.level.name, "users": f"get {GETS[reason.level]}"}
    return row | more(adopted, reason, report)


def _open(adopted: Resilience, reason: Reason, report: Mapping[str, Any]) -> dict[str, Any]:
    [row] = [row for row in report["breakers"] if row["dependency"] == reason.name]
    levels = levels_without(adopted.app, adopted.dependencies[reason.name])
    more = {"users": _users(levels)} if levels else {}
    if row["state"] == "forced_open":
        return {**more, "next": [f"resilience breaker reset {reason.name} --reason …"]}
    why = f"{reason.why}: {row['why']}" if row["why"] else reason.why
    if row["error"]:
        why += f"; the last error was {row['error']}"
    since, mend = row["since"] or reason.since, f"resilience breaker history {reason.name}"
    return {**more, "why": why, "since": since, "next": [mend]}


def _users(levels: Mapping[str, Level]) -> str:
    """Return what users get, worst first: `get errors (load), prepared answers (read)`."""
    texts = []
    for level in sorted(set(levels.values()), reverse=True):
        names = [name for name, own in levels.items() if own is level]
        more = f" and {len(names) - TASKS_SHOWN} more" if len(names) > TASKS_SHOWN else ""
        texts.append(f"{GETS[level]} ({', '.join(names[:TASKS_SHOWN])}{more})")
    return f"get {', '.join(texts)}"


def _held(adopted: Resilience, reason: Reason, report: Mapping[str, Any]) -> dict[str, Any]:
    actors = {row["name"]: row["actor"] for row in report["holds"]}
    why = f"{actors.get(reason.name, 'somebody')} ordered to hold it: {reason.why}"
    if reason.since is not None and adopted.fleet_time() - reason.since > FORGOTTEN_SECONDS:
        why += " (was it forgotten?)"
    users = "wait: jobs stay in the queue until it is released"
    return {"why": why, "users": users, "next": [f"resilience release {quote(reason.name)}"]}


def _shed(_: Resilience, reason: Reason, report: Mapping[str, Any]) -> dict[str, Any]:
    name, sources = reason.name, {row["feature"]: row["source"] for row in report["flags"]}
    mends = {Source.BROWNOUT: "brownout off", Source.ORDER: f"flag auto {name}"}
    mend = mends.get(sources[name], f"flag on {name} --for 30m")
    return {"next": [f"resilience {mend} --reason …"]}
