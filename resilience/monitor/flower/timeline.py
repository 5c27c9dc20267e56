"""What happened, in order: from the events that Flower heard and the audit of the ledger."""

import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|<>~-])")
NAMES = ("dependency", "feature", "queue", "job", "source", "task")
ACTOR, REASON = "actor", "reason"


def timeline(
    incidents: Iterable[Mapping[str, Any]], audited: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return all that happened, newest first: `at`, `what`, `name`, `actor`, `text`.

    Args:
        incidents: Events, as `state.noted` returns them.
        audited: Entries of the audit, and orders about features.
    """
    entries = [_heard(one["at"], str(one["kind"]), dict(one["fields"])) for one in incidents]
    for one in audited:
        fields = {name: one[name] for name in ("job", ACTOR, REASON, "task") if one.get(name)}
        entries.append(_heard(one["at"], str(one["action"]), fields))
    return sorted(entries, key=lambda one: float(one["at"]), reverse=True)


def _heard(at: float, what: str, fields: dict[str, Any]) -> dict[str, Any]:
    fields.pop("event", None)
    name = next((str(fields.pop(one)) for one in NAMES if fields.get(one)), "")
    actor, reason = str(fields.pop(ACTOR, "")), str(fields.pop(REASON, ""))
    rest = ", ".join(f"{key} {_rounded(value)}" for key, value in fields.items())
    text = "; ".join(part for part in (reason, rest) if part)
    return {"at": at, "what": what, "name": name, "actor": actor, "text": text}


def _rounded(value: object) -> object:
    return f"{value:.4g}" if isinstance(value, float) else value


def post_mortem(found: Mapping[str, Any], entries: Iterable[Mapping[str, Any]], app: str) -> str:
    """Return the beginning of a post-mortem as Markdown, in which nothing of others is markup.

    Args:
        found: What the page shows.
        entries: The part of the timeline that it is about, in any order.
        app: Name of the app.
    """
    ordered = sorted(entries, key=lambda one: float(one["at"]))
    span = f"{_moment(ordered[0]['at'])} to {_moment(ordered[-1]['at'])}" if ordered else "no events"
    worst = max((level for level in found["levels"][1] if level is not None), default=None)
    lines = [
        f"# Post-mortem: {plain(app)}",
        "",
        f"- Period: {span}",
        f"- Worst level of the last hour: {'not known' if worst is None else worst}",
        f"- Level when this was written: {plain(found.get('level') or 'not known')}",
        *(f"- Not known here: {plain(name)}: {plain(why)}" for name, why in found["unknown"].items()),
        *("", "## What keeps answers from being full", ""),
        *(
            f"- {plain(one['kind'])} {plain(one['name'])} ({plain(one['level'])}): {plain(one['why'])}"
            for one in found.get("reasons", ())
        ),
        *("", "## Timeline", "", "| time (UTC) | what | who or what | by | why |"),
        "|---|---|---|---|---|",
    ]
    for one in ordered:
        cells = [_moment(one["at"]), *(plain(one[key]) for key in ("what", "name", "actor", "text"))]
        lines.append(f"| {' | '.join(cells)} |")
    for heading in ("What users saw", "Why it happened", "What helped", "What we change"):
        lines += ["", f"## {heading}", "", "…"]
    return "\n".join(lines) + "\n"


def plain(text: object) -> str:
    """Return *text* on one line, with all that Markdown or HTML would read as markup escaped."""
    shown = "".join(one if one.isprintable() else " " for one in str(text))
    return SPECIAL.sub(r"\\\1", shown).replace("&", "&amp;")


def _moment(at: object) -> str:
    if not isinstance(at, int | float) or not math.isfinite(at) or not 0 <= at < 1e11:
        return "?"
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
