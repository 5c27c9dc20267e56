"""The list of equivalent mutants: it names lines that the product still has."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LISTED = tomllib.loads((ROOT / "tests/mutation/equivalent.toml").read_text())["equivalent"]


@pytest.mark.parametrize("one", LISTED, ids=lambda one: f"{one['path']}: {one['now']}")
def test_equivalent_mutant_changes_a_line_of_the_product(one: dict[str, str]) -> None:
    """An entry that outlives its line must go: it could excuse a mutant that differs."""
    lines = (ROOT / one["path"]).read_text().splitlines()

    assert one["was"] in " ".join(line.strip() for line in lines)
    assert one["now"] != one["was"]
    assert one["reason"]
