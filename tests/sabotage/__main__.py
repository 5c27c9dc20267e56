"""Make every listed mistake in a copy of the tree, and check that its tests fail.

Run by `make sabotage`; `make sabotage ONLY=breaker` tries those whose area or promise matches.
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
    """Try all sabotages that match *only*; return 0 if all of them are caught."""
    began = perf_counter()
    chosen = matching(only)
    named = sorted({test for one in chosen for test in one.tests})
    files = [[*tests] for _, tests in groupby(named, lambda test: test.partition("::")[0])]
    print(f"{len(files)} test files without sabotage, then {len(chosen)} sabotages", flush=True)
    report = reporter(len(files) + len(chosen))
    with tempfile.TemporaryDirectory(prefix="sabotage-") as name:
        original = Path(name) / "original"
        shutil.copytree(ROOT, original, ignore=LEFT_OUT)
        check_imports(original)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            fail_anyway = set().union(
                *pool.map(lambda tests: failing_anyway(tests, original, report), files)
            )
            caught = sum(
                pool.map(lambda one: is_caught(one, original, fail_anyway, report), chosen)
            )
    print(f"{caught} of {len(chosen)} caught, in {perf_counter() - began:.0f} s")
    return int(caught < len(chosen))


def matching(only: str) -> list[Sabotage]:
    """Return the sabotages that *only* matches; end the program if there are none."""
    known = all_sabotages()
    try:
        chosen = [one for one in known if re.search(only, str(one), re.IGNORECASE)]
    except re.error as error:
        sys.exit(f"ONLY={only} is no regular expression: {error}")
    if not chosen:
        areas = ", ".join(sorted({one.area for one in known}))
        sys.exit(f"ONLY={only} matches none of {len(known)} sabotages; the areas are {areas}")
    return chosen


def reporter(steps: int) -> Report:
    """Return a function that prints the result of a step that began at a given moment."""
    start = perf_counter()
    numbers = count(1)

    def report(began: float, line: str) -> None:
        now, done = perf_counter(), next(numbers)
        minutes = (now - start) / done * (steps - done) / 60
        left = f"about {minutes:.0f} min left"
        print(f"{done:3d} of {steps}, {left}: {now - began:5.1f} s  {line}", flush=True)

    return report


def failing_anyway(tests: list[str], original: Path, report: Report) -> set[str]:
    """Return, and report, which of *tests*, all of one file, fail without a sabotage."""
    began = perf_counter()
    failed = failing(original, tests)
    complaint = f"FAILS WITHOUT SABOTAGE: {', '.join(sorted(failed))}"
    report(began, complaint if failed else f"no failure: {tests[0].partition('::')[0]}")
    return failed


def is_caught(one: Sabotage, original: Path, fail_anyway: set[str], report: Report) -> bool:
    """Return, and report, whether all tests of *one* fail because of it."""
    began = perf_counter()
    with tempfile.TemporaryDirectory(prefix="sabotage-") as name:
        copy = Path(name) / "copy"
        shutil.copytree(original, copy)
        path, text = one.sabotaged(copy)
        path.write_text(text)
        fail_of_it = failing(copy, one.tests) - fail_anyway
    missed = sorted({*one.tests} - fail_of_it)
    names = ", ".join(test.rpartition("::")[2] for test in missed or one.tests)
    report(began, f"{one} {'NOT CAUGHT' if missed else 'caught'} by {names}")
    return not missed


def failing(copy: Path, tests: Iterable[str]) -> set[str]:
    """Return those of *tests* that fail in *copy*, in at least one of their variants.

    An error of an import or a fixture does not count: it says nothing about the promise.
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
    """Make sure that *copy* is imported, and not the tree that is installed."""
    command = [sys.executable, "-c", "import resilience; print(resilience.__file__)"]
    found = subprocess.check_output(  # noqa: S603 - as above
        command, cwd="/", env=environment(copy), text=True
    )
    if not Path(found.strip()).is_relative_to(copy):
        msg = f"{found.strip()} is imported in place of {copy}: no sabotage would have an effect"
        raise RuntimeError(msg)


def environment(copy: Path) -> dict[str, str]:
    """Return an environment that imports *copy*; CI makes Hypothesis repeat its examples."""
    return inherited_env({"PYTHONPATH": str(copy), "CI": "true"})


if __name__ == "__main__":
    sys.exit(main(" ".join(sys.argv[1:])))
