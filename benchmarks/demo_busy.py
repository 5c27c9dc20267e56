"""Whether the demo judges right beside other programs: the shop as it is, and sabotaged.

The shop must pass, and each sabotaged one must fail, on a machine that is quiet, beside two steady
busy loops, and beside two that start and stop at random. `python -m benchmarks demo_busy` takes
half an hour; `--quick` runs every cell once.
"""

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Final

from benchmarks.figure import Figure
from demo.sabotage import Sabotage
from resilience.testing.process import import_path

LOOPS: Final = 2
RUNS: Final = {"quiet": 1, "steady": 1, "bursts": 5}
"""How often the shop as it is runs beside what; a sabotaged one runs once."""
RUN_SECONDS: Final = 900.0
STOP_SECONDS: Final = 60.0
PROMISES_BROKEN: Final = 1


def run(*, quick: bool) -> Iterator[Figure]:
    """Yield one figure per run of the demo; 0 is the verdict that is right."""
    for load, runs in RUNS.items():
        for nth in range(1 if quick else runs):
            yield _judged(load, Sabotage.NONE, nth)
        for sabotage in (Sabotage.ONE_WORKER, Sabotage.SILENT):
            yield _judged(load, sabotage, 0)


def _judged(load: str, sabotage: Sabotage, nth: int) -> Figure:
    expected = 0 if sabotage is Sabotage.NONE else PROMISES_BROKEN
    began = perf_counter()
    with _beside(load, nth):
        code, output = _demo(sabotage)
    lines = [line.strip() for line in output.splitlines()]
    return Figure(
        name=f"demo_{load}_{sabotage}",
        value=float(code != expected),
        unit="wrong verdicts",
        bound=0.0,
        sides={
            "exit_code": code,
            "seconds": round(perf_counter() - began),
            "broken": _that_start_with("BROKEN", lines),
            "open": _that_start_with("open", lines),
        },
    )


def _demo(sabotage: Sabotage) -> tuple[int, str]:
    """Run the demo to its end and return its exit code and what it printed."""
    with TemporaryDirectory() as directory:
        process = subprocess.Popen(  # noqa: S603 - ours
            [sys.executable, "-m", "demo", "--sabotage", sabotage],
            cwd=directory,
            env={"PYTHONPATH": import_path(), "PATH": "/usr/bin:/bin", "COLUMNS": "300"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            output, _ = process.communicate(timeout=RUN_SECONDS)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(STOP_SECONDS)
        return process.returncode, output


@contextmanager
def _beside(load: str, nth: int) -> Iterator[None]:
    """Run what uses the processors beside the demo."""
    with ExitStack() as stack:
        for loop in range(0 if load == "quiet" else LOOPS):
            seed = [] if load == "steady" else [f"{nth}-{loop}"]
            command = [sys.executable, "-m", "benchmarks.demo_load", *seed]
            process = subprocess.Popen(command, cwd=Path(__file__).parent.parent)  # noqa: S603 - ours
            stack.callback(process.wait, STOP_SECONDS)
            stack.callback(process.kill)
        yield


def _that_start_with(mark: str, lines: Sequence[str]) -> list[str]:
    return [re.sub(rf"^{mark}\s*", "", line) for line in lines if line.startswith(mark)]
