"""The command line sees how far primaries are, and orders how far replicas may lag."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from resilience.consistency.position import Position
from resilience.consistency.shared import Sample, SharedPositions
from resilience.store import Store
from resilience.testing.valkey import ValkeyProcess

COMMAND = [sys.executable, "-m", "celery", "-A", "tests.integration.apps.features", "resilience"]
WHO = ("--actor", "[ann]", "--reason", "#471 [/x]")
NONE = dict.fromkeys(["order", "seconds", "until", "actor", "reason"])
HUGE = 2**64 - 1
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(valkey: ValkeyProcess) -> Run:
    """Run `celery … resilience consistency` in a process of its own; return it when it ended."""

    def run(*arguments: str, **changed: str) -> subprocess.CompletedProcess[str]:
        patient = {"RESILIENCE_STORE_TIMEOUT_SECONDS": "10"}  # the machine may be busy
        env = {"CELERY_RESULT_BACKEND": valkey.url, "COLUMNS": "200", **patient, **changed}
        return subprocess.run(  # noqa: S603 - our own words
            [*COMMAND, "consistency", *arguments],
            env={**os.environ, **env},  # noqa: TID251 - the child's
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    valkey.flush()
    return run


@pytest.fixture
def positions(run: Run, valkey: ValkeyProcess) -> Iterator[SharedPositions]:
    """What a process of the app shares, in the store that the command line is told of."""
    assert run is not None  # which has emptied it
    store = Store(valkey.url, namespace="resilience", timeout_seconds=10)
    yield SharedPositions(store)
    store.client.close()


def rows(run: Run) -> dict[str, dict[str, object]]:
    """Return what `show` says, by databases."""
    done = run("show", "--json")
    assert done.returncode == 0, done.stderr
    return {row.pop("databases"): row for row in json.loads(done.stdout)}


def test_show_lists_how_far_each_primary_was(run: Run, positions: SharedPositions) -> None:
    """The newest sample of each, to the last bit, and its age; no database is asked."""
    assert rows(run) == {}
    now = positions.exchange("default").now
    for at, number in ((now - 90, 5), (now - 60, HUGE)):
        positions.exchange("default", sample=Sample(at, Position.at("7/1", number)))
    positions.exchange("reports", sample=Sample(now - 1, Position()))
    found = rows(run)
    age = found["default"].pop("age")
    assert isinstance(age, float)
    assert 60 <= age < 120
    assert found["default"] == {"position": {"7/1": HUGE}, **NONE}
    assert set(found) == {"default", "reports"}
    shown = run("show").stdout
    assert f"7/1 {HUGE}" in shown
    assert "1m ago" in shown


def test_order_reaches_other_processes_with_who_and_why(
    run: Run, positions: SharedPositions
) -> None:
    """Until it ends, by itself or by `obey-lag`."""
    now = positions.exchange("default").now
    positions.exchange("default", sample=Sample(now - 1, Position.at("7/1", 1)))
    done = run("allow-lag", "90", "--for", "10m", *WHO)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("default: reads go to replicas that lag by up to 90 s, until 20")
    announced = "event=LagOrdered source=default order=allow-lag seconds=90.0 until=20"
    assert done.stderr.startswith(announced)
    assert done.stderr.endswith('actor=[ann] reason="#471 [/x]"\n')
    assert done.stderr.count("\n") == 1
    order = positions.exchange("default").order
    assert order is not None
    assert (order.seconds, order.actor, order.reason) == (90.0, "[ann]", "#471 [/x]")
    assert order.until == order.since + 600
    shown = rows(run)["default"]
    assert shown["order"] == "allow-lag"
    assert shown["until"] == order.until
    assert "#471 [/x]" in run("show").stdout

    made = json.loads(run("ignore-lag", "--json", *WHO).stdout)
    assert (made["databases"], made["order"], made["seconds"]) == ("default", "ignore-lag", None)
    order = positions.exchange("default").order
    assert order is not None
    assert order.seconds is None
    assert order.until == order.since + 1800

    done = run("obey-lag", *WHO)
    assert done.stdout == "default: as the app says\n"
    until = datetime.fromtimestamp(order.until, UTC).isoformat(timespec="milliseconds")
    announced = f'order=obey-lag until={until} actor=[ann] reason="#471 [/x]"\n'
    assert done.stderr == f"event=LagOrdered source=default {announced}"
    assert positions.exchange("default").order is None
    done = run("obey-lag")
    assert (done.stdout, done.stderr) == ("default: there was no order\n", "")
    assert json.loads(run("obey-lag", "--json").stdout) == {"databases": "default", **NONE}


def test_order_for_databases_that_nobody_uses_says_so(run: Run, positions: SharedPositions) -> None:
    """It is in force: they may be idle; but it may be a mistake."""
    positions.exchange(
        "default", sample=Sample(positions.exchange("default").now - 1, Position.at("7/1", 1))
    )
    done = run("ignore-lag", "--databases", "defautl", *WHO)
    assert done.returncode == 0
    said = "No process has used databases 'defautl' in the last 5 minutes. Others: default."
    assert said in done.stderr
    assert positions.exchange("default").order is None
    assert rows(run)["defautl"]["order"] == "ignore-lag"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("allow-lag", "90"), 2, "--reason"),
        (("allow-lag", "soon", *WHO), 2, "'soon' is no duration"),
        (("allow-lag", "0", *WHO), 2, "must be more than 0"),
        (("ignore-lag", "--for", "30", *WHO), 2, "has no unit"),
        (("ignore-lag", "--for", "0s", *WHO), 2, "seconds must be more than 0"),
        (("ignore-lag", "--reason", " "), 2, "say who orders it and why"),
        (("obey-lag", "--reason", " "), 2, "say who orders it and why"),
    ],
)
def test_order_that_makes_no_sense_is_refused(
    run: Run, arguments: tuple[str, ...], code: int, said: str
) -> None:
    """In one line, and changes nothing."""
    done = run(*arguments)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr
    assert rows(run) == {}


def test_without_a_store_the_command_says_what_to_do(run: Run) -> None:
    """There is nobody to ask."""
    done = run("show", CELERY_RESULT_BACKEND="rpc://", CELERY_BROKER_URL="amqp://127.0.0.1:9")
    assert done.returncode == 1
    assert "RESILIENCE_STORE_URL" in done.stderr
    assert "Traceback" not in done.stderr
