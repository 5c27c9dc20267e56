"""`celery -A app resilience check`: what will go wrong in an app, before it does."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import click

import resilience
from resilience.cli.rows import print_rows
from resilience.cli.words import plain
from resilience.monitor.checking.check import ORDER, Report, report_of
from resilience.monitor.checking.rules import RULES, Finding

FORMATS = ("text", "json", "sarif", "github")
WRONG, CANNOT_TELL = 1, 3
SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"


@click.command()
@click.option("--format", "kind", type=click.Choice(FORMATS), default="text", show_default=True)
@click.option("--strict", is_flag=True, help="Warnings count as errors.")
@click.option("--no-probe", is_flag=True, help="Ask neither the broker nor running workers.")
@click.pass_context
def check(context: click.Context, kind: str, *, strict: bool, no_probe: bool) -> None:
    """Say for every task what happens when it times out, and what is wrong with the app.

    Exit code 0: nothing is wrong; 1: there are errors, or with --strict warnings; 2: the command
    or the app is wrong; 3: nothing else is wrong, but something could not be asked.
    """
    report = report_of(context.obj.app, probe=not no_probe)
    rows, found = [one.row() for one in report.answers], report.findings
    match kind:
        case "json":
            as_dicts = [dataclasses.asdict(one) for one in found]
            click.echo(json.dumps({"tasks": rows, "findings": as_dicts}, indent=2))
        case "sarif":
            click.echo(json.dumps(sarif(found), indent=2))
        case "github":
            click.echo("".join(map(github, found)), nl=False)
        case _:
            print_rows(rows, [*rows[0]], as_json=False)
            click.echo("\n".join(_lines(report)))
    severities = {one.severity for one in found}
    if "error" in severities or (strict and "warning" in severities):
        context.exit(WRONG)
    context.exit(CANNOT_TELL if "note" in severities else 0)


def sarif(found: list[Finding]) -> dict[str, Any]:
    """Return findings in SARIF 2.1.0, as code hosts read it."""
    rules = [
        {
            "id": name,
            "shortDescription": {"text": rule["summary"]},
            "defaultConfiguration": {"level": rule["severity"]},
        }
        for name, rule in RULES.items()
    ]
    results = [
        {
            "ruleId": one.rule,
            "level": one.severity,
            "message": {"text": one.sentence},
            "locations": [_location(one)],
        }
        for one in found
    ]
    driver = {"name": "celery-resilience", "version": resilience.__version__, "rules": rules}
    runs = [{"tool": {"driver": driver}, "results": results}]
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": runs}


def _location(finding: Finding) -> dict[str, Any]:
    logical = {"logicalLocations": [{"fullyQualifiedName": finding.place}]}
    if finding.file is None:
        return logical
    path = _path_of(finding)
    uri = Path(path).as_uri() if Path(path).is_absolute() else quote(path)
    place = {"artifactLocation": {"uri": uri}, "region": {"startLine": finding.line}}
    return {"physicalLocation": place, **logical}


def github(finding: Finding) -> str:
    """Return a finding as a workflow command, which GitHub shows beside the code."""
    path, kind = _escape(_path_of(finding), ":,"), finding.severity.replace("note", "notice")
    told = f"file={path},line={finding.line},title={finding.rule}"
    return f"::{kind} {told}::{_escape(finding.sentence)}\n"


def _escape(text: str, more: str = "") -> str:
    """Return *text* as GitHub reads it; *more* are characters that end a value."""
    return "".join(f"%{ord(one):02X}" if one in f"%\r\n{more}" else one for one in text)


def _path_of(finding: Finding) -> str:
    """Return the file of a finding as seen from the working directory; empty: none is known."""
    path, here = Path(finding.file or ""), Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else finding.file or "")


def _lines(report: Report) -> Iterator[str]:
    for one in report.findings:
        where = f" ({_path_of(one)}:{one.line})" if one.file else ""
        yield f"{one.severity}: {one.rule}: {plain(one.place)}{where}: {plain(one.message)}"
        yield f"  to mend it: {plain(one.mend)}"
    counts = {kind: sum(one.severity == kind for one in report.findings) for kind in ORDER}
    yield ", ".join(f"{number} {kind}s" for kind, number in counts.items())
