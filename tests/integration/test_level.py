"""The level of a whole app, and `resilience status`, which shows it with what to do next."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from celery.bin.base import CLIContext
from click.testing import CliRunner, Result

from resilience import (
    Dependency,
    Feature,
    FireAndForgetTask,
    Level,
    Resilience,
    ResilientTask,
    Settings,
    fallback,
)
from resilience.breaker import Breaker
from resilience.cli import resilience as command
from resilience.ledger import Job
from resilience.store.election import LEADER
from resilience.testing.plugin import running_valkey
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.brokers import Broker, put
from tests.integration import interruptible

WHO: dict[str, Any] = {"actor": "ann", "reason": "so [/x]"}
BY = ("--actor", "ann", "--reason", "x")
FOR = {"seconds": 60.0, **WHO}


def made_app(store: str, broker: str, ledger: str, namespace: str) -> Celery[Any]:
    """Return an app whose dependencies are used in different ways."""
    app: Celery[Any] = Celery("level", broker=broker, set_as_current=False)
    app.conf.update(task_default_queue="others", broker_connection_timeout=1)
    adopted = Resilience(
        app,
        dependencies=[
            Dependency("ranking"),
            Dependency("users"),
            Dependency("mail"),
            Dependency("waits", on_open="hold"),
            Dependency("unknown"),
        ],
        features=[
            Feature("search", level=Level.FAILED),
            Feature("search.ranking", level=Level.REDUCED),
            Feature("beta", level=Level.STATIC, default=False),
        ],
        settings=Settings(
            store_url=store,
            store_timeout_seconds=10,  # the machine may be busy
            ledger_url=ledger,
            namespace=namespace,
        ),
        listeners=(),
    )

    def body() -> int:
        return 1

    def task(name: str, dependency: str, base: Any = ResilientTask, **options: Any) -> None:  # noqa: ANN401 - Celery's
        make: Any = app.task
        make(body, name=name, base=base, dependency=dependency, shared=False, **options)

    task("rank", "ranking", fallbacks=[fallback.stale(max_age=60), fallback.static(0)])
    task("sort", "ranking", fallbacks=[fallback.static(0)])
    task("load", "users")
    task("read", "users", fallbacks=[fallback.static(0)])
    task("send", "mail", base=FireAndForgetTask)
    task("later", "waits")
    assert adopted.level is Level.FULL
    return app


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyProcess]:
    """A store that tests may stop."""
    with running_valkey(tmp_path_factory) as running:
        yield running


class Desk:
    """An app, and an operator in front of it."""

    def __init__(self, store: str, broker: str, path: Path) -> None:
        self.app = made_app(store, broker, f"sqlite:///{path}", uuid4().hex)
        self.adopted = Resilience.of(self.app)
        self.flags = self.adopted.flags

    def run(self, *words: str) -> Result:
        """Run `celery resilience` with *words*."""
        context = CLIContext(app=self.app, no_color=True, workdir=None)
        return CliRunner().invoke(command, words, obj=context)

    def status(self) -> dict[str, Any]:
        """Return what `status` knows."""
        done = self.run("status", "--json")
        assert done.stdout, done.output
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def level(self) -> Level:
        """Return the level of the app."""
        return self.adopted.level

    def breaker(self, name: str) -> Breaker:
        """Return a circuit."""
        found = self.adopted.breaker(name)
        assert isinstance(found, Breaker)
        return found


@pytest.fixture
def desk(server: ValkeyProcess, broker: Broker, tmp_path: Path) -> Iterator[Desk]:
    """An operator in front of an app of its own."""
    for one in (server, broker):
        if not one.running:
            one.start()
    broker.empty()
    made = Desk(server.url, broker.url, tmp_path / "ledger.db")
    yield made
    made.adopted.ledger.close()
    made.app.close()


@pytest.mark.parametrize(
    ("dependency", "level"),
    [
        pytest.param("ranking", Level.STATIC, id="worst-first-step"),
        pytest.param("users", Level.FAILED, id="a-task-without-steps"),
        pytest.param("mail", Level.STALE, id="jobs-are-kept"),
        pytest.param("waits", Level.STALE, id="jobs-wait"),
        pytest.param("unknown", Level.REDUCED, id="no-task-is-known"),
    ],
)
def test_level_of_an_open_circuit_is_what_its_tasks_answer(
    desk: Desk, dependency: str, level: Level
) -> None:
    """The worst over its tasks; it ends with the circuit's being open."""
    desk.breaker(dependency).force_open(**FOR)
    assert desk.level() is level
    [reason] = desk.adopted.degradation.reasons
    assert (reason.kind, reason.name) == ("open", dependency)
    assert "so [/x]" in reason.why
    assert reason.until is not None
    desk.breaker(dependency).reset(**WHO)
    assert desk.level() is Level.FULL


