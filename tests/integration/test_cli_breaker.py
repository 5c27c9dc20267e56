"""The command line sees and orders the circuits of the whole fleet."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from resilience.testing.process import import_path, inherited_env
from resilience.testing.valkey import ValkeyProcess
from tests.brokers import Broker
from tests.integration import nameless

COMMAND = [sys.executable, "-m", "celery", "-A", "tests.integration.apps.circuits", "resilience"]


@pytest.fixture
def breaker(broker: Broker, valkey: ValkeyProcess) -> Any:  # noqa: ANN401 - a function
    """Run `celery … resilience breaker` and return the finished process."""
    urls = {
        "CELERY_BROKER_URL": broker.url,
        "CELERY_RESULT_BACKEND": valkey.url,
        "RESILIENCE_STORE_TIMEOUT_SECONDS": "10",  # the machine may be busy
    }

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603 - our own words
            [*COMMAND, "breaker", *arguments],
            env={**os.environ, **urls},  # noqa: TID251 - the child's
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    valkey.flush()
    return run


def test_order_is_seen_by_another_process_until_it_is_reset(breaker: Any) -> None:  # noqa: ANN401
    """What one process orders another one lists, with who and why; a reset ends it."""
    opened = breaker("open", "users", "--seconds", "60", "--actor", "ann", "--reason", "moving")
    assert opened.returncode == 0, opened.stderr
    assert "users: forced_open" in opened.stdout
    (row,) = json.loads(breaker("--json").stdout)
    assert 0 < row.pop("seconds_left") <= 60
    assert row.pop("since") == row.pop("version") / 1e6
    assert row == {
        "dependency": "users",
        "state": "forced_open",
        "opened": 0,
        "actor": "ann",
        "reason": "moving",
        "unreadable": False,
        **dict.fromkeys(("why", "error", "calls", "failed", "slow")),
    }
    assert breaker("reset", "users", "--reason", "moved").returncode == 0
    (row,) = json.loads(breaker("--json").stdout)
    assert row["state"] == "closed"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        pytest.param(["open", "free", "--reason", "x"], 2, "'free'", id="no-breaker"),
        pytest.param(["open", "users"], 2, "--reason", id="no-reason"),
        pytest.param(["open", "users", "--seconds", "-1", "--reason", "x"], 2, "-1", id="past"),
    ],
)
def test_order_is_refused_in_one_line_when_it_makes_no_sense(
    breaker: Any,  # noqa: ANN401
    arguments: list[str],
    code: int,
    said: str,
) -> None:
    """A wrong order ends with a line that names what is wrong, and no traceback."""
    done = breaker(*arguments)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_list_shows_reasons_as_they_were_given(breaker: Any) -> None:  # noqa: ANN401
    """Brackets, as around a ticket's number, are part of the reason."""
    reason = "[#471] [/x]"
    assert breaker("open", "users", "--actor", "[ann]", "--reason", reason).returncode == 0
    done = breaker()
    assert done.returncode == 0, done.stderr
    assert "[ann]" in done.stdout
    assert reason in done.stdout


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_order_of_a_user_without_a_name_bears_his_number() -> None:
    """Containers run as users that no password file knows."""
    named = {"LOGNAME", "USER", "LNAME", "USERNAME"}
    env = inherited_env({"PYTHONPATH": import_path()})
    done = subprocess.run(  # noqa: S603 - our own words
        [sys.executable, "-m", nameless.__name__],
        env={name: value for name, value in env.items() if name not in named},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout == "uid 54321\n"


def test_list_says_that_the_store_does_not_answer(
    breaker: Any,  # noqa: ANN401
    valkey: ValkeyProcess,
) -> None:
    """Without the store the command fails and says so, as it knows nothing of the fleet."""
    valkey.stop()
    try:
        done = breaker()
    finally:
        valkey.start()
    assert done.returncode == 1
    assert "store" in done.stderr
    assert "Traceback" not in done.stderr
