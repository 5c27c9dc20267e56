"""`celery -A app resilience check`: what will go wrong in an app, before it does."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import click

import resilience
from resilience.cli.rows import print_rows
from resilience.cli.words import say, say_json
from resilience.monitor.checking.check import report_of
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
    answers, findings = report_of(context.obj.app, probe=not no_probe)
    rows = [answer.row() for answer in answers]
    match kind:
        case "json":
            say_json({"tasks": rows, "findings": [*map(asdict, findings)]})
        case "sarif":
            say_json(sarif(findings))
        case "github":
            say("".join(map(github, findings)), nl=False)
        case _:
            print_rows(rows, [*rows[0]], as_json=False)
            for one in findings:
                where = f" ({_path_of(one)}:{one.line})" if one.file else ""
                say(f"{one.severity}: {one.rule}: {_sentence(one)}{where}")
            say(f"{len(rows)} tasks, {len(findings)} findings")
    severities = {one.severity for one in findings}
    if "error" in severities or (strict and "warning" in severities):
        context.exit(WRONG)
    context.exit(CANNOT_TELL if "note" in severities else 0)


def sarif(findings: list[Finding]) -> dict[str, Any]:
    """Return findings in SARIF 2.1.0, as code hosts read it."""
    rules = [{"id": name, "shortDescription": {"text": RULES[name]["summary"]}} for name in RULES]
    driver = {"name": "celery-resilience", "version": resilience.__version__, "rules": rules}
    run = {"tool": {"driver": driver}, "results": [*map(_result, findings)]}
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _result(one: Finding) -> dict[str, Any]:
    uri, region = quote(_path_of(one) or "."), {"startLine": one.line}
    location = {
        "physicalLocation": {"artifactLocation": {"uri": uri}, "region": region},
        "logicalLocations": [{"fullyQualifiedName": one.place}],
    }
    text = {"text": _sentence(one)}
    return {"ruleId": one.rule, "level": one.severity, "message": text, "locations": [location]}


def github(one: Finding) -> str:
    """Return a finding as a workflow command, which GitHub shows beside the code."""
    kind = one.severity.replace("note", "notice")
    at = f"file={_escape(_path_of(one), ':,')},line={one.line}," if one.file else ""
    return f"::{kind} {at}title={one.rule}::{_escape(_sentence(one))}\n"


def _escape(text: str, more: str = "") -> str:
    """Return *text* as GitHub reads it; *more* are characters that end a value."""
    return "".join(f"%{ord(sign):02X}" if sign in f"%\r\n{more}" else sign for sign in text)


def _sentence(one: Finding) -> str:
    return f"{one.place}: {one.message}; to mend it: {one.mend}"


def _path_of(one: Finding) -> str:
    """Return the file of a finding as seen from the working directory; empty: none is known."""
    path, here = Path(one.file), Path.cwd()
    return str(path.relative_to(here)) if one.file and path.is_relative_to(here) else one.file
