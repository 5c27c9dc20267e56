"""`resilience status`: how the app does, why, since when, what users get and what to do."""

import json
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import click
import pytest
from celery import Celery
from celery.bin.base import CLIContext
from celery.signals import import_modules
from click.testing import CliRunner
from kombu import Queue

from resilience import BreakerPolicy, Dependency, Level, Resilience, ResilientTask, Settings
from resilience.breaker import Breaker, State
from resilience.cli import resilience as command
from resilience.faults import Fault
from resilience.ledger import Job
from resilience.monitor.circuits import breaker_rows, history_of
from resilience.monitor.objective import Objective
from resilience.monitor.prometheus import PrometheusListener
from resilience.monitor.status import app_command, look
from resilience.testing.process import import_path, inherited_env
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.brokers import Broker, put
from tests.integration.test_level import FOR, WHO, Desk, desk, server

__all__ = ["desk", "server"]

SECRETIVE = "redis://ann:hunter22@host refused password=hunter22"
FEATURES = "tests.integration.apps.features"


def fail(breaker: Breaker, error: Exception) -> None:
    """Let a call of the dependency fail, if the circuit lets it through."""

    def call() -> None:
        raise error

    with suppress(Exception):
        breaker.call(call)


def fail_until_open(breaker: Breaker, text: str = "refused") -> None:
    """Let calls fail until the circuit opens."""

    def is_open() -> bool:
        fail(breaker, ConnectionError(text))
        return breaker.state is State.OPEN

    wait_until(is_open, 20, "the circuit is open")


def reasons(desk: Desk) -> dict[str, dict[str, Any]]:
    """Return the reasons of a status by their names."""
    return {one["name"]: one for one in desk.status()["reasons"]}


def test_objectives_say_what_was_full_and_what_is_left_of_the_budget(desk: Desk) -> None:
    """Within the window of each: the share that was FULL, minutes below it, the error budget."""
    about = [{}, {"dependency": "users"}, {"task": "gone", "window": "PT1H"}]
    wanted = [Objective(full=0.9, **one) for one in about]  # type: ignore[arg-type] # texts
    desk.adopted.listeners += (PrometheusListener(objectives=wanted),)
    store, now = desk.adopted.store, int(desk.adopted.fleet_time())
    total = {
        '["answers","x","users","FULL"]': "985",
        '["answers","x","users","STALE"]': "115",
        '["answers","x","","STALE"]': "9",
        '["minutes_below_full","users"]': "20|1",
        '["minutes_below_full","mail"]': "33|1",
    }
    before = {'["answers","x","users","STALE"]': "100", '["minutes_below_full","users"]': "5|1"}
    entry = {str(now - 30 * 86400 + 600): json.dumps(before)}
    store.run(lambda client: client.hset(store.key("answers"), mapping=total))
    store.run(lambda client: client.hset(store.key("history"), mapping=entry))

    assert list(desk.status()["objectives"]) == ["app", "dependency:users", "task:gone"]
    said = desk.run("status").stdout
    for name, text in {
        "app": "97.621% FULL in 30d (wanted: 90%), 33 minutes below FULL, 76%",
        "dependency:users": "98.500% FULL in 30d (wanted: 90%), 15 minutes below FULL, 85%",
        "task:gone": "no answers in 1h (wanted: 90%), 100%",
    }.items():
        assert f"objective {name}: {text} of the error budget left\n" in said


def test_exit_code_says_how_the_app_does(desk: Desk, server: ValkeyProcess) -> None:
    """0: well, 1: degraded, 2: some answers fail, 3: nobody can tell."""
    assert desk.run("status").exit_code == 0
    desk.adopted.holds.hold("mail", **FOR)
    assert desk.run("status").exit_code == 1
    desk.breaker("users").force_open(**FOR)
    assert desk.run("status").exit_code == 2
    server.stop()
    done = desk.run("status")
    server.start()
    assert done.exit_code == 3


def test_what_fails_for_sure_outranks_what_is_not_known(
    server: ValkeyProcess, broker: Broker, tmp_path: Path
) -> None:
    """A ledger that is away does not make a broken app one of which nothing is known."""
    desk = Desk(server.url, broker.url, tmp_path / "missing" / "ledger.db")
    assert desk.run("status").exit_code == 3
    desk.breaker("users").force_open(**FOR)
    assert desk.run("status").exit_code == 2
    desk.app.close()


