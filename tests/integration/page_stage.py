"""An app with the Degradation page, as tests hold it: its ledger, a worker, and Flower."""

import importlib
import json
import sqlite3
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from celery.utils import uuid

from resilience.ledger import Job, Ledger
from resilience.tasks import Resilience
from resilience.tasks.kept import job_of
from resilience.testing.ports import free_port
from resilience.testing.process import ServerProcess, import_path
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until

APP_PATH = "tests.integration.apps.page"
SECONDS = 60.0
SECRET = "s3cret"  # noqa: S105 - of no use
HOSTILE = "<img src=x onerror=alert(1)>\n\x1b[31m'\"&" + "long " * 2000


@dataclass
class Stage:
    """The app in this process, and where its Flower is."""

    shop: ModuleType
    valkey: ValkeyProcess
    path: Path
    env: Mapping[str, str]

    @property
    def adopted(self) -> Resilience:
        """What the app declared."""
        return Resilience.of(self.shop.app)

    @property
    def ledger(self) -> Ledger:
        """The ledger of the app."""
        return self.adopted.ledger

    def bury(
        self, count: int, *, cause: str = "refused", password: str = SECRET, key: str = ""
    ) -> list[str]:
        """Make so many letters of one cause; each notes its number and password when it runs."""
        jobs = [self._job(key or f"{cause}-{number}", password) for number in range(count)]
        self.ledger.add(jobs, delay_seconds=3600.0)  # else a worker's relay might be faster
        self.ask(
            "UPDATE resilience_jobs SET state = 'dead', due = NULL, died = 1000.0 + rowid,"
            " reason = 'exhausted', fingerprint = ?, errors = ?"
            " WHERE id IN (SELECT value FROM json_each(?))",
            cause,
            json.dumps({"at": 1.0, "type": "ConnectionError", "text": cause}) + "\n",
            json.dumps([job.id for job in jobs]),
        )
        return [job.id for job in jobs]

    def _job(self, key: str, password: str) -> Job:
        options = {"task_id": uuid(), "ignore_result": True}
        words = {"password": password}
        return job_of(
            self.shop.app.tasks["shop.deliver"],
            (key,),
            words,
            options,
            queue="mail.retry",
            ledger={},
            age_seconds=0.0,
        )

    def ask(self, statement: str, *values: Any) -> list[Any]:  # noqa: ANN401 - SQLite's
        """Run a statement on the ledger's database, behind everybody's back."""
        with closing(sqlite3.connect(self.path, timeout=SECONDS)) as database, database:
            return database.execute(statement, values).fetchall()

    def ran(self) -> dict[str, int]:
        """Return how often each letter has run, by its number and password."""
        found = self.valkey.client().hgetall(self.shop.RAN)
        return {name.decode(): int(times) for name, times in found.items()}  # type: ignore[union-attr]


@contextmanager
def running_stage(broker_url: str, valkey: ValkeyProcess, directory: Path) -> Iterator[Stage]:
    """Import the app anew, with an empty ledger in *directory*."""
    env = {
        "BROKER_URL": broker_url,
        "STORE_URL": valkey.url,
        "LEDGER_URL": f"sqlite:///{directory / 'ledger.sqlite3'}",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        sys.modules.pop(APP_PATH, None)  # it reads the variables when it is imported
        shop = importlib.import_module(APP_PATH)
        made = Stage(shop, valkey, directory / "ledger.sqlite3", env)
        made.ledger.upgrade()
        yield made
        made.ledger.close()
        made.adopted.store.client.close()
        shop.app.close()


@contextmanager
def running_flower(
    app: str,
    env: Mapping[str, str],
    directory: Path,
    *options: str,
    users: bool = False,
    command: Sequence[str] = ("resilience", "flower"),
) -> Iterator[str]:
    """Run the Flower of *app* with the page; yield its address.

    Args:
        app: Module of the app.
        env: Variables on top of the inherited environment.
        directory: For its log.
        options: Of Flower.
        users: Whether somebody must say who he is; else everybody may order.
        command: Of Celery.
    """
    port = free_port()
    open_to_all = {} if users else {"FLOWER_UNAUTHENTICATED_API": "true"}
    flower = ServerProcess(
        [
            sys.executable,
            "-m",
            "celery",
            "-A",
            app,
            *command,
            f"--port={port}",
            "--address=127.0.0.1",
            *options,
        ],
        ready="Visit me at",
        log_path=directory / "flower.log",
        env={"PYTHONPATH": import_path(), **env, **open_to_all},
    )
    flower.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        flower.kill()


class Operator:
    """Somebody with the page open, without a browser."""

    def __init__(self, url: str, **options: Any) -> None:  # noqa: ANN401 - httpx's
        """Look at the Flower at *url*."""
        self.http = httpx.Client(base_url=url, timeout=SECONDS, **options)

    def look(self) -> dict[str, Any]:
        """Return what the page shows."""
        answer = self.http.get("/degradation/data")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def row(self, table: str, name: str) -> dict[str, Any]:
        """Return a row of the page."""
        keys = {"breakers": "dependency", "flags": "feature", "causes": "fingerprint"}
        rows = [one for one in self.look()[table] if one[keys.get(table, "name")] == name]
        found: dict[str, Any] = rows[0]
        return found

    def await_look(self, what: str, fits: Any) -> dict[str, Any]:  # noqa: ANN401 - a predicate
        """Wait until what the page shows fits."""

        def looked() -> dict[str, Any] | None:
            found = self.look()
            return found if fits(found) else None

        return wait_until(looked, SECONDS, what) or {}

    def order(self, action: str, *, reason: str = "#471", **order: Any) -> httpx.Response:  # noqa: ANN401 - JSON
        """Send an order; return the answer."""
        body = {"action": action, "reason": reason, **order}
        return self.http.post("/degradation/act", json=body)