def test_level_is_the_worst_of_all_reasons(desk: Desk) -> None:
    """What is held waits, what is shed is at its own level; features that are off anyway no."""
    desk.adopted.holds.hold("users", **FOR)
    assert desk.level() is Level.STALE
    desk.flags.order("search.ranking", "off", **FOR)
    desk.flags.order("beta", "off", **FOR)
    assert desk.level() is Level.REDUCED
    desk.flags.order("search", "off", **FOR)
    assert desk.level() is Level.FAILED
    kinds = [(one.kind, one.name) for one in desk.adopted.degradation.reasons]
    assert kinds == [("held", "users"), ("shed", "search"), ("shed", "search.ranking")]


def test_status_shows_all_that_degrades_and_what_to_do(desk: Desk, broker: Broker) -> None:
    """Each reason comes with the command that ends it."""
    desk.breaker("ranking").force_open(**FOR)
    desk.adopted.holds.hold("mail", **FOR)
    desk.flags.order("search", "off", **FOR)
    desk.flags.brownout(Level.REDUCED, **FOR)
    put(broker, desk.app, "users", 2)
    job = Job(id="1", task="send", dependency="mail", queue="mail", message="{}")
    desk.adopted.ledger.bury(job, reason="bug", error=TypeError("x"))

    found = desk.status()

    assert found["level"] == "FAILED"
    assert found["since"] is not None
    assert {one["dependency"]: one["state"] for one in found["breakers"]}[
        "ranking"
    ] == "forced_open"
    assert [one["name"] for one in found["holds"]] == ["mail"]
    assert [one["enabled"] for one in found["flags"]] == [False, False, False]
    assert found["queues"]["users"] == 2
    assert found["queues"]["others"] == 0
    assert found["dead"] == {"mail": 1}
    assert found["unknown"] == {}
    assert [one.partition(" resilience ")[2] for one in found["next"]] == [
        "breaker reset ranking --reason …",
        "release mail",
        "flag auto search --reason …",
        "brownout off --reason …",
        "health users",
        "worker users",
        "dead list --dependency mail",
    ]
    shown = desk.run("status").stdout
    assert "level: FAILED since 20" in shown
    assert "open ranking: STATIC since 20" in shown
    assert "why: its circuit is forced_open: so [/x]\n" in shown
    assert "users get prepared answers (sort), older answers, or the same later (rank)\n" in shown
    assert "queues: users 2" in shown


def test_status_of_an_app_that_is_well_says_so(desk: Desk) -> None:
    """There is nothing to do then."""
    found = desk.status()
    assert (found["level"], found["since"], found["reasons"], found["next"]) == (
        "FULL",
        None,
        [],
        [],
    )
    assert desk.run("status").stdout.startswith("level: FULL\n")


def facts(shown: str) -> dict[str, str]:
    """Return the lines of a status that say what there is."""
    lines = (line.partition(": ") for line in shown.splitlines())
    names = ("breakers", "holds", "flags", "queues", "dead letters")
    return {name: said for name, _, said in lines if name in names}


def test_status_without_the_store_shows_the_rest(desk: Desk, server: ValkeyProcess) -> None:
    """It claims no level that it does not know, nor that there is none of anything."""
    server.stop()
    found = desk.status()
    shown = desk.run("status").stdout
    server.start()
    assert shown.startswith("level: not known\nnot known: what the store has; ")
    assert facts(shown) == dict.fromkeys(
        ("breakers", "holds", "flags"), "not known (the store does not answer)"
    ) | {"queues": "none", "dead letters": "none"}
    assert list(found["unknown"]) == ["store"]
    assert (found["level"], found["breakers"]) == (None, [])
    assert found["queues"]["users"] == 0
    assert found["dead"] == {}


