"""What is not used is not imported: each import is in time and memory of every process."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.bin.base import CLIContext
from click.testing import CliRunner, Result

from resilience import Dependency, Resilience
from resilience.cli import resilience
from resilience.testing.process import inherited_env

DECLARATION_ERROR = 2
LEDGER = {"alembic", "sqlalchemy"}
UNUSED = LEDGER | {"prometheus_client", "pydantic_settings", "rich", "supervisor"}
APP = """
from celery import Celery
from resilience import Dependency, Resilience, ResilientTask
app = Celery(broker="memory://")
resilience = Resilience(app, dependencies=[Dependency("mail")])
"""
IDEMPOTENT = """
@app.task(base=ResilientTask, dependency="mail", idempotency_key="{key}")
def send(key): pass
"""
WORKER = """
import celery.bin.worker
app.Worker(pool="solo", quiet=True)
"""


def imported_by(code: str, directory: Path) -> set[str]:
    """Return the packages and our modules that *code* imports in a process of its own."""
    said = "import sys, json; print(json.dumps(sorted(sys.modules)))"
    printed = subprocess.check_output(  # noqa: S603 - of this file
        [sys.executable, "-c", f"{code}\n{said}"], cwd=directory, env=inherited_env({}), text=True
    )
    modules = json.loads(printed.splitlines()[-1])
    return {one.partition(".")[0] for one in modules} | {*modules}


def test_worker_without_ledger_imports_no_database(tmp_path: Path) -> None:
    """An app whose tasks keep nothing loads none of what a ledger, a table or a setting needs."""
    task = "@app.task(base=ResilientTask, dependency='mail')\ndef send(): pass"
    found = imported_by(f"{APP}{task}{WORKER}", tmp_path)
    assert not found & UNUSED
    assert not [one for one in found if one.startswith("resilience.monitor")]


@pytest.mark.parametrize("code", ["from resilience import FireAndForgetTask", IDEMPOTENT])
def test_app_that_keeps_something_has_the_ledger_before_its_first_job(
    code: str, tmp_path: Path
) -> None:
    """No job, and no child of a worker, spends its own time on that import."""
    found = imported_by(f"{APP}{code}\napp.finalize()", tmp_path)
    assert found >= {"sqlalchemy", "resilience.ledger.ledger"}


def test_other_commands_of_celery_load_none_of_ours(tmp_path: Path) -> None:
    """Celery imports the group of commands for each of its own, and no more than that."""
    code = "from celery.__main__ import main\nsys.argv[1:] = ['--version']\n"
    found = imported_by(f"import sys\n{code}try: main()\nexcept SystemExit: pass", tmp_path)
    ours = {one for one in found if one.startswith("resilience.")}
    assert ours == {"resilience.cli", "resilience.exports"}
    assert not found & LEDGER


def test_command_says_which_extra_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table needs one, JSON does not; the answer is one line with the mend."""
    for name in [one for one in sys.modules if one.startswith("rich.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rich", None)  # as if it were not installed
    app: Celery[Any] = Celery(broker="memory://", set_as_current=False)
    Resilience(app, dependencies=[Dependency("mail")])
    context = CLIContext(app=app, no_color=True, workdir=None)

    def run(*words: str) -> Result:
        return CliRunner().invoke(resilience, words, obj=context)

    table = run("dependencies")
    assert table.exit_code == DECLARATION_ERROR
    assert table.stderr == "Error: this needs rich: pip install 'celery-resilience[cli]'\n"
    assert json.loads(run("dependencies", "--json").stdout)[0]["name"] == "mail"


def test_budget_without_an_adopted_app_leaves_alone_what_steers_a_job(tmp_path: Path) -> None:
    """A default hides no `Retry` of Celery's, though nothing of ours has imported Celery."""
    code = """
from celery.exceptions import Ignore, Reject, Retry
from resilience import TimeoutBudget
def body(error): raise error
for error in (Retry(), Ignore(), Reject(), ExceptionGroup("parts", [Retry()])):
    try:
        TimeoutBudget(5).run(body, error, default=None)
    except type(error):
        continue
    raise SystemExit(f"{error!r} is hidden")
"""
    assert "resilience.tasks" not in imported_by(code, tmp_path)
