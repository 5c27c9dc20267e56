"""Benchmarks that pages name: what is said there can be measured again."""

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.__main__ import LONG, NAMES, PARTS, main
from benchmarks.figure import Figure

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


def test_benchmark_that_fails_is_not_taken_for_one_that_is_out_of_bounds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit codes 3 and 1; the others named with it have their turn."""

    def fail(*, quick: bool) -> Iterator[Figure]:
        yield Figure(name="before", value=1, unit="count", bound=1)
        raise ConnectionError(quick)

    def pass_bound(*, quick: bool) -> Iterator[Figure]:
        yield Figure(name="beyond", value=1 + quick, unit="count", bound=0)

    for name, run in {"slots": fail, "scale": pass_bound}.items():
        monkeypatch.setattr(importlib.import_module(f"benchmarks.{name}"), "run", run)

    assert main(["slots", "scale"]) == 3
    assert '"beyond"' in capsys.readouterr().out
    assert main(["scale"]) == 1
