"""Build every listed mistake into a copy of the tree, and see the tests that must fail do so.

Run by `make sabotage`; `make sabotage ONLY=breaker` runs those whose area or promise matches.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import count, groupby
from pathlib import Path
from time import perf_counter

from resilience.testing.process import inherited_env
from tests.sabotage.sabotages import ROOT, Sabotage, all_sabotages

AT_ONCE = 2
SECONDS_MAX = 400.0
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", ".*_cache", ".hypothesis", ".mutants", "mutants")

Report = Callable[[float, str], None]


def main(only: str) -> int:
    """Run all sabotages that match *only*; return 0 if there are any, and all are caught."""
    began = perf_counter()
    chosen = [one for one in all_sabotages() if re.search(only, str(one), re.IGNORECASE)]
    named = sorted({test for one in chosen for test in one.tests})
    files = [[*tests] for _, tests in groupby(named, lambda test: test.partition("::")[0])]
    print(f"{len(files)} test files as they are, then {len(chosen)} sabotages", flush=True)
    report = reporter(len(files) + len(chosen))
    with tempfile.TemporaryDirectory(prefix="sabotage-") as name:
        healthy = Path(name) / "healthy"
        shutil.copytree(ROOT, healthy, ignore=LEFT_OUT)
        check_imports(healthy)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            sick = set().union(*pool.map(lambda tests: sick_of(tests, healthy, report), files))
            caught = sum(pool.map(lambda one: is_caught(one, healthy, sick, report), chosen))
    print(f"{caught} of {len(chosen)} caught, in {perf_counter() - began:.0f} s")
    return int(caught < len(chosen) or not chosen)


def reporter(steps: int) -> Report:
    """Return what prints a finished step: when it began, and what came of it."""
    start = perf_counter()
    numbers = count(1)

    def report(began: float, line: str) -> None:
        now, done = perf_counter(), next(numbers)
        minutes = (now - start) / done * (steps - done) / 60
        left = f"about {minutes:.0f} min left"
        print(f"{done:3d} of {steps}, {left}: {now - began:5.1f} s  {line}", flush=True)

    return report


def sick_of(tests: list[str], healthy: Path, report: Report) -> set[str]:
    """Return, and report, those of *tests*, all of one file, that fail without a sabotage."""
    began = perf_counter()
    sick = failing(healthy, tests)
    failed = f"FAILS WITHOUT SABOTAGE: {', '.join(sorted(sick))}"
    report(began, failed if sick else f"healthy: {tests[0].partition('::')[0]}")
    return sick


def is_caught(one: Sabotage, healthy: Path, sick: set[str], report: Report) -> bool:
    """Return, and report, whether all tests that must fail of *one* do."""
    began = perf_counter()
    with tempfile.TemporaryDirectory(prefix="sabotage-") as name:
        copy = Path(name) / "copy"
        shutil.copytree(healthy, copy)
        path, text = one.sabotaged(copy)
        path.write_text(text)
        failed = failing(copy, one.tests)
    silent = sorted({*one.tests} - failed | {*one.tests} & sick)
    names = ", ".join(test.rpartition("::")[2] for test in silent or one.tests)
    report(began, f"{one} {'NOT CAUGHT' if silent else 'caught'} by {names}")
    return not silent


def failing(copy: Path, tests: Iterable[str]) -> set[str]:
    """Return those of *tests* that fail in *copy*, each in one variant or more.

    A test that cannot be imported or set up has not failed: it says nothing of its promise.
    """
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "-rf", "-p", "no:cacheprovider"]
    process = subprocess.Popen(  # noqa: S603 - the tests of this tree
        [*command, *tests],
        cwd=copy,
        env=environment(copy),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    try:
        output, _ = process.communicate(timeout=SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.terminate()  # the tests then stop the servers that they started
        output, _ = process.communicate()
    lines = [line.removeprefix("FAILED ") for line in output.splitlines() if "FAILED " in line]
    failed = {
        one for one in tests for line in lines if f"{line} ".startswith((f"{one} ", f"{one}["))
    }
    if process.returncode not in {0, 1}:
        print(output, file=sys.stderr)
    return failed


def check_imports(copy: Path) -> None:
    """Make sure that what is imported is *copy*, and not the tree that is installed."""
    command = [sys.executable, "-c", "import resilience; print(resilience.__file__)"]
    found = subprocess.check_output(  # noqa: S603 - as above
        command, cwd="/", env=environment(copy), text=True
    )
    if not Path(found.strip()).is_relative_to(copy):
        msg = f"{found.strip()} is imported in place of {copy}: nothing that is sabotaged would be"
        raise RuntimeError(msg)


def environment(copy: Path) -> dict[str, str]:
    """Return an environment that imports *copy*, and lets Hypothesis try the same each time."""
    return inherited_env({"PYTHONPATH": str(copy), "CI": "true"})


if __name__ == "__main__":
    sys.exit(main(" ".join(sys.argv[1:])))
