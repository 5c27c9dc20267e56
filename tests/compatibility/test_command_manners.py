"""What the command line asks before it destroys, and what it refuses to guess."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from resilience.cli.words import duration_in_seconds
from resilience.testing.process import import_path, inherited_env
from tests.compatibility.apps import parcels
from tests.unit.desk import Desk


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """An operator in front of a ledger with one dead letter."""
    made = Desk(tmp_path / "ledger.sqlite3")
    made.bury("dead-one")
    yield made
    made.ledger.close()


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("dead", "purge", "--older-than", "0d"), id="purge"),
        pytest.param(("dead", "discard", "dead-one", "--reason", "x"), id="discard"),
        pytest.param(("dead", "discard", "--all", "--reason", "x", "--json"), id="discard-json"),
    ],
)
def test_command_that_destroys_asks_first(desk: Desk, words: tuple[str, ...]) -> None:
    """No terminal, no answer or "n": nothing is lost, exit code 1. With "y" or --yes it is done."""
    for answer in ("", "n\n"):
        refused = desk.run(*words, answer=answer)
        assert (refused.exit_code, refused.stdout) == (1, ""), refused.stderr
        assert "[y/N]" in refused.stderr
        assert desk.letters() == ["dead-one"]

    assert desk.run(*words, "--yes").exit_code == 0
    assert desk.letters() == []


def test_answer_of_yes_destroys(desk: Desk) -> None:
    """The question names what will be gone."""
    done = desk.run("dead", "purge", "--older-than", "0s", answer="y\n")

    assert done.exit_code == 0, done.stderr
    assert "0s" in done.stderr
    assert desk.letters() == []


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("dead", "purge", "--older-than", "1", "--yes"), id="purge"),
        pytest.param(("dead", "list", "--older-than", "1"), id="list"),
        pytest.param(
            ("dead", "discard", "--older-than", "0", "--reason", "x", "--yes"), id="discard"
        ),
        pytest.param(("dead", "replay", "--older-than", "0", "--reason", "x"), id="replay"),
    ],
)
def test_duration_without_unit_is_refused(desk: Desk, words: tuple[str, ...]) -> None:
    """Whoever meant days does not get seconds."""
    refused = desk.run(*words)

    assert refused.exit_code == 2
    assert "no unit" in refused.stderr
    assert desk.letters() == ["dead-one"]


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("breaker", "open", "mail"), id="breaker"),
        pytest.param(("hold", "mail"), id="hold"),
    ],
)
def test_order_for_no_time_or_for_ever_is_refused(desk: Desk, words: tuple[str, ...]) -> None:
    """An order of so long would never hold, or never end."""
    for seconds in ("nan", "inf", "0", "-5", "1w", "9" * 400):
        refused = desk.run(*words, f"--seconds={seconds}", "--reason", "x")

        assert refused.exit_code == 2, (seconds, refused.stderr)
        assert "--seconds" in refused.stderr


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("dead", "show", "nope"), id="show"),
        pytest.param(("dead", "show", "nope", "--json"), id="show-json"),
        pytest.param(("dead", "replay", "nope", "--reason", "x"), id="replay"),
        pytest.param(("dead", "replay", "nope", "--dry-run"), id="replay-dry"),
        pytest.param(("dead", "discard", "nope", "--reason", "x", "--yes"), id="discard"),
        pytest.param(("dead", "discard", "nope", "--dry-run", "--json"), id="discard-dry"),
    ],
)
def test_name_that_is_not_there_exits_with_1(desk: Desk, words: tuple[str, ...]) -> None:
    """A script sees that nothing was found; the letter that is there stays."""
    assert desk.run(*words).exit_code == 1
    assert desk.letters() == ["dead-one"]


def test_order_takes_a_duration_with_a_unit() -> None:
    """The option's name is the unit of a bare number; another unit is written out."""
    assert [duration_in_seconds(text) for text in ("90", "90s", "1.5m", 600.0)] == [90, 90, 90, 600]
    with pytest.raises(click.BadParameter, match="more than 0"):
        duration_in_seconds("0")


def test_purge_in_a_process_without_a_terminal_destroys_nothing(desk: Desk) -> None:
    """As in a cron job that lacks --yes: exit code 1, and the letter stays."""
    command = [sys.executable, "-m", "celery", "-A", parcels.__name__, "resilience"]
    env = inherited_env(
        {
            "PYTHONPATH": import_path(),
            "CELERY_BROKER_URL": "memory://",
            "RESILIENCE_LEDGER_URL": f"sqlite:///{desk.path}",
        }
    )
    done = subprocess.run(  # noqa: S603 - the project's own command
        [*command, "dead", "purge", "--older-than", "0d"],
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert desk.letters() == ["dead-one"]
