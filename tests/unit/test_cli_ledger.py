"""What operators see of the ledger."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from resilience.ledger import Job
from tests.unit.desk import Desk


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A desk with an empty ledger."""
    made = Desk(tmp_path / "ledger.sqlite3")
    yield made
    made.ledger.close()


def test_status_counts_by_dependency_and_state(desk: Desk) -> None:
    """With how long the oldest has been due, or until it is."""
    desk.bury("one")
    waiting = Job(id="two", task="shop.send", dependency="mail", queue="mail", message="{}")
    desk.ledger.add([waiting], delay_seconds=7200)
    desk.ledger.add([Job(**{**as_fields(waiting), "id": "three"})])
    desk.alter("UPDATE resilience_jobs SET due = due - 300 WHERE id = 'three'")

    rows = desk.said("ledger", "status")
    table = desk.run("ledger", "status").stdout

    assert [(row["dependency"], row["state"], row["jobs"]) for row in rows] == [
        ("mail", "dead", 1),
        ("mail", "outbox", 1),
        ("mail", "scheduled", 1),
    ]
    dead, outbox, scheduled = (row["overdue_seconds"] for row in rows)
    assert dead is None
    assert 300 <= outbox < 360
    assert -7200 <= scheduled < -7100
    assert "overdue 5m" in table
    assert "due in 1h" in table
    assert str(desk.path) in table


def test_numbers_say_where_counting_ended(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless all are to be counted."""
    monkeypatch.setattr("resilience.cli.ledger.COUNT_LIMIT", 2)
    for name in ("one", "two", "three"):
        desk.bury(name)

    [row], [exact] = desk.said("ledger", "status"), desk.said("ledger", "status", "--exact")

    assert (row["jobs"], row["more"]) == (2, True)
    assert (exact["jobs"], exact["more"]) == (3, False)
    assert " 2+ " in desk.run("ledger", "status").stdout


def test_state_of_another_version_is_shown_by_its_name(desk: Desk) -> None:
    """While versions change, a newer worker may have written it; all else is shown as ever."""
    desk.app.conf.broker_url = "memory://"
    desk.bury("one")
    desk.bury("two")
    desk.alter("UPDATE resilience_jobs SET state = 'paused', died = NULL WHERE id = 'two'")

    for options in ([], ["--exact"]):
        rows = desk.said("ledger", "status", *options)
        assert [(row["state"], row["jobs"]) for row in rows] == [("dead", 1), ("paused", 1)]
    assert " paused " in desk.run("ledger", "status").stdout
    assert json.loads(desk.run("status", "--json").stdout)["dead"] == {"mail": 1}


def as_fields(job: Job) -> dict[str, Any]:
    """Return the arguments that make *job*."""
    return {name: getattr(job, name) for name in Job.__dataclass_fields__}


def test_status_of_an_empty_ledger_says_so(desk: Desk) -> None:
    """And where it is, as it may be the wrong one."""
    assert desk.run("ledger", "status").stdout == f"sqlite:///{desk.path} holds no jobs.\n"
    assert desk.said("ledger", "status") == []


def test_upgrade_says_from_where_to_where(desk: Desk) -> None:
    """Again it is harmless."""
    first, again = desk.run("ledger", "upgrade"), desk.run("ledger", "upgrade")

    assert first.stdout == f"sqlite:///{desk.path}: from no schema to schema 0005.\n"
    assert again.stdout == f"sqlite:///{desk.path} has schema 0005 already.\n"
    assert (first.exit_code, again.exit_code) == (0, 0)


def test_older_library_leaves_a_newer_schema_alone(desk: Desk) -> None:
    """Every command ends with one line that says what to do, and exit code 1."""
    desk.ledger.upgrade()
    desk.alter("UPDATE resilience_version SET version_num = '0999'")
    old = Desk(desk.path)

    for words in (["ledger", "upgrade"], ["ledger", "status"], ["dead", "list"]):
        done = old.run(*words)
        assert done.exit_code == 1
        assert "0999" in done.stderr
        assert "Traceback" not in done.stderr
    old.ledger.close()


def test_ledger_that_is_away_is_one_line(tmp_path: Path) -> None:
    """Commands say where it should be; exit code 1."""
    desk = Desk(tmp_path / "missing" / "ledger.sqlite3")

    for words in (["ledger", "status"], ["ledger", "upgrade"], ["dead", "show", "one"]):
        done = desk.run(*words)
        assert done.exit_code == 1
        assert "missing/ledger.sqlite3" in done.stderr
        assert "make the directory" in done.stderr
