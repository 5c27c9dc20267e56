"""Rows that a command prints."""

import json

import pytest

from resilience.cli.rows import print_rows

NAMES = ["search.ai_ranking_of_recommended_products", "search.spell_check_in_all_languages"]
ROWS = [{"feature": name, "by": f"{name}@example", "why": name[::-1]} for name in NAMES]


@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_table_shows_every_character_however_narrow_the_terminal_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    """Somebody copies the name from there into the next command."""
    monkeypatch.setenv("COLUMNS", columns)

    print_rows(ROWS, ("feature", "by", "why"), as_json=False)

    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    cells = [[part.strip() for part in line.strip("│").split("│")] for line in lines]
    assert ["".join(parts) for parts in zip(*cells, strict=True)] == [
        "".join(row[name] for row in ROWS) for name in ("feature", "by", "why")
    ]


def test_table_is_as_wide_as_it_needs_to_be_where_no_terminal_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a file or a pipe a name stands on one line, where `grep` finds it."""
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr("sys.__stdout__", None)

    print_rows(ROWS, ("feature", "by", "why"), as_json=False)

    shown = capsys.readouterr().out
    assert all(text in shown for row in ROWS for text in row.values())


def test_json_has_the_rows_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """Programs read all there is, and times as numbers."""
    rows = [{**row, "since": 1.5, "until": None} for row in ROWS]
    print_rows(rows, ("feature", "why"), as_json=True)

    assert json.loads(capsys.readouterr().out) == rows
