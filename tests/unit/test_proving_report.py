"""The truth table of a proof, and its comparison with a committed one."""

import pytest

from resilience.chaos.proving.report import Row, changes, markdown, parse

ROWS = [
    Row("page", "none", "FULL", "", seconds=0.02),
    Row("page", "users error", "STALE", "a: stale | b", seconds=0.31),
]
BASELINE = (
    f"# Truths\n\nAs of today:\n\n{markdown(ROWS)}\n| other | table |\n|---|---|\n| 1 | 2 |\n"
)


def test_table_that_was_written_equals_itself() -> None:
    """What `--markdown` prints is a baseline that nothing differs from; other text is no matter."""
    assert changes(ROWS, BASELINE, whole=True) == []


def test_seconds_are_no_change() -> None:
    """A slower machine changes no truth."""
    slower = [Row("page", "none", "FULL", "", seconds=9.0), ROWS[1]]

    assert changes(slower, BASELINE, whole=True) == []


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (
            [Row("page", "none", "STATIC", "static", seconds=0)],
            "page under none: STATIC (static), but was FULL",
        ),
        (
            [Row("page", "users hang", "FULL", "", seconds=0)],
            "page under users hang: FULL is not in the baseline",
        ),
    ],
)
def test_change_is_named_with_its_row(rows: list[Row], sentence: str) -> None:
    """A changed level or source, or a new row, is a sentence."""
    assert changes(rows, BASELINE, whole=False) == [sentence]


def test_row_that_is_gone_is_a_change_only_of_the_whole_table() -> None:
    """Who tries some of the faults need not see the rows of the others."""
    assert changes(ROWS[:1], BASELINE, whole=False) == []
    assert changes(ROWS[:1], BASELINE, whole=True) == [
        "page under users error: in the baseline only"
    ]


def test_row_with_other_columns_is_none_of_the_baseline() -> None:
    """A row of the file that was damaged does not stand for what was found."""
    damaged = BASELINE.replace("| 0.0 |", "|")

    assert changes(ROWS, damaged, whole=True) == ["page under none: FULL is not in the baseline"]


@pytest.mark.parametrize("text", ["", "| call | level |\n|---|---|\n| page | FULL |\n"])
def test_baseline_without_a_table_is_an_error(text: str) -> None:
    """A file that holds no table, or one with other columns, must not pass for an empty one."""
    with pytest.raises(ValueError, match="column"):
        parse(text)