@pytest.mark.parametrize("words", [("status", "--jsn"), ("status", "now"), ("status",)])
def test_wrong_command_says_nothing_of_the_app(words: tuple[str, ...]) -> None:
    """A script must not take a slip, or an app that was never adopted, for an outage."""
    context = CLIContext(app=Celery("plain", set_as_current=False), no_color=True, workdir=None)
    done = CliRunner().invoke(command, words, obj=context)
    assert done.exit_code == 3
    assert done.stdout == ""
    assert "--json" in done.stderr or "Error: " in done.stderr


def test_open_circuit_says_why_since_when_and_what_users_get(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ratio, calls and last error, without secrets; and the command that shows what was before."""
    monkeypatch.setenv("COLUMNS", "300")
    began = desk.adopted.fleet_time()
    fail_until_open(desk.breaker("users"), SECRETIVE)

    one = reasons(desk)["users"]

    assert one["why"].startswith("its circuit is open: 20 failures in a row; the last error was ")
    assert one["why"].endswith("ConnectionError: redis://***@host refused password=***")
    assert "hunter22" not in json.dumps(one)
    assert began <= one["since"] <= desk.adopted.fleet_time()
    assert one["users"] == "get errors (load), prepared answers (read)"
    assert one["next"] == ["celery -A level resilience breaker history users"]
    [row] = [row for row in breaker_rows(desk.adopted) if row["dependency"] == "users"]
    assert row["failed"] == row["calls"] >= 20
    assert (row["since"], row["unreadable"]) == (one["since"], False)
    for words in (("breaker",), ("breaker", "list"), ("breaker", "history", "users")):
        shown = desk.run(*words).stdout
        assert "20 failures in a row" in shown
        assert "ConnectionError" in shown
        assert "hunter22" not in shown


def test_level_is_that_of_tasks_that_only_workers_import(desk: Desk) -> None:
    """A command is no worker: nobody has imported its tasks, nor discovered them, before."""

    def body() -> int:
        return 1

    def discover(sender: Celery[Any], **_: object) -> None:
        options: Any = {"base": ResilientTask, "dependency": "unknown", "shared": False}
        sender.task(body, name="bill", **options)

    import_modules.connect(discover, sender=desk.app)
    desk.breaker("unknown").force_open(**FOR)

    done = desk.run("status")

    assert done.exit_code == 2
    assert "open unknown: FAILED since" in done.stdout
    assert "users get errors (bill)" in done.stdout


def test_task_that_cannot_be_imported_hides_no_reason(desk: Desk) -> None:
    """In an outage, a look at half of it is better than none; and it says that it is half."""
    desk.app.conf.imports = ("no_such_module",)
    fail_until_open(desk.breaker("users"))

    done = desk.run("status")

    assert "levels may be worse than shown: No module named 'no_such_module'" in done.stderr
    assert done.stdout.startswith("level: FAILED since ")
    assert ", next probe 20" in done.stdout


def test_history_of_a_circuit_keeps_the_beginning_of_a_long_outage(
    server: ValkeyProcess, tmp_path: Path
) -> None:
    """Each failed probe replaces the one before; orders and closing have rows of their own."""
    policy = BreakerPolicy(
        consecutive_failures=1, open_seconds=0.05, open_seconds_max=0.05, half_open_probes=1
    )
    app: Celery[Any] = Celery("outage", broker="memory://", set_as_current=False)
    adopted = Resilience(
        app,
        dependencies=[Dependency("users", breaker=policy)],
        settings=Settings(store_url=server.url, namespace=tmp_path.name),
        listeners=(),
    )
    breaker = adopted.breaker("users")
    assert isinstance(breaker, Breaker)

    def opened_often() -> bool:
        fail(breaker, ConnectionError(f"refused {breaker.circuit.attempt}"))
        return breaker.circuit.attempt >= 4

    wait_until(opened_often, 60, "the circuit opened again and again")
    last, first = history_of(adopted, "users")
    assert (first.event, first.reason) == ("CircuitOpened", "1 failures in a row")
    assert first.error == "ConnectionError: refused 0"
    assert last.reason == "1 of 1 probes failed"
    assert last.error == "ConnectionError: refused 3"
    [row] = breaker_rows(adopted)
    assert (row["since"], row["opened"], row["error"]) == (first.at, 4, last.error)

    breaker.reset(**WHO)

    newest, *_ = history = history_of(adopted, "users")
    assert (newest.event, newest.order, newest.actor) == ("CircuitForced", "reset", "ann")
    assert len(history) == 3
    [row] = breaker_rows(adopted)
    assert (row["since"], row["why"]) == (None, None)
    key = adopted.store.key("history", "users")
    for _ in range(60):
        breaker.reset(**WHO)
    adopted.store.client.lpush(key, b"\xff", b"[]", b'{"at": 1e999, "event": "x"}')
    assert len(history_of(adopted, "users")) == 50
    assert 0 < adopted.store.client.ttl(key) <= 7 * 86_400
    app.close()


@pytest.mark.parametrize(
    "kept",
    [
        b"nonsense",
        pytest.param(b"\xff\xfe", marks=pytest.mark.long),
        pytest.param(b"12abc", marks=pytest.mark.long),
        pytest.param(b"99999999999999999999|0|[]", marks=pytest.mark.long),
        pytest.param(b"7|0|[]", marks=pytest.mark.long),
        pytest.param(b'7|0|["x", "", 0, "", ""]', marks=pytest.mark.long),
        b'8|0|[0, "", Infinity, "", ""]',
        b'9|0|[0, "", 0, "", "\xff"]',
    ],
)
def test_circuit_that_cannot_be_read_disturbs_nothing(desk: Desk, kept: bytes) -> None:
    """It is named, the others are shown, it counts as closed, and it can open."""
    store = desk.adopted.store
    key = store.key("circuits")
    store.client.hset(key, mapping={"users": kept, b"\xff": b"who?"})
    desk.breaker("ranking").force_open(**FOR)

    found = desk.status()

    states = {one["dependency"]: one["state"] for one in found["breakers"]}
    assert (states["users"], states["ranking"]) == ("closed", "forced_open")
    if b'"\xff"' not in kept:
        [note] = found["notes"]
        assert (note["kind"], note["name"]) == ("unreadable", "users")
        assert note["next"] == ["celery -A level resilience breaker reset users --reason …"]
    assert found["unknown"] == {}
    fail_until_open(desk.breaker("users"))
    assert desk.adopted.pulse.scope == "fleet"
    store.client.hset(key, "users", kept)
    assert desk.run("breaker", "reset", "users", "--reason", "x").exit_code == 0
    assert desk.status()["notes"] == []


def test_jobs_that_no_worker_takes_break_the_app_after_a_minute(desk: Desk, broker: Broker) -> None:
    """At first it is a note: a worker may be about to start."""
    put(broker, desk.app, "users", 2)

    first = desk.status()
    [note] = first["notes"]
    assert (note["kind"], note["name"]) == ("no_consumer", "users")
    steps = [f"celery -A level resilience {command} users" for command in ("health", "worker")]
    assert note["next"] == steps
    assert (first["verdict"], first["consumers"]) == ("well", {"users": 0})

    store = desk.adopted.store
    store.client.hincrby(store.key("unserved"), "users", -100)
    one = reasons(desk)["users"]
    assert (one["kind"], one["level"]) == ("no_consumer", "FAILED")
    assert "no worker takes the 2 job(s)" in one["why"]
    assert 90 < desk.adopted.fleet_time() - one["since"] < 160
    assert desk.run("status").exit_code == 2

    desk.breaker("users").force_open(**FOR)  # its jobs fail fast, if a worker takes them
    assert [one["kind"] for one in desk.status()["reasons"]] == ["open", "no_consumer"]
    desk.breaker("users").reset(**WHO)
    desk.adopted.holds.hold("users", **FOR)
    assert [one["kind"] for one in desk.status()["reasons"]] == ["held"]
    desk.adopted.holds.release("users", **WHO)
    store.client.hset(store.key("unserved"), "users", "soon")
    assert desk.status()["verdict"] == "well"


def test_queue_of_no_dependency_gets_a_worker_of_its_own_name(desk: Desk, broker: Broker) -> None:
    """Two workers of one name would answer for each other; a name is quoted for the shell."""
    desk.app.conf.task_queues = [Queue("others"), Queue("or phan")]
    for queue in ("others", "or phan"):
        put(broker, desk.app, queue, 1)
    assert desk.status()["next"] == [
        "celery -A level resilience health default",
        "celery -A level resilience worker default",
        "celery -A level worker -Q 'or phan' -n 'or phan'@%h",
    ]


def test_retries_that_nobody_publishes_are_late(desk: Desk, tmp_path: Path) -> None:
    """Unless they wait on purpose, as their dependency is held or its circuit is open."""
    job = Job(id="1", task="send", dependency="mail", queue="mail", message="{}")
    desk.adopted.ledger.park(job, delay_seconds=0, error=ConnectionError("down"))
    assert desk.status()["verdict"] == "well"
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as database:
        database.execute("UPDATE resilience_jobs SET due = due - 600")
        database.commit()

    one = reasons(desk)["mail"]

    assert (one["kind"], one["level"]) == ("overdue", "STALE")
    assert "1 job(s) of the ledger that are due (scheduled)" in one["why"]
    assert 600 <= desk.adopted.fleet_time() - one["since"] < 700
    assert one["next"][-1] == "celery -A level resilience relay"
    desk.breaker("mail").force_open(**FOR)
    assert reasons(desk)["mail"]["kind"] == "open"


def test_fault_on_purpose_is_shown_with_who_set_it_and_its_end(desk: Desk) -> None:
    """Whoever looks for the cause of a failure must not hunt a drill of somebody else."""
    faults = desk.adopted.faults
    faults.allowed = True
    fault = Fault(dependency="mail", kind="refuse", rate=0.3)
    order = faults.set(fault, actor="ann", reason="game day", seconds=600, name="friday")

    [note] = desk.status()["notes"]

    assert (note["kind"], note["name"], note["level"]) == ("fault", "mail", None)
    why = "30% of its calls have a fault on purpose (refuse), by ann: game day"
    assert (note["why"], note["since"], note["until"]) == (why, order.at, order.until)
    assert note["next"] == ["celery -A level resilience fault clear friday"]
    shown = desk.run("status").stdout
    assert f"note mail: {why} since 20" in shown
    assert ", until 20" in shown
    faults.clear("friday", actor="ann", reason="over")
    assert desk.status()["notes"] == []


def test_hold_that_somebody_forgot_is_pointed_out(desk: Desk) -> None:
    """It says who ordered it and when, however often it was prolonged."""
    store, holds = desk.adopted.store, desk.adopted.holds
    holds.hold("mail", seconds=600, actor="bob", reason="moving")
    assert "forgotten" not in reasons(desk)["mail"]["why"]
    [kept] = store.client.hvals(store.key("holds"))  # type: ignore[misc]
    old = json.loads(kept)
    old["since"] -= 7200
    store.client.hset(store.key("holds"), "mail", json.dumps(old))
    holds.hold("mail", **FOR)

    one = reasons(desk)["mail"]

    assert one["why"] == "ann ordered to hold it: so [/x] (was it forgotten?)"
    assert one["since"] == old["since"]
    assert one["next"] == ["celery -A level resilience release mail"]
    shown = desk.run("status").stdout
    assert "held mail: STALE since 20" in shown
    assert "(2h)" in shown


def test_hold_that_cannot_be_read_disturbs_nothing(desk: Desk) -> None:
    """Whatever is written there, status shows the others."""
    until = desk.adopted.fleet_time() + 60
    good = {"until": until, "actor": "a", "reason": "b", "since": None}
    odd = [{"until": "x"}, {"until": None}, {"since": "x"}, {"actor": 1}, {"more": 1}, {"name": []}]
    held = {"users": {}} | {f"odd{number}": change for number, change in enumerate(odd)}
    kept = {name: json.dumps({"name": name, **good, **change}) for name, change in held.items()}
    store = desk.adopted.store
    store.client.hset(store.key("holds"), mapping=kept)
    desk.adopted.holds.hold("mail", **FOR)
    assert {one["name"] for one in desk.status()["holds"]} == {"users", "mail"}


@pytest.mark.redis_broker("RabbitMQ counts whatever it has as a queue")
def test_broker_that_refuses_to_count_is_not_known_to_be_empty(desk: Desk) -> None:
    """On Redis no error says that there is no such queue: an empty one has no key."""
    with desk.app.connection_for_write() as connection:
        channel: Any = connection.default_channel
        channel.client.set("mail", "no list")
        found = desk.status()
        channel.client.delete("mail")
    assert "WRONGTYPE" in found["unknown"]["broker"]
    assert found["queues"] == {}


def test_queue_that_only_a_route_names_is_shown(desk: Desk) -> None:
    """Celery makes it when it is first used, a look does not; perhaps no worker consumes it."""
    desk.app.conf.task_routes = ({"odd.*": {"queue": "odd"}}, {"even": "even"}, lambda *_: None)
    assert {"odd", "even"} <= {*desk.status()["queues"]}
    with desk.app.connection_for_write() as connection:
        channel: Any = connection.default_channel
        if hasattr(channel, "client"):
            assert channel.client.keys("_kombu.binding.*") == []
        else:
            with pytest.raises(connection.channel_errors):
                channel.queue_declare("odd", passive=True)


def test_what_strangers_wrote_shows_as_text(desk: Desk) -> None:
    """Nothing steers the terminal, begins a line of its own, or runs when it is pasted."""
    store = desk.adopted.store
    name, reason = "a; rm -rf /", "\x1b[2J\nlevel: FULL [bold]" + "x" * 400
    until = desk.adopted.fleet_time() + 3600
    odd = {"name": name, "until": until, "actor": "\r\x07", "reason": reason}
    store.client.hset(store.key("holds"), name, json.dumps(odd))

    found, shown = desk.status(), desk.run("status").stdout

    assert found["reasons"][0]["why"] == f"\r\x07 ordered to hold it: {reason}"
    assert "celery -A level resilience release 'a; rm -rf /'" in found["next"]
    assert shown.replace("\n", "").isprintable()
    assert "\\x1b[2J\\nlevel: FULL [bold]" in shown
    assert [line for line in shown.splitlines() if line.startswith("level")] == ["level: STALE"]


def test_look_returns_what_json_can_say(desk: Desk) -> None:
    """Whoever shows it elsewhere gets the same values."""
    desk.adopted.holds.hold("mail", **FOR)
    desk.flags.order("search", "off", **FOR)
    found = look(desk.adopted, "celery -A shop", workers={})
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["level"] == Level.FAILED.name
    assert found["next"][0].startswith("celery -A shop resilience release")


def test_queues_may_be_declared_as_a_mapping(desk: Desk) -> None:
    """As Celery allows: they are shown, and can be held."""
    desk.app.conf.task_queues = {"extra": {"exchange": "extra"}}
    assert {"extra", "users"} <= {*desk.status()["queues"]}
    assert desk.run("hold", "extra", "--reason", "x").exit_code == 0


def test_suggested_commands_repeat_no_address(desk: Desk) -> None:
    """Of the command line the app alone: the address of a broker may hold a password."""
    root = click.Context(click.Command("celery"))
    root.params = {"app": "shop.app", "broker": "redis://:secret@broker"}
    with root:
        assert app_command(desk.app) == "celery -A shop.app"


def run(*words: str, **env: str) -> "subprocess.CompletedProcess[str]":
    """Run the program `celery` as a user does."""
    return subprocess.run(  # noqa: S603 - our own words
        [str(Path(sys.executable).with_name("celery")), *words],
        env=inherited_env({"PYTHONPATH": import_path(), **env}),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_wrong_setting_is_reported_without_a_traceback() -> None:
    """By every command of `celery` that loads the app."""
    done = run("-A", FEATURES, "resilience", "dependencies", RESILIENCE_HEALTH_SECONDS="0")
    assert done.returncode == 2
    assert "health_seconds" in done.stderr
    assert "Traceback" not in done.stderr


def test_shell_completes_commands() -> None:
    """As docs/operations.md says."""
    words = f"celery -A {FEATURES} resilience st"
    done = run(_CELERY_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD="4")
    assert done.stdout == "plain,status\nplain,store\n", done.stderr
