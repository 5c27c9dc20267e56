"""The report of a game day: as JSON, and as one HTML file that needs nothing else."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from html import escape
from importlib.resources import files
from typing import Any, Final

from resilience.chaos.gameday.game import Result
from resilience.chaos.gameday.load import Request
from resilience.chaos.gameday.plan import Plan
from resilience.levels import Level

CHARTS: Final = "resilience.monitor.flower", "static"
"""Where the chart library is shipped."""
MARK: Final = re.compile(r"\{\{(\w+)\}\}")
Document = dict[str, Any]


def as_json(plan: Plan, result: Result) -> Document:
    """Return the plan and the whole result of a game day, as values that JSON can hold."""
    return {
        "verdict": result.verdict,
        "broken": result.broken,
        "not_judged": result.unjudged,
        "recovery_seconds": result.recovery,
        "jobs": asdict(result.jobs),
        "requests": [_request(one) for one in result.requests],
        "samples": [asdict(one) for one in result.samples],
        "faults": [asdict(one) for one in result.bands],
        "plan": plan.model_dump(mode="json", by_alias=True),
    }


def _request(one: Request) -> Document:
    level = Level.FAILED if one.answer is None else one.answer.level
    return {
        "name": one.name,
        "job": one.job,
        "at": round(one.at, 3),
        "seconds": one.seconds,
        "level": level.name,
        "source": "no answer" if one.answer is None else one.answer.source,
    }


def html(title: str, document: Mapping[str, Any]) -> str:
    """Return *document*, which `as_json` made, as one self-contained HTML page."""
    own, charts = files(__package__), files(CHARTS[0]) / CHARTS[1]
    parts = {
        "TITLE": escape(title),
        "VERDICT": escape(document["verdict"]),
        "SENTENCES": "".join(
            f"<li>{escape(one)}" for one in (*document["broken"], *document["not_judged"])
        ),
        "COUNTS": "".join(
            f"<tr><th>{escape(name)}<td>{len(jobs)}" for name, jobs in document["jobs"].items()
        ),
        "FAULTS": "".join(
            f"<tr><td>{escape(one['fault'])}<td>{one['begin']:.1f} s<td>{one['end']:.1f} s"
            for one in document["faults"]
        ),
        "CHART_STYLE": (charts / "uplot.css").read_text(encoding="utf-8"),
        "CHART_LICENSE": (charts / "uplot-LICENSE.txt").read_text(encoding="utf-8"),
        "CHART_SCRIPT": (charts / "uplot.js").read_text(encoding="utf-8"),
        "SCRIPT": (own / "report.js").read_text(encoding="utf-8"),
        # "<" cannot end the script element, nor begin a comment in it.
        "DATA": json.dumps(document).replace("<", "\\u003c"),
    }
    page = (own / "report.html").read_text(encoding="utf-8")
    # In one pass, so that a value that contains {{…}} is not replaced in its turn.
    return MARK.sub(lambda mark: parts[mark[1]], page)