def test_status_without_the_broker_shows_the_rest(desk: Desk, broker: Broker) -> None:
    """It waits for the broker two seconds."""
    broker.stop()
    try:
        found = desk.status()
        shown = desk.run("status").stdout
    finally:
        broker.start()
    assert list(found["unknown"]) == ["broker"]
    assert (found["level"], found["queues"], found["dead"]) == ("FULL", {}, {})
    assert shown.startswith("level: FULL\nnot known: what the broker has; ")
    assert facts(shown)["queues"] == "not known (the broker does not answer)"
    assert facts(shown)["dead letters"] == "none"


def test_status_without_the_ledger_shows_the_rest(
    server: ValkeyProcess, broker: Broker, tmp_path: Path
) -> None:
    """It says what keeps the ledger away, and the mend."""
    desk = Desk(server.url, broker.url, tmp_path / "missing" / "ledger.db")
    found = desk.status()
    shown = desk.run("status").stdout
    desk.app.close()
    assert facts(shown)["dead letters"] == "not known (the ledger does not answer)"
    assert facts(shown)["queues"] == "none"
    assert list(found["unknown"]) == ["ledger"]
    assert "make the directory" in found["unknown"]["ledger"]
    assert found["level"] == "FULL"


def test_watching_ends_with_ctrl_c(server: ValkeyProcess, broker: Broker, tmp_path: Path) -> None:
    """A real process shows a line each time, with the commands as they must be typed."""
    words = ["celery", "-A", "tests.integration.apps.features", "resilience", "status"]
    env = {
        "CELERY_BROKER_URL": broker.url,
        "CELERY_RESULT_BACKEND": server.url,
        "RESILIENCE_LEDGER_URL": f"sqlite:///{tmp_path}/ledger.db",
    }
    server.flush()
    log = tmp_path / "out"
    with (
        log.open("w") as out,
        subprocess.Popen(  # noqa: S603 - our own words
            [sys.executable, "-m", interruptible.__name__, *words, "--watch", "--json"],
            stdout=out,
            stderr=subprocess.PIPE,
            env={**os.environ, **env},  # noqa: TID251 - the child's
        ) as child,
    ):
        try:
            wait_until(lambda: len(log.read_text().splitlines()) >= 2, 120, "it looked twice")
            child.send_signal(signal.SIGINT)
            _, said = child.communicate(timeout=120)
        finally:
            child.kill()
    assert child.returncode == 0, said
    assert said == b""
    assert [json.loads(line)["level"] for line in log.read_text().splitlines()][:2] == ["FULL"] * 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(
            ["flag", "off", "search.rankin", *BY], "Did you mean 'search.ranking'?", id="name"
        ),
        pytest.param(["flag", "history", "serach"], "Did you mean 'search'?", id="history"),
        pytest.param(["brownout", "reducd", *BY], "Did you mean 'reduced'?", id="level"),
        pytest.param(["brownout", "7", *BY], "'7'", id="number"),
        pytest.param(["flag", "off", "search"], "--reason", id="no-reason"),
        pytest.param(["flag", "off", "search", "--for", "30", *BY], "30m", id="no-unit"),
        pytest.param(["flag", "off", "search", "--for", "0s", *BY], "more than 0", id="no-time"),
        pytest.param(["flag", "off", "search", "--reason", " "], "why", id="blank"),
    ],
)
def test_order_that_makes_no_sense_is_refused_in_one_line(
    desk: Desk, words: list[str], said: str
) -> None:
    """The line names the value and the mend; the exit code is 2, and nothing is ordered."""
    done = desk.run(*words)
    assert done.exit_code == 2
    assert said in done.stderr
    assert desk.flags.document.version == -1


@pytest.mark.parametrize("level", ["1", "stale", "STALE"])
def test_brownout_takes_a_level_by_number_or_name(desk: Desk, level: str) -> None:
    """In any case."""
    assert desk.run("brownout", level, *BY).stdout.startswith("brownout stale: nothing shed")


def test_brownout_says_that_no_worker_leads(desk: Desk) -> None:
    """What it sheds would stay shed: nobody restores it."""
    assert "No worker leads" in desk.run("brownout", "off", *BY).stderr
    store = desk.adopted.store
    store.client.set(store.key(LEADER), "a worker", px=60_000)
    assert "No worker leads" not in desk.run("brownout", "off", *BY).stderr
