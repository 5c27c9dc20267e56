"""Checks an app, at its start or in CI."""

from typing import Any, Final

from celery import Celery
from celery._state import get_current_app

from resilience.errors import ConfigurationError
from resilience.ledger.engines import is_relative
from resilience.monitor.checking import broker, rules
from resilience.monitor.checking.answers import Answer, answers_of
from resilience.monitor.checking.rules import Finding
from resilience.tasks.ledger_check import uses_ledger
from resilience.tasks.resilience import Resilience

ORDER: Final = ("error", "warning", "note")


def check(app: Celery[Any] | None = None, *, probe: bool = True) -> list[Finding]:
    """Return what is wrong with *app*, by default the current one, errors first.

    Imports the app's tasks. docs/check.md lists the rules.

    Args:
        app: One that `Resilience` adopted, or any other.
        probe: Whether to ask the broker and the workers that run, for five seconds at most.

    Raises:
        ConfigurationError: The app cannot work at all, or has no tasks.
    """
    return report_of(get_current_app() if app is None else app, probe=probe)[1]


def report_of(app: Celery[Any], *, probe: bool = True) -> tuple[list[Answer], list[Finding]]:
    """Return what happens when each task times out, and the findings; raises as `check` does."""
    app.loader.import_default_modules()
    own = getattr(app, "resilience", None)
    adopted = own if isinstance(own, Resilience) else None
    known = adopted.dependencies if adopted else {}
    if adopted is not None:
        adopted.check_tasks()
    answers = answers_of(app, known)
    if not answers:
        msg = f"{app!r} has no tasks; name the module of the app: celery -A MODULE resilience check"
        raise ConfigurationError(msg)
    findings = [finding for answer in answers for finding in rules.check_task(answer, answers)]
    findings += broker.check_settings(app, answers)
    if adopted is not None:
        findings += rules.check_dependencies(known.values(), answers)
        if uses_ledger(adopted) and is_relative(url := adopted.settings.ledger_url):
            place = "setting RESILIENCE_LEDGER_URL"
            findings.append(rules.finding_of("relative-ledger", place, url=url))
    lost = [*broker.check_queues(app, known, answers)] if adopted else []
    probed, running = broker.probe(app, workers=bool(lost)) if probe else ([], set())
    findings += [*probed, *(finding for finding in lost if finding.place not in running)]
    return answers, sorted(findings, key=lambda finding: ORDER.index(finding.severity))
