"""What happened, in order: from the events that Flower heard and the audit of the ledger."""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from resilience.levels import Level
from resilience.text import hide_in_text

Rows = Iterable[Mapping[str, Any]]
SPECIAL = re.compile(r"([\\`*_\[\]|<>~])")
CIRCUITS = "breaker-"
TIME_MAX = 1e11
CELLS = ("what", "name", "actor", "text")
TO_WRITE = ("What users saw", "Why it happened", "What helped", "What we change")


def timeline(incidents: Rows, audited: Rows) -> list[dict[str, Any]]:
    """Return all that happened, newest first: `at`, `what`, `name`, `actor`, `text`.

    Args:
        incidents: Events, as `state.noted` returns them. Those of circuits are left out if
            *audited* has any: the store knows all of them.
        audited: Orders, and changes of circuits: `at`, `what`, `name`, `actor`, `reason`, others.
    """
    entries = [dict(entry) for entry in audited]
    circuits = any("event" in entry for entry in entries)
    for incident in incidents:
        if not (circuits and incident["kind"].startswith(CIRCUITS)):
            name, fields = incident["name"], incident["fields"]
            entry = {key: value for key, value in fields.items() if value != name}
            entry |= {"at": incident["at"], "what": incident["kind"], "name": name}
            entries.append({**entry, "times": incident.get("times")})
    return sorted(map(_entry, entries), key=lambda entry: float(entry["at"]), reverse=True)


def _entry(fields: dict[str, Any]) -> dict[str, Any]:
    fields.pop("event", None)
    entry = {key: fields.pop(key) for key in ("at", "what", "name")}
    entry["actor"], reason = fields.pop("actor", None) or "", fields.pop("reason", None)
    texts = [str(reason)] if reason else []
    for key, value in fields.items():
        if value not in (None, ""):
            texts.append(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}")
    return entry | {"text": "; ".join(texts)}


def post_mortem(shown: Mapping[str, Any], entries: Rows, app: str) -> str:
    """Return the beginning of a post-mortem as Markdown, in which nothing of others is markup.

    Args:
        shown: What the page shows.
        entries: The part of the timeline that it is about, in any order.
        app: Name of the app.
    """
    ordered = sorted(entries, key=lambda entry: float(entry["at"]))
    levels = [level for level in shown["levels"][1] if level is not None]
    facts = {
        "First event": _moment(ordered[0]["at"]) if ordered else "none",
        "Last event": _moment(ordered[-1]["at"]) if ordered else "none",
        "Worst level of the last hour": Level(max(levels)).name if levels else "not known",
        "Level now": shown.get("level") or "not known",
    }
    facts |= {f"Not known: the {name}": why for name, why in shown["unknown"].items()}
    for reason in shown.get("reasons", ()):
        facts[f"{reason['kind']} {reason['name']}, {reason['level']}"] = reason["why"]
    lines = [f"# Post-mortem: {plain(app)}", ""]
    lines += [f"- {plain(name)}: {plain(value)}" for name, value in facts.items()]
    lines += ["", "## Timeline", "", "| time (UTC) | what | where | by | why |", "|" + "---|" * 5]
    for entry in ordered:
        cells = map(plain, (_moment(entry["at"]), *(entry[key] for key in CELLS)))
        lines.append(f"| {' | '.join(cells)} |")
    lines += [f"\n## {heading}\n\n…" for heading in TO_WRITE]
    return "\n".join(lines) + "\n"


def plain(text: object) -> str:
    """Return *text* on one line, with all that Markdown or HTML would read as markup escaped."""
    shown = "".join(one if one.isprintable() else " " for one in hide_in_text(str(text)))
    return SPECIAL.sub(r"\\\1", shown).replace("&", "&amp;")


def _moment(at: object) -> str:
    if not isinstance(at, int | float) or not 0 <= at < TIME_MAX:
        return "?"
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
