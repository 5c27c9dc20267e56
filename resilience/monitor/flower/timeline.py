"""What happened, in order: from the events that Flower heard and the audit of the ledger."""

import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from resilience.levels import Level

SPECIAL = re.compile(r"([\\`*_\[\]|<>~])")
CIRCUITS = "breaker-"
TIME_MAX = 1e11
CELLS = ("what", "name", "actor", "text")
TO_WRITE = ("What users saw", "Why it happened", "What helped", "What we change")


def timeline(
    incidents: Iterable[Mapping[str, Any]], audited: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return all that happened, newest first: `at`, `what`, `name`, `actor`, `text`.

    Args:
        incidents: Events, as `state.noted` returns them. Those of circuits are left out if
            *audited* has any: the store knows all of them.
        audited: Orders, and changes of circuits: `at`, `what`, `name`, `actor`, `reason`, others.
    """
    known = [dict(one) for one in audited]
    circuits = any("event" in one for one in known)
    for one in incidents:
        if not (circuits and one["kind"].startswith(CIRCUITS)):
            fields = {key: value for key, value in one["fields"].items() if value != one["name"]}
            fields |= {"at": one["at"], "what": one["kind"], "name": one["name"]}
            known.append({**fields, "times": one.get("times")})
    return sorted(map(_entry, known), key=lambda one: float(one["at"]), reverse=True)


def _entry(fields: dict[str, Any]) -> dict[str, Any]:
    fields.pop("event", None)
    entry = {key: fields.pop(key) for key in ("at", "what", "name")}
    entry["actor"], reason = fields.pop("actor", None) or "", fields.pop("reason", None)
    texts = [str(reason)] if reason else []
    for key, value in fields.items():
        if value not in (None, ""):
            texts.append(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}")
    return entry | {"text": "; ".join(texts)}


def post_mortem(shown: Mapping[str, Any], entries: Iterable[Mapping[str, Any]], app: str) -> str:
    """Return the beginning of a post-mortem as Markdown, in which nothing of others is markup.

    Args:
        shown: What the page shows.
        entries: The part of the timeline that it is about, in any order.
        app: Name of the app.
    """
    ordered = sorted(entries, key=lambda one: float(one["at"]))
    levels = [level for level in shown["levels"][1] if level is not None]
    facts = {
        "First event": _moment(ordered[0]["at"]) if ordered else "none",
        "Last event": _moment(ordered[-1]["at"]) if ordered else "none",
        "Worst level of the last hour": Level(max(levels)).name if levels else "not known",
        "Level now": shown.get("level") or "not known",
    }
    facts |= {f"Not known: the {name}": why for name, why in shown["unknown"].items()}
    for one in shown.get("reasons", ()):
        facts[f"{one['kind']} {one['name']}, {one['level']}"] = one["why"]
    lines = [f"# Post-mortem: {plain(app)}", ""]
    lines += [f"- {plain(name)}: {plain(value)}" for name, value in facts.items()]
    lines += ["", "## Timeline", "", "| time (UTC) | what | where | by | why |", "|" + "---|" * 5]
    for one in ordered:
        cells = map(plain, (_moment(one["at"]), *(one[key] for key in CELLS)))
        lines.append(f"| {' | '.join(cells)} |")
    lines += [f"\n## {heading}\n\n…" for heading in TO_WRITE]
    return "\n".join(lines) + "\n"


def plain(text: object) -> str:
    """Return *text* on one line, with all that Markdown or HTML would read as markup escaped."""
    shown = "".join(one if one.isprintable() else " " for one in str(text))
    return SPECIAL.sub(r"\\\1", shown).replace("&", "&amp;")


def _moment(at: object) -> str:
    if not isinstance(at, int | float) or not math.isfinite(at) or not 0 <= at < TIME_MAX:
        return "?"
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
