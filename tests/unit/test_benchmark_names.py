"""Benchmarks that pages name: what is said there can be measured again."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

from benchmarks.__main__ import LONG, NAMES, PARTS, main

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
TEXT = "\n".join(page.read_text() for page in PAGES)
NAMED = set(re.findall(r"python -m benchmarks (\w+)", TEXT)) - {"NAME", "all"}


def test_pages_name_benchmarks() -> None:
    """Were none found, nothing below would be looked at."""
    assert {"admission", "breaker_quality", "budget", "crash"} <= NAMED


@pytest.mark.parametrize("name", sorted({*NAMED, *NAMES, *PARTS, *LONG}))
def test_benchmark_that_is_named_can_start(name: str) -> None:
    """The command knows the name, and the module behind it imports and takes `quick`."""
    assert name in {*NAMES, *PARTS, *LONG}
    run = importlib.import_module(f"benchmarks.{name}").run
    inspect.signature(run).bind(quick=True)


def test_benchmark_that_nobody_knows_is_an_error_that_says_which_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit code 2, and the names."""
    assert main(["braker"]) == 2
    assert "breaker" in capsys.readouterr().err
