"""The command line sees features, and orders them on and off in the whole fleet."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from resilience.ledger import Ledger
from resilience.testing.stack import run_worker
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.brokers import Broker
from tests.ledgers import make_ledger

APP = "tests.integration.apps.features"
COMMAND = [sys.executable, "-m", "celery", "-A", APP, "resilience"]
WHO = ("--actor", "[ann]", "--reason", "#471 [/x]")
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def urls(broker: Broker, valkey: ValkeyProcess, tmp_path: Path) -> dict[str, str]:
    """What a process of the app finds in its environment."""
    return {
        "CELERY_BROKER_URL": broker.url,
        "CELERY_RESULT_BACKEND": valkey.url,
        "RESILIENCE_LEDGER_URL": f"sqlite:///{tmp_path}/ledger.db",
        "COLUMNS": "200",
        "RESILIENCE_STORE_TIMEOUT_SECONDS": "10",  # the machine may be busy
    }


@pytest.fixture
def run(valkey: ValkeyProcess, urls: dict[str, str]) -> Run:
    """Run `celery … resilience` in a process of its own and return it when it has ended."""

    def run(*arguments: str, **changed: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603 - our own words
            [*COMMAND, *arguments],
            env={**os.environ, **urls, **changed},  # noqa: TID251 - the child's
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    valkey.flush()
    return run


def rows(run: Run) -> dict[str, dict[str, object]]:
    """Return what `flag list` says, by feature."""
    done = run("flag", "list", "--json")
    assert done.returncode == 0, done.stderr
    return {row["feature"]: row for row in json.loads(done.stdout)}


def test_order_is_seen_by_another_process_and_kept(run: Run) -> None:
    """One process orders, another lists it with who and why, and the ledger has the history."""
    before = rows(run)
    assert [row["enabled"] for row in before.values()] == [True, True, True, False]
    off = run("flag", "off", "search.ranking", "--for", "10m", *WHO)
    assert off.returncode == 0, off.stderr
    assert off.stdout.startswith("search.ranking: off, until 20")
    row = rows(run)["search.ranking"]
    since, until = row.pop("since"), row.pop("until")
    assert isinstance(since, float)
    assert until == since + 600
    assert row.pop("order_version") != 0
    assert row == {
        "feature": "search.ranking",
        "enabled": False,
        "level": "REDUCED",
        "source": "order",
        "reason": "#471 [/x]",
        "cost": {"seconds": 0.05},
    }
    shown = run("flag", "list").stdout
    assert "#471 [/x]" in shown
    assert "0.05 s (given)" in shown

    made = json.loads(run("flag", "auto", "search.ranking", "--json", *WHO).stdout)
    assert rows(run)["search.ranking"] == before["search.ranking"] | {
        "order_version": made["version"]
    }
    history = json.loads(run("flag", "history", "search.ranking", "--json").stdout)
    assert [(one["order"], one["actor"]) for one in history] == [
        ("auto", "[ann]"),
        ("off", "[ann]"),
    ]
    assert "[ann]" in run("flag", "history", "search.ranking").stdout


def test_order_on_what_is_out_of_date_is_refused(run: Run) -> None:
    """`--seen` with an old version changes nothing, and says who was faster and why."""
    seen = json.loads(run("flag", "off", "search", "--json", *WHO).stdout)["version"]
    assert run("flag", "on", "search", "--seen", str(seen), *WHO).returncode == 0
    late = run("flag", "off", "search", "--seen", str(seen), *WHO)
    assert late.returncode == 1
    assert "search: [ann] has given another order since (#471 [/x])" in late.stderr
    assert rows(run)["search"]["enabled"]
    left = run("flag", "auto", "search", *WHO)
    assert left.stdout == "search: left to the controller\n"


def test_brownout_sheds_features_of_its_level_and_below(run: Run) -> None:
    """`off` leaves it to the worker that leads to restore them, and both orders are kept."""
    done = run("brownout", "2", "--for", "5m", *WHO)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("brownout reduced: search.ranking, search.spelling shed, until 2")
    assert [row["source"] for row in rows(run).values()] == [
        "default",
        "brownout",
        "brownout",
        "brownout",
    ]
    seen = json.loads(run("flag", "history", "brownout", "--json").stdout)[0]["version"]
    assert run("brownout", "1", "--seen", "1", *WHO).returncode == 1
    over = run("brownout", "off", "--seen", str(seen), *WHO)
    assert (over.returncode, over.stdout) == (
        0,
        "brownout off: the controller restores the features\n",
    )
    history = json.loads(run("flag", "history", "brownout", "--json").stdout)
    assert [one["order"] for one in history] == ["off", "reduced"]


def test_order_without_a_ledger_is_in_force_and_says_so(run: Run, tmp_path: Path) -> None:
    """A ledger that is down or old takes no order back; the command says what to do."""
    away = {"RESILIENCE_LEDGER_URL": f"sqlite:///{tmp_path}/missing/ledger.db"}
    done = run("flag", "off", "search", *WHO, **away)
    assert done.returncode == 0
    assert "search: off" in done.stdout
    assert "The order is in force but is not in the ledger" in done.stderr
    assert "make the directory" in done.stderr
    assert not rows(run)["search"]["enabled"]


def test_commands_say_that_the_store_does_not_answer(run: Run, valkey: ValkeyProcess) -> None:
    """Without the store nobody can order anything, and a list would show ignorance."""
    valkey.stop()
    try:
        done = [run("flag", "list"), run("flag", "off", "search", *WHO), run("brownout", "1", *WHO)]
    finally:
        valkey.start()
    assert [one.returncode for one in done] == [1, 1, 1]
    assert all("store" in one.stderr and "Traceback" not in one.stderr for one in done)


def test_trial_is_started_and_stopped(run: Run) -> None:
    """A trial runs without the command that starts it; a wrong share or name is refused."""
    made = run("flag", "trial", "search.ranking", "--share", "0.25", "--for", "2m", *WHO)
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("search.ranking: trial on 0.25 of the calls, until 20")
    assert run("flag", "trial", "search.ranking", "--stop", *WHO).stdout == (
        "search.ranking: trial ended\n"
    )
    wrong = run("flag", "trial", "search.ranking", "--share", "0.7", *WHO)
    assert wrong.returncode == 2
    assert "0.7" in wrong.stderr
    unknown = run("flag", "trial", "serch.ranking", *WHO)
    assert unknown.returncode == 2
    assert "Did you mean 'search.ranking'?" in unknown.stderr


def test_orders_survive_an_old_ledger_and_the_loss_of_the_store(
    run: Run, urls: dict[str, str], valkey: ValkeyProcess
) -> None:
    """The worker that leads keeps them once the ledger is upgraded, and restores them from it."""
    url = urls["RESILIENCE_LEDGER_URL"]
    make_ledger(url, "0002")
    with run_worker(APP, queues=("others",), pool="solo", env=urls) as worker:
        done = run("flag", "off", "search", "--for", "10m", *WHO)
        assert done.returncode == 0
        assert "resilience ledger upgrade" in done.stderr
        wait_until(lambda: "orders about features are not kept" in worker.log, 30, "it says so")
        assert run("ledger", "upgrade").returncode == 0
        ledger = Ledger(url, namespace="resilience")
        wait_until(lambda: ledger.orders.history("search"), 40, "the order is kept")
        worker.kill()
    ledger.close()
    valkey.flush()
    with run_worker(APP, queues=("others",), pool="solo", env=urls) as worker:
        key = "{resilience}:flags"
        wait_until(lambda: valkey.client().exists(key), 60, "a worker has written it again")
        wait_until(lambda: not rows(run)["search"]["enabled"], 60, "the order is back")
        worker.kill()


def test_store_that_refuses_shows_no_all_clear(run: Run, valkey: ValkeyProcess) -> None:
    """A full store answers a ping, but nobody can learn from it what is ordered."""
    valkey.client().config_set("maxmemory", 1)
    try:
        for command in (("flag", "list"), ("breaker",)):
            done = run(*command)
            assert done.returncode == 1, done.stdout
            assert "the store answers, but refuses" in done.stderr
    finally:
        valkey.client().config_set("maxmemory", 0)


def test_reason_that_no_one_can_read_is_refused(run: Run) -> None:
    """Bytes that are no UTF-8, and a text that every process would have to fetch."""
    said = {"caf\udce9": "is not UTF-8", "x" * 501: "at most 500 characters of Unicode"}
    for reason, words in said.items():
        done = run("flag", "off", "search.ranking", "--reason", reason)
        assert done.returncode == 2
        assert words in done.stderr
