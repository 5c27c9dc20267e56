"""The report of a game day is one file, which loads nothing and runs nothing of others."""

import json
import re
from pathlib import Path

from resilience.chaos.gameday.game import Band, Result
from resilience.chaos.gameday.load import Request
from resilience.chaos.gameday.plan import Plan
from resilience.chaos.gameday.report import as_json, html

DATA = re.compile(r'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)
HOSTILE = "</script><script>alert(1)</script><img src=//example.org> {{DATA}}"
PLAN = Plan.model_validate(
    {"seconds": 5, "steady": [{"call": HOSTILE}], "workload": [{"call": HOSTILE, "rate": 1}]}
)
RESULT = Result(
    broken=[HOSTILE],
    unjudged=[HOSTILE],
    requests=[Request(name=HOSTILE, at=1.0)],
    bands=[Band(fault=HOSTILE, begin=1.0, end=2.0)],
)


def test_report_escapes_names_of_others() -> None:
    """A hostile name begins no element, and fills no place of the page; it is in the data whole."""
    document = as_json(PLAN, RESULT)

    page = html(HOSTILE, document)

    assert "<script>alert" not in page
    assert "<img" not in page
    [data] = re.findall(
        r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL
    )
    assert json.loads(data) == document


def test_report_loads_nothing() -> None:
    """All that it shows is in it, and its policy forbids requests."""
    page = html("plan.toml", as_json(PLAN, RESULT))

    assert "default-src 'none'" in page
    assert not re.search(r"<(script|link|img|iframe)[^>]*\b(src|href)=", page)
    assert "uPlot" in page


def test_verdict_of_a_broken_promise_goes_before_what_could_not_be_judged() -> None:
    """What was seen was seen."""
    assert RESULT.verdict == "broken"
    assert Result(unjudged=["why"]).verdict == "not judged"
    assert Result().verdict == "kept"


def test_files_of_the_report_are_beside_the_module() -> None:
    """The wheel has them: it takes all files of the package."""
    home = Path(html.__code__.co_filename).parent
    assert {one.name for one in home.iterdir()} >= {"report.html", "report.js"}
