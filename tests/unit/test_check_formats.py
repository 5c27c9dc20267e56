"""`celery … resilience check`: its formats and exit codes; docs/check.md lists its rules."""

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from celery import Celery
from celery.bin.base import CLIContext
from click.testing import CliRunner, Result

from resilience import Dependency, Resilience, ResilientTask
from resilience.cli import resilience
from resilience.cli.check import github, sarif
from resilience.monitor.checking.rules import RULES, Finding

PAGE = Path(__file__).parents[2] / "docs" / "check.md"
REDIS = "redis://127.0.0.1:9/0"
HOSTILE = Finding(
    "no-answer", "error", "task a%b\n::error::x", "100 %,\r\nreally", "mend: it", "/a b/ü,:.py", 7
)


def invoke(*words: str, **options: Any) -> Result:  # noqa: ANN401 - of the task
    """Run the command for an app with one task."""
    app = Celery("shop", broker=REDIS, backend=REDIS, set_as_current=False)
    Resilience(app, dependencies=[Dependency("bank")])
    given = {"base": ResilientTask, "dependency": "bank", "shared": False, **options}
    app.task(name="charge", **given)(nothing)
    context = CLIContext(app=app, no_color=True, workdir=None)
    return CliRunner().invoke(resilience, ["check", *words], obj=context)


def nothing() -> None:
    """Do nothing."""


FIXED = {"autoretry_for": (OSError,)}
LOST = {"ignore_result": True}


@pytest.mark.parametrize(
    ("words", "options", "code"),
    [
        pytest.param(["--no-probe"], {}, 0, id="clean"),
        pytest.param(["--no-probe"], FIXED, 0, id="warning"),
        pytest.param(["--no-probe", "--strict"], FIXED, 1, id="strict"),
        pytest.param(["--no-probe"], LOST, 1, id="error"),
        pytest.param(["--format", "xml"], {}, 2, id="usage"),
        pytest.param([], {}, 3, id="broker-away"),
        pytest.param([], LOST, 1, id="broker-away-and-error"),
    ],
)
def test_exit_code_says_what_was_found(words: list[str], options: Any, code: int) -> None:  # noqa: ANN401 - as of invoke
    """0 clean, 1 findings, 2 wrong usage, 3 cannot tell; an error outweighs what is not known."""
    assert invoke(*words, **options).exit_code == code


def test_text_shows_the_table_and_every_finding_with_its_mend() -> None:
    """What people read."""
    said = invoke("--no-probe", **LOST).output
    assert "┃ task" in said
    assert re.search(r"^error: no-answer: task charge: ignore_result=True", said, re.MULTILINE)
    assert "to mend it: base=FireAndForgetTask" in said


def test_json_has_tasks_and_findings() -> None:
    """What scripts read."""
    found = json.loads(invoke("--no-probe", "--format", "json", **LOST).output)
    (finding,) = found["findings"]
    (task,) = [one for one in found["tasks"] if one["task"] == "charge"]
    assert (task["timeout"], task["worst_seconds"]) == (5.0, 5.0)
    assert (finding["rule"], finding["severity"]) == ("no-answer", "error")


def test_sarif_has_what_the_schema_of_2_1_0_demands() -> None:
    """Each result names a rule that the driver has, a level, a text, and a place in a file."""
    found = sarif([HOSTILE, *(Finding(name, "note", "x", "y", "z") for name in RULES)])
    assert found["version"] == "2.1.0"
    assert found["$schema"].endswith("sarif-2.1.0.json")
    (run,) = found["runs"]
    driver = run["tool"]["driver"]
    ids = [rule["id"] for rule in driver["rules"]]
    assert driver["name"]
    assert ids == [*RULES]
    assert all(rule["shortDescription"]["text"] for rule in driver["rules"])
    for result in run["results"]:
        assert result["ruleId"] in ids
        assert result["level"] in {"none", "note", "warning", "error"}
        assert result["message"]["text"]
        (location,) = result["locations"]
        place = location["physicalLocation"]
        assert re.fullmatch(r"[A-Za-z0-9._~/%-]+", place["artifactLocation"]["uri"])
        assert place["region"]["startLine"] >= 1
        assert location["logicalLocations"][0]["fullyQualifiedName"]
    uri = run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert unquote(uri) == HOSTILE.file


def test_github_command_is_one_line_whatever_the_names_are() -> None:
    """A name cannot end the value that it stands in, or begin a command of its own."""
    line = github(HOSTILE)
    assert line.count("\n") == 1
    assert line == (
        "::error file=/a b/ü%2C%3A.py,line=7,title=no-answer::"
        "task a%25b%0A::error::x: 100 %25,%0D%0Areally; to mend it: mend: it\n"
    )
    assert github(Finding("cannot-tell", "note", "a", "b", "c")).startswith("::notice title=")


def test_page_lists_every_rule_with_its_severity() -> None:
    """docs/check.md says what there is to find, and nothing else."""
    rows = re.findall(r"^\| `([a-z-]+)` \| (\w+) \|", PAGE.read_text(), re.MULTILINE)
    assert dict(rows) == {name: rule["severity"] for name, rule in RULES.items()}
    assert len(rows) == len(RULES)
