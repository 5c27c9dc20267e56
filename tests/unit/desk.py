"""An operator in front of an app's ledger, for the tests of the command line."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import IO, Any

from celery import Celery
from celery.bin.base import CLIContext
from click.testing import CliRunner, Result

from resilience.cli import resilience
from resilience.dependency import Dependency
from resilience.ledger import Job, Ledger
from resilience.settings import Settings
from resilience.tasks.resilience import Resilience

REFUSED = "mail refused hunter22"


class Desk:
    """An app with a ledger of its own, and an operator in front of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        app: Celery[Any] = Celery("shop", set_as_current=False)
        settings = Settings(ledger_url=f"sqlite:///{path}", redact=frozenset({"password"}))
        Resilience(app, dependencies=[Dependency("mail")], settings=settings)
        self.app = app
        self.ledger: Ledger = app.resilience.ledger  # type: ignore[attr-defined]

    def run(self, *words: str, answer: str | IO[bytes] = "") -> Result:
        """Run `celery resilience` with *words*; *answer* is typed if it asks."""
        context = CLIContext(app=self.app, no_color=True, workdir=None)
        return CliRunner().invoke(resilience, words, obj=context, input=answer)

    def said(self, *words: str) -> Any:  # noqa: ANN401 - any JSON
        """Run a command that succeeds and return the JSON that it prints."""
        done = self.run(*words, "--json")
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    def bury(self, name: str, *, task: str = "shop.send", error: str = REFUSED) -> None:
        """Let the job called *name* fail and die."""
        message = {"args": [name], "kwargs": {"password": "hunter22"}, "names": ["key"]}
        job = Job(id=name, task=task, dependency="mail", queue="mail", message=json.dumps(message))
        self.ledger.park(job, delay_seconds=0, error=TimeoutError("first of all"))
        [job] = self.ledger.take(1, owner="relay", lease_seconds=60)
        self.ledger.bury(job, reason="exhausted", error=ConnectionError(error))

    def alter(self, statement: str, *values: object) -> None:
        """Change the database behind everybody's back."""
        with closing(sqlite3.connect(self.path)) as database:
            database.execute(statement, values)
            database.commit()

    def letters(self) -> list[str]:
        """Return the ids of the letters, oldest first."""
        return [letter["id"] for letter in self.said("dead", "list", "--each")]
