"""Alerts, dashboard, runbook and documentation: they are about metrics and commands that exist."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest
import yaml

from jobs.dependencies import DEPENDENCIES
from jobs.features import FEATURES
from resilience.cli import resilience as command
from resilience.monitor.metrics import METRICS, PREFIX
from resilience.testing.requirement import require

ROOT = Path(__file__).parents[2]
RULES = ROOT / "monitoring/prometheus/rules.yml"
DASHBOARD = ROOT / "monitoring/grafana/degradation.json"
RUNBOOK = ROOT / "docs/runbook.md"
TELEMETRY = ROOT / "docs/telemetry.md"
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
EXPOSED = {PREFIX + name + suffix for name, one in METRICS.items() for suffix in SUFFIXES[one.kind]}
ALERTS = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
FEATURE_NAMES = [one.name for one in FEATURES]
COMMAND = re.compile(r"celery -A workers\.app resilience ([^`\n]+)")


@pytest.mark.parametrize("path", [RULES, DASHBOARD, RUNBOOK], ids=lambda path: path.name)
def test_every_metric_that_is_named_exists(path: Path) -> None:
    """A renamed metric cannot leave an alert that never fires, or an empty panel."""
    named = set(re.findall(r"\bresilience_[a-z_]+", path.read_text()))

    assert named <= EXPOSED


def test_dashboard_shows_every_metric() -> None:
    """What is counted can be seen, at an address that stays the same."""
    text = DASHBOARD.read_text()
    unseen = {name for name in METRICS if PREFIX + name not in text} - {"objective_full_ratio"}

    assert unseen == {"objective_answers_ratio"}
    assert json.loads(text)["uid"] == "celery-resilience"


def test_every_alert_says_what_is_wrong_and_where_to_read_on() -> None:
    """An alert has a summary, a description, a severity, and its own section of the runbook."""
    for alert in ALERTS:
        assert {"summary", "description", "runbook_url", "dashboard_url"} == {*alert["annotations"]}
        assert alert["labels"]["severity"] in {"page", "ticket"}
        assert alert["annotations"]["runbook_url"].endswith(f"runbook.md#{alert['alert'].lower()}")


def test_runbook_has_a_section_for_each_alert() -> None:
    """Nobody is sent to a section that is not there, and none is about an alert that is gone."""
    sections = re.findall(r"^## (Resilience\w+)", RUNBOOK.read_text(), re.MULTILINE)

    assert sections == [alert["alert"] for alert in ALERTS]


@pytest.mark.parametrize("words", sorted({*COMMAND.findall(RUNBOOK.read_text())}))
def test_commands_of_the_runbook_can_be_typed(words: str) -> None:
    """Each command of the runbook exists, with its options, and names what the shop has."""
    arguments, group = shlex.split(words), command
    context = click.Context(command)
    while isinstance(group, click.Group) and arguments:
        name = arguments.pop(0)
        found = group.get_command(context, name)
        assert found is not None, name
        group = found  # type: ignore[assignment] # a command at last
    given = group.make_context("runbook", arguments).params
    named = {given.get(option) for option in ("name", "dependency", "feature")} - {None}
    assert named <= {"default", *FEATURE_NAMES, *(one.name for one in DEPENDENCIES)}


@pytest.mark.parametrize("arguments", [("check", "rules"), ("test", "rules")], ids=" ".join)
def test_promtool_accepts_the_rules(arguments: tuple[str, str]) -> None:
    """The alerts are valid, stay quiet while all is well, and fire in time when it is not."""
    program = shutil.which("promtool")
    require("promtool", present=program is not None)
    path = RULES if arguments[0] == "check" else RULES.with_name("rules_test.yml")
    done = subprocess.run(  # noqa: S603 - of the package
        [str(program), *arguments, path.name],
        cwd=path.parent,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_a_test() -> None:
    """No alert is left out of the tests that promtool runs."""
    text = RULES.with_name("rules_test.yml").read_text()

    assert {alert["alert"] for alert in ALERTS} == {*re.findall(r"alertname: (\w+)", text)}


def test_table_of_metrics_equals_the_code() -> None:
    """The documentation lists each metric with its type, labels and meaning, and no other one."""
    rows = re.findall(
        r"^\| `(resilience_\w+)` \| (\w+) \| (.*?) \| (.*) \|$", TELEMETRY.read_text(), re.MULTILINE
    )

    assert rows == [
        (
            PREFIX + name + ("_total" if one.kind == "counter" else ""),
            one.kind,
            ", ".join(f"`{label}`" for label in one.labels) or "–",  # noqa: RUF001 - as written
            one.help,
        )
        for name, one in METRICS.items()
    ]
